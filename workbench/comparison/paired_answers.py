"""Answers of a run's conditions, paired question by question: the differences that claims are judged by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from workbench.comparison.claim_sentences import points, signed
from workbench.errors import UserError
from workbench.statistics import Interval, PairedDifference, paired_difference, paired_rate_difference

#: A side effect is small if its 95 % interval is within this margin: a fraction of questions, or nats per
#: token of unrelated text.
RATE_MARGIN = 0.10
TEXT_MARGIN = 0.10


@dataclass(frozen=True)
class PairedAnswers:
    """Log-odds of the persona's answer under all conditions, with one row per question and option order.

    Attributes:
        log_odds: Table of log-odds with one column per condition.
        groups: Question group of each row.
        wanted: Intended direction: -1 for less of the persona, +1 for more.
        seed: Seed of the permutation tests.
    """

    log_odds: pd.DataFrame
    groups: tuple[Any, ...]
    wanted: int
    seed: int = 0

    @classmethod
    def of(cls, answers: pd.DataFrame | None, wanted: int, seed: int = 0) -> PairedAnswers | None:
        """Build the table from the rows of evaluation.parquet.

        Args:
            answers: The rows; None if the file is missing.
            wanted: Intended direction: -1 for less of the persona, +1 for more.
            seed: Seed of the permutation tests.

        Returns:
            The table; None if the file is missing, is empty, or lacks a column.
        """
        if (
            answers is None
            or not {"condition", "item", "group", "log_odds"} <= set(answers.columns)
            or answers.empty
        ):
            return None
        named = answers.assign(order=answers.groupby(["condition", "item"], sort=False).cumcount())
        if "matching_first" in named:
            named["order"] = named["matching_first"].astype(str)
        named = named.drop_duplicates(["condition", "item", "order"])
        groups = named.drop_duplicates(["item"]).set_index("item")["group"]
        table = named.pivot(index=["item", "order"], columns="condition", values="log_odds").astype(float)
        return cls(table, tuple(groups.loc[table.index.get_level_values("item")]), wanted, seed)

    def has(self, *names: str) -> bool:
        """Return whether each of the named conditions has at least one finite answer."""
        return all(name in self.log_odds and bool(np.isfinite(self.log_odds[name]).any()) for name in names)

    def effect(self, name: str) -> float:
        """Return the mean log-odds of the persona's answer under a condition; higher is better.

        The log-odds are negated if less of the persona is intended.
        """
        return self.wanted * float(np.nanmean(self.log_odds[name]))

    def difference(self, name: str, other: str) -> PairedDifference:
        """Return the mean log-odds of the persona's answer under `name` minus that under `other`.

        Only questions that have answers under both conditions are used.
        """
        return paired_difference(*self._both(name, other), seed=self.seed)

    def rate_difference(self, name: str, other: str) -> PairedDifference:
        """Return the rate of answers that show the persona under `name` minus that under `other`.

        The difference is paired: only questions that have answers under both conditions are used.
        """
        a, b, groups = self._both(name, other)
        return paired_rate_difference(a > 0, b > 0, groups, seed=self.seed)

    def _both(self, name: str, other: str) -> tuple[np.ndarray, np.ndarray, list[Any]]:
        a, b = (self.log_odds[one].to_numpy() for one in (name, other))
        known = np.isfinite(a) & np.isfinite(b)
        if not known.any():
            raise UserError(f"{name!r} and {other!r} have no question in common")
        return a[known], b[known], [group for group, there in zip(self.groups, known, strict=True) if there]


@dataclass(frozen=True)
class SideEffect:
    """One side effect of a prompt, and whether it is shown to be small.

    Attributes:
        measure: Name of the measure of the side effect.
        part: Kind of side effect: change of agreement with "true statements", of "other personas", or of
            general "capability".
        change: Change relative to the baseline: of the rate of answers (-1 to 1), or of the cross-entropy of
            unrelated text (nats per token).
        unit: "points" or "nats per token".
        margin: Largest allowed change.
        within: Whether the 95 % interval of the change is within the margin. Only changes for the worse
            count: less agreement with true statements, higher cross-entropy, or a change of another persona
            in either direction.
    """

    measure: str
    part: str
    change: Interval
    unit: str
    margin: float
    within: bool

    def __str__(self) -> str:
        scale, form = (100, points) if self.unit == "points" else (1, signed)
        value, low, high = map(form, (self.change.estimate, self.change.low, self.change.high))
        interval = f"{low} to {high}" if math.isfinite(self.change.low) else "one question group: no interval"
        name = self.measure.removesuffix("_log_odds").removesuffix("_nats").replace("_", " ")
        return f"{name} {value} {self.unit} ({interval}; margin {scale * self.margin:g})"


def side_effects_of(
    rows: pd.DataFrame | None, name: str, baseline: str, seed: int = 0
) -> tuple[SideEffect, ...]:
    """Compute the side effects of one condition (a prompt or steering) relative to a baseline condition.

    Differences are paired question by question.

    Args:
        rows: Rows of off_target.parquet, the answers to questions about side effects; None if the file is
            missing.
        name: Name of the condition.
        baseline: Name of the condition to compare with.
        seed: Seed of the permutation tests.

    Returns:
        One side effect for each measure that was taken under both conditions.
    """
    if rows is None or rows.empty:
        return ()
    kept: Mapping[Any, pd.DataFrame] = dict(tuple(rows.groupby(["measure", "part"], sort=False)))
    found = (_side_effect(measure, part, own, name, baseline, seed) for (measure, part), own in kept.items())
    return tuple(effect for effect in found if effect is not None)


def _side_effect(
    measure: str, part: str, rows: pd.DataFrame, name: str, baseline: str, seed: int
) -> SideEffect | None:
    paired = PairedAnswers.of(rows.rename(columns={"value": "log_odds"}), 1, seed)
    if paired is None or not paired.has(name, baseline):
        return None
    if not bool(rows["hit"].notna().to_numpy().any()):
        change, unit, margin = paired.difference(name, baseline).interval, "nats per token", TEXT_MARGIN
        return SideEffect(measure, part, change, unit, margin, change.high < margin)
    change = paired.rate_difference(name, baseline).interval
    falls_little = change.low > -RATE_MARGIN
    within = falls_little and change.high < RATE_MARGIN if part == "other personas" else falls_little
    return SideEffect(measure, part, change, "points", RATE_MARGIN, within)
