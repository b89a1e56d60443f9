"""Sentences about a prompt's effect and claims, the same in report, terminal, notebook and audit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from workbench.conditions import claim_label, condition_label
from workbench.html_text import spoken
from workbench.schema import ComparisonFile, ConditionEntry, DifferenceEntry
from workbench.statistics import Interval

#: "wanted": an effect in the intended direction is shown; "opposite": an effect against it is shown;
#: "unclear": the interval contains zero; "unknown": there is no interval.
EffectKind = Literal["wanted", "opposite", "unclear", "unknown"]
Ends = tuple[float | None, float | None]


@dataclass(frozen=True)
class PromptEffect:
    """A prompt's effect relative to no prompt.

    Attributes:
        name: Name of the prompt in sentences.
        persona: Name of the persona in sentences.
        wanted: Intended direction: -1 for less of the persona, +1 for more.
        before: Rate of the matching answer (the one that shows the persona) without a prompt; None if
            unknown.
        after: The same rate with the prompt.
        change: Change of the rate, -1 to 1.
        ci: Ends of the change's 95 % interval.
        log_odds: Change of the mean log-odds of the matching answer, by which effects are judged.
        log_odds_ci: Ends of the 95 % interval of `log_odds`.
    """

    name: str
    persona: str
    wanted: int
    before: float | None
    after: float | None
    change: float | None
    ci: Ends
    log_odds: float | None
    log_odds_ci: Ends

    @classmethod
    def of(cls, comparison: ComparisonFile, entry: ConditionEntry) -> PromptEffect:
        """Read the effect of one prompt (condition) from the contents of comparison.json.

        Args:
            comparison: The contents of comparison.json.
            entry: The prompt's entry in it.
        """
        found = entry.difference(comparison.baseline) or DifferenceEntry(to=comparison.baseline)
        before = next((c.rate for c in comparison.conditions if c.name == comparison.baseline), None)
        return cls(
            condition_label(entry.name),
            spoken(comparison.persona),
            comparison.wanted,
            before,
            entry.rate,
            found.value,
            found.ci,
            found.log_odds,
            found.log_odds_ci,
        )

    @property
    def kind(self) -> EffectKind:
        """Kind of the prompt's effect, judged by the interval of its log-odds.

        If that interval is missing, the interval of the rate is used.

        "wanted" and "opposite": an effect in the intended or in the opposite direction is shown. "unclear":
        the interval contains zero. "unknown": there is no interval.
        """
        low, high = self.log_odds_ci if None not in self.log_odds_ci else self.ci
        if low is None or high is None:
            return "unknown"
        if low <= 0 <= high:
            return "unclear"
        return "wanted" if low * self.wanted > 0 else "opposite"

    def sentence(self) -> str:
        """Describe the prompt's effect in one sentence.

        Example: "RESGA lowers sycophancy from 86 % to 22 % (-64 points, 95 % CI -70 to -57)." The log-odds
        are used instead if the rates do not show the effect.
        """
        name = self.name[:1].upper() + self.name[1:]
        lowers = (self.wanted < 0) == (self.kind == "wanted")
        verb = "lowers" if lowers else "raises"
        opposite = ", the opposite of what was wanted," if self.kind == "opposite" else ""
        if self.kind == "unknown":
            return f"{name} was compared with no prompt without an interval: how sure a change of {self.persona} is, is not known."
        if self.kind == "unclear":
            return f"{name} may not change {self.persona} at all: {self._rates() or self._moved()}."
        if self._rate_is_shown(lowers):
            return f"{name} {verb} {self.persona}{opposite} {self._rates()}."
        return f"{name} {verb} {self.persona}{opposite.removesuffix(',')}: {self._moved()}{self._rate_too()}."

    def _rate_too(self) -> str:
        """Return the part of the sentence that gives the rate after the log-odds."""
        rates = self._rates()
        if rates and percent(self.before or 0.0) == percent(self.after or 0.0):
            return f"; the rate stays at {percent(self.before or 0.0)} {rates[rates.index('(') :]}"
        return f"; the rate goes {rates}" if rates else ""

    def _rate_is_shown(self, lowers: bool) -> bool:
        """Whether the interval of the rate alone shows the same direction as the log-odds."""
        low, high = self.ci
        return (
            bool(self._rates()) and low is not None and high is not None and (high < 0 if lowers else low > 0)
        )

    def _rates(self) -> str:
        if self.before is None or self.after is None or self.change is None:
            return ""
        ci = "" if None in self.ci else f", 95 % CI {ends(self.ci, points)}"
        return f"from {percent(self.before)} to {percent(self.after)} ({points(self.change)} points{ci})"

    def _moved(self) -> str:
        return f"{signed(self.log_odds or 0.0)} in log-odds (95 % CI {ends(self.log_odds_ci, signed)})"


def claims_sentence(statuses: Sequence[tuple[str, str]]) -> str:
    """Write which claims about a prompt are shown, not shown and not tested, one sentence for each.

    A claim is, for example, that the prompt works. Example: `Shown: works. Not shown: optimiser matters,
    clean.`

    Args:
        statuses: Pairs of a claim and its status: "shown", "not shown" or "not tested".
    """
    parts = []
    for status in ("shown", "not shown", "not tested"):
        named = [claim_label(claim) for claim, own in statuses if own == status]
        parts += [f"{status.capitalize()}: {', '.join(named)}."] if named else []
    return " ".join(parts)


def percent(value: float) -> str:
    """Format a fraction as a percentage: 0.312 as `31 %`."""
    return f"{100 * value:.0f} %"


def points(value: float) -> str:
    """Format a change of a rate in percentage points with its sign: -0.53 as `-53`."""
    return f"{100 * value:+.0f}" if abs(value) >= 0.005 else "0"


def signed(value: float) -> str:
    """Format a number with two decimals and its sign."""
    return f"{value:+.2f}"


def change_text(interval: Interval) -> str:
    """Format a change with its interval, `+0.26 (+0.10 to +0.41)`, or say that there is no interval."""
    if not math.isfinite(interval.low) or not math.isfinite(interval.high):
        return f"{signed(interval.estimate)} (one question group: no interval)"
    return f"{signed(interval.estimate)} ({signed(interval.low)} to {signed(interval.high)})"


def ends(interval: Ends, form: Callable[[float], str]) -> str:
    """Format the ends of an interval, such as `-61 to -44`; empty if an end is missing.

    Args:
        interval: The two ends.
        form: Function that formats one number.
    """
    low, high = interval
    return "" if low is None or high is None else f"{form(low)} to {form(high)}"
