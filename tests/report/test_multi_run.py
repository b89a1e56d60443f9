"""The axis of an overview's forest plot, whatever the runs hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.report.multi_run import OverviewLine, _axis

SHIFTS = st.floats(-50, 50, allow_nan=False)


def line(shift: float, low: float | None = None, high: float | None = None) -> OverviewLine:
    return OverviewLine("RESGA", "seed", "resga", 1, 0.5, shift, low, high)


@pytest.mark.parametrize("drawn", [[], [line(0.0)], [line(0.0, 0.0, 0.0)] * 3], ids=["none", "zero", "zeros"])
def test_an_axis_of_nothing_or_of_zeros_has_few_ticks(drawn: list[OverviewLine]) -> None:
    """It had 10^8 of them: an overview of runs in which nothing is drawn took 20 s and 2 GB."""
    low, high, ticks = _axis(drawn)
    assert low < 0 < high and 3 <= len(ticks) <= 12 and 0.0 in ticks


@given(st.lists(st.tuples(SHIFTS, SHIFTS, SHIFTS), max_size=6))
def test_every_axis_holds_zero_and_the_means_with_few_ticks(rows: list[tuple[float, float, float]]) -> None:
    drawn = [line(shift, min(shift, low), max(shift, high)) for shift, low, high in rows]
    low, high, ticks = _axis(drawn)
    assert all(low <= value <= high for value in (0.0, *(one.shift for one in drawn)))
    assert 1 <= len(ticks) <= 20 and all(low <= tick <= high for tick in ticks)
