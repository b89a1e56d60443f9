"""A metric with all that is needed to read it: interval, chance level, number of questions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from workbench.html_text import ShowsTable
from workbench.statistics import Interval


@dataclass(frozen=True)
class ScorecardMetric:
    """One metric of a scorecard.

    Attributes:
        name: Name of the metric.
        value: Estimate with its interval, number of questions and number of groups.
        chance: Value of a model that knows nothing; None if there is no such level.
        meaning: Description of the metric in words.
        missing: Number of questions without a usable verdict; they are left out of the estimate.
        unit: Unit of the value: "share" (0 to 1) or "nats per token".
    """

    name: str
    value: Interval
    chance: float | None
    meaning: str
    missing: int = 0
    unit: str = "share"

    def row(self) -> dict[str, Any]:
        """Return the metric as one row of the scorecard's table, a dictionary from column to value."""
        v = self.value
        about = {
            "unit": self.unit,
            "chance": self.chance,
            "n": v.n,
            "groups": v.groups,
            "missing": self.missing,
            "meaning": self.meaning,
        }
        return {"metric": self.name, "value": v.estimate, "low": v.low, "high": v.high, **about}


@dataclass(frozen=True, repr=False)
class Scorecard(ShowsTable):
    """All metrics of one model with one prompt (or none), with any steering that was active."""

    metrics: tuple[ScorecardMetric, ...]
    title: str = ""

    def __iter__(self) -> Iterator[ScorecardMetric]:
        return iter(self.metrics)

    def __getitem__(self, name: str) -> ScorecardMetric:
        return next(metric for metric in self.metrics if metric.name == name)

    @property
    def table(self) -> pd.DataFrame:
        """Table of the scorecard, with one row per metric."""
        return pd.DataFrame([metric.row() for metric in self.metrics])

    def shown_table(self) -> tuple[str, pd.DataFrame]:
        """Return the title of the scorecard and its table, to show in a notebook."""
        return self.title, self.table


def beside(cards: dict[str, Scorecard]) -> pd.DataFrame:
    """Compare several scorecards in one table: one row per metric, one column per card, and the chance level.

    Args:
        cards: Scorecards by the title of their column.
    """
    names: Sequence[str] = list(dict.fromkeys(m.name for card in cards.values() for m in card))
    found = {title: {m.name: m.value.estimate for m in card} for title, card in cards.items()}
    chance = {m.name: m.chance for card in cards.values() for m in card}
    return pd.DataFrame(
        [{"metric": n, "chance": chance[n], **{t: v.get(n) for t, v in found.items()}} for n in names]
    )
