"""A figure with all that is needed to read it: interval, chance level, how many questions, how many are missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from workbench.html_text import ShowsTable
from workbench.statistics import Interval


@dataclass(frozen=True)
class ScorecardMetric:
    """One line of a scorecard.

    value: with its interval, n and groups. chance: what a model that knows nothing scores, None where there
    is no such level. meaning: in words. missing: questions without a usable verdict (they are in no figure).
    unit: "share", or "nats per token".
    """

    name: str
    value: Interval
    chance: float | None
    meaning: str
    missing: int = 0
    unit: str = "share"

    def row(self) -> dict[str, Any]:
        """One row of a table."""
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
    """Metrics of one model under one prompt (and whatever edits were on)."""

    metrics: tuple[ScorecardMetric, ...]
    title: str = ""

    def __iter__(self) -> Iterator[ScorecardMetric]:
        return iter(self.metrics)

    def __getitem__(self, name: str) -> ScorecardMetric:
        return next(metric for metric in self.metrics if metric.name == name)

    @property
    def table(self) -> pd.DataFrame:
        """One row per metric."""
        return pd.DataFrame([metric.row() for metric in self.metrics])

    def shown_table(self) -> tuple[str, pd.DataFrame]:
        """The caption and the rows."""
        return self.title, self.table


def beside(cards: dict[str, Scorecard]) -> pd.DataFrame:
    """Several scorecards side by side: one row per metric, one column per card (value), and chance."""
    names: Sequence[str] = list(dict.fromkeys(m.name for card in cards.values() for m in card))
    found = {title: {m.name: m.value.estimate for m in card} for title, card in cards.items()}
    chance = {m.name: m.chance for card in cards.values() for m in card}
    return pd.DataFrame(
        [{"metric": n, "chance": chance[n], **{t: v.get(n) for t, v in found.items()}} for n in names]
    )
