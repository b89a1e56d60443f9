"""Judge the claims that a comparison supports about its chosen prompt (`workbench.conditions.CLAIMS`).

1. The prompt is the one that was chosen on selection questions; test questions are never used to choose.
2. A claim is judged against each of its controls. It is shown if the prompt's effect exceeds that of every
   control: the 95 % interval of the paired difference in log-odds, clustered by question group, excludes zero
   in the intended direction. The claim's p is the largest of its controls' (intersection-union test: Berger
   1982, Technometrics 24), so several controls need no correction.
3. `direction_is_specific` is a percentile: at least MIN_RANDOM_DIRECTIONS random directions, of which at most
   5 % may be as strong as the prompt's direction.
4. `clean` is an equivalence claim: the 95 % interval of each side effect is within its margin.
5. `works` and `clean` are tested at 5 %. The other claims are tested only if the prompt has an effect at all,
   and are corrected by Holm's method (fixed sequence: Maurer, Hothorn & Lehmacher 1995).

Everything is computed from comparison.json, evaluation.parquet and off_target.parquet; no model is run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from workbench.comparison.claim_sentences import PromptEffect, change_text, claims_sentence, percent
from workbench.comparison.paired_answers import PairedAnswers, SideEffect, side_effects_of
from workbench.conditions import CONDITION_KINDS, Claim, claim_label, condition_label
from workbench.html_text import html_table
from workbench.runs import read_run_file, read_table
from workbench.schema import ComparisonFile, ConditionEntry, EvaluationRow, OffTargetRow
from workbench.statistics import Interval, PairedDifference, holm

ClaimStatus = Literal["shown", "not shown", "not tested"]
#: Smallest number of random directions that can show that a direction is specific.
MIN_RANDOM_DIRECTIONS = 10
#: A search counts as equally expensive if it used at least this fraction of the other search's FLOPs.
EQUAL_COST = 0.8
ALPHA = 0.05


@dataclass(frozen=True)
class ClaimResult:
    """Result of one claim about a prompt, such as that it works or has no side effects (`CLAIMS`).

    Most claims are that the prompt's effect exceeds the effects of certain controls, such as random texts.

    Attributes:
        claim: Name of the claim.
        status: "shown", "not shown" or "not tested".
        because: The reason, without a full stop.
        against: Name of the control with the smallest difference from the prompt.
        difference: The prompt's effect minus that control's, in log-odds; positive means more of the persona.
        p: P-value of the claim.
        p_adjusted: P-value by Holm's method over the claims that are corrected together; None for others.
    """

    claim: Claim
    status: ClaimStatus
    because: str
    against: str | None = None
    difference: Interval | None = None
    p: float | None = None
    p_adjusted: float | None = None

    @property
    def beyond(self) -> str:
        """The prompt's effect minus that of its strongest control, in words.

        It is empty if the claim has no control.

        Example: `this prompt minus manual: -0.20 (-0.30 to -0.10) in log-odds`.
        """
        if self.difference is None or self.against is None:
            return ""
        return (
            f"this prompt minus {condition_label(self.against)}: {change_text(self.difference)} in log-odds"
        )


@dataclass(frozen=True, repr=False)
class ClaimResults:
    """Results of all claims (`CLAIMS`) about the prompt that a study chose, such as that it works.

    Attributes:
        condition: Name of the prompt; None if no prompt was found.
        results: One result per claim.
        effect: Effect of the prompt relative to no prompt.
        side_effects: Side effects that were tested for the claim *clean* (no side effect is larger than its
            margin).
    """

    condition: str | None
    results: tuple[ClaimResult, ...]
    effect: PromptEffect | None = None
    side_effects: tuple[SideEffect, ...] = ()

    def __getitem__(self, claim: str) -> ClaimResult:
        return next(result for result in self.results if result.claim == claim)

    def named(self, status: ClaimStatus) -> tuple[Claim, ...]:
        """Return the names of the claims with the given status: "shown", "not shown" or "not tested"."""
        return tuple(result.claim for result in self.results if result.status == status)

    @property
    def is_green(self) -> bool:
        """Whether the claims *works* (effect beyond control texts) and *clean* (no side effects) are shown."""
        return {"works", "clean"} <= set(self.named("shown"))

    @property
    def effect_sentence(self) -> str:
        """Effect of the prompt on the persona in one sentence.

        If the prompt changes the persona in the intended direction, but no more than control texts do, the
        sentence says so.
        """
        if self.effect is None:
            return "No found prompt was compared with no prompt."
        because = next(
            (
                r.because
                for r in self.results
                if r.claim == "works" and r.status == "not shown" and not r.because.startswith("beyond")
            ),
            "",
        )
        return f"{self.effect.sentence()}{f' But {because}.' if because and self.effect.kind == 'wanted' else ''}"

    @property
    def headline(self) -> str:
        """The prompt's effect, and which claims about it are shown, not shown or not tested, in one line."""
        return f"{self.effect_sentence} {claims_sentence([(result.claim, result.status) for result in self.results])}"

    @property
    def summaries(self) -> tuple[str, ...]:
        """Four texts that summarise the result, from long to short, for one line of a list.

        1. `SAEGA: 86 % to 25 %; shown: works, better than writing`
        2. `86 % to 25 %; works, better than writing`
        3. `86 to 25 %; works`
        4. `works`

        Figures are rates of answers that show the persona, without and with the prompt. Claims that are shown
        follow: *works* means an effect beyond control texts, *clean* no side effects. The two shortest texts
        have only these two claims.
        """
        if self.effect is None:
            return ("no found prompt",)
        rates = (
            ""
            if self.effect.before is None or self.effect.after is None
            else f"{percent(self.effect.before)} to {percent(self.effect.after)}"
        )
        shown = self.named("shown")
        claims = ", ".join(map(claim_label, shown)) or "nothing"
        brief = claims if shown else "nothing shown"
        word = (
            "works, clean"
            if self.is_green
            else "works"
            if "works" in shown
            else "works not shown"
            if shown
            else brief
        )
        forms = (
            (rates, f"shown: {claims}"),
            (rates, brief),
            (rates.replace(" % to", " to"), word),
            ("", word),
        )
        longest, *shorter = ("; ".join(filter(None, form)) for form in forms)
        return f"{self.effect.name}: {longest}", *shorter

    @property
    def table(self) -> pd.DataFrame:
        """Table with one row per claim about the prompt.

        It has the claim's status and reason, and the prompt's difference in log-odds to the strongest
        control.
        """
        return pd.DataFrame([_row(result) for result in self.results])

    def __repr__(self) -> str:
        lines = [
            f"  {claim_label(r.claim)}: {r.status} ({r.because}{_interval_text(r)})" for r in self.results
        ]
        return "\n".join([self.headline, *lines])

    def _repr_html_(self) -> str:
        return html_table(self.table, self.headline)


def judge_claims(
    comparison: ComparisonFile, answers: pd.DataFrame | None, off_target: pd.DataFrame | None = None
) -> ClaimResults:
    """Judge every claim of `CLAIMS` about a comparison's chosen prompt, such as that it works.

    Args:
        comparison: Contents of comparison.json.
        answers: Contents of evaluation.parquet, the log-odds of each condition's answer to each test
            question; None if the file is missing.
        off_target: Contents of off_target.parquet, the answers to questions about side effects; None if the
            file is missing.

    Returns:
        One result for each of `CLAIMS`, in their order.

    Example:
        >>> judge_claims(comparison, rows)["works"].status
        'shown'
    """
    best = chosen_condition(comparison)
    if best is None:
        return ClaimResults(None, _untested("no prompt was found"))
    effect, seed = PromptEffect.of(comparison, best), comparison.seed or 0
    paired = PairedAnswers.of(answers, comparison.wanted, seed)
    if paired is None or not paired.has(best.name, comparison.baseline):
        return ClaimResults(best.name, _untested("the answers to the single questions are not there"), effect)
    effects = side_effects_of(off_target, best.name, comparison.baseline, seed)
    return ClaimResults(best.name, _Judge(comparison, best, paired).all(effects), effect, effects)


def _untested(because: str) -> tuple[ClaimResult, ...]:
    return tuple(ClaimResult(claim, "not tested", because) for claim in get_args(Claim))


def _row(result: ClaimResult) -> dict[str, Any]:
    found = result.difference
    row = {"claim": claim_label(result.claim), "status": result.status, "why": result.because}
    return (
        row
        | {"nearest control": None if result.against is None else condition_label(result.against)}
        | {"beyond it, log-odds": None if found is None else change_text(found)}
    )


def _interval_text(result: ClaimResult) -> str:
    return "" if result.difference is None else f"; {result.beyond}"


def claims_of_run(directory: str | Path) -> ClaimResults:
    """Judge the claims about a finished run's chosen prompt, such as that it works (`CLAIMS`).

    A claim is not tested if the table of answers that it needs is missing.

    Args:
        directory: The run directory.

    Raises:
        UserError: The run has no comparison.json.
    """
    place = Path(directory)
    tables = ((place / "evaluation.parquet", EvaluationRow), (place / "off_target.parquet", OffTargetRow))
    answers, off_target = (read_table(path, row) if path.is_file() else None for path, row in tables)
    return judge_claims(read_run_file(place / "comparison.json", ComparisonFile), answers, off_target)


def chosen_condition(comparison: ComparisonFile) -> ConditionEntry | None:
    """Return the chosen prompt of a comparison, by rates on selection questions and never on test questions.

    Prompts of a search that read the model's activations are preferred, then those of a search on the answer
    alone, then those of a random search, then written ones. Among prompts of one of these kinds, the one with
    the best rate of answers on selection questions is chosen, and the first one if rates are equal or
    missing. None if there is no prompt.
    """
    ranks = [_rank(c.kind) for c in comparison.conditions]
    for rank in range(4):
        prompts = [c for c, own in zip(comparison.conditions, ranks, strict=True) if own == rank and c.prompt]
        rated = [c for c in prompts if c.selection_rate is not None]
        if rated:
            return max(rated, key=lambda c: comparison.wanted * (c.selection_rate or 0.0))
        if prompts:
            return prompts[0]
    return None


def _rank(kind: str) -> int | None:
    known = CONDITION_KINDS.get(kind)
    if known is None:
        return None
    return (
        2
        if "optimizer_matters" in known.control_of
        else {"found": 0, "answer": 1, "written": 3}.get(known.group)
    )


class _Judge:
    """Judge of those claims about one prompt that are differences from controls."""

    def __init__(self, comparison: ComparisonFile, best: ConditionEntry, paired: PairedAnswers) -> None:
        self.comparison, self.best, self.paired = comparison, best, paired
        self.effect = paired.difference(best.name, comparison.baseline)

    def all(self, effects: Sequence[SideEffect]) -> tuple[ClaimResult, ...]:
        works = self._works()
        others = [self._optimizer(), self._direction(), self._internals(), self._writing()]
        if works.status == "not shown" or not self._beyond(self.effect):
            chance = "the prompt has no effect in the wanted direction that is beyond chance"
            because = chance if not self._beyond(self.effect) else "it is not shown that the prompt works"
            # Claims that are not shown anyway keep their own reason and difference.
            others = [
                o if o.status != "shown" else replace(o, status="not shown", because=because, difference=None)
                for o in others
            ]
        return works, *_corrected(others), _clean(effects)

    def _controls(self, claim: Claim) -> list[ConditionEntry]:
        """Return the conditions of this comparison that the claim is judged against."""
        found = []
        for entry in self.comparison.conditions:
            kind = CONDITION_KINDS.get(entry.kind)
            same = kind is not None and (not kind.same_search_as or self.best.kind in kind.same_search_as)
            if (
                kind is not None
                and same
                and claim in kind.control_of
                and entry.name != self.best.name
                and self.paired.has(entry.name)
            ):
                found.append(entry)
        return found

    def _works(self) -> ClaimResult:
        controls = self._controls("works")
        if all(c.kind == "none" for c in controls):
            return ClaimResult(
                "works",
                "not tested",
                "no random or neutral text was compared",
                self.comparison.baseline,
                self.effect.interval,
                self.effect.p,
            )
        return self._beyond_all("works", controls)

    def _optimizer(self) -> ClaimResult:
        controls = self._controls("optimizer_matters")
        missing = "no random search on the same objective was compared"
        if not (self._searched and controls):
            return ClaimResult("optimizer_matters", "not tested", missing)
        return self._beyond_all("optimizer_matters", controls)

    def _internals(self) -> ClaimResult:
        claim: Claim = "internals_matter"
        if CONDITION_KINDS[self.best.kind].group != "found":
            return ClaimResult(claim, "not tested", "the prompt was not found by looking inside the model")
        controls = self._controls(claim)
        if not controls:
            return ClaimResult(claim, "not tested", "no search for the answer itself was compared")
        fair = [c for c in controls if (_cost_ratio(c, self.best) or 0.0) >= EQUAL_COST]
        if fair:
            return self._beyond_all(claim, fair)
        ratio = max((_cost_ratio(c, self.best) or 0.0 for c in controls), default=0.0)
        cost = (
            f"the search for the answer had {100 * ratio:.0f} % of this search's FLOPs"
            if ratio
            else "what the two searches cost is not recorded"
        )
        return replace(
            self._beyond_all(claim, controls), status="not tested", because=f"not at equal cost: {cost}"
        )

    def _writing(self) -> ClaimResult:
        claim: Claim = "better_than_writing"
        if CONDITION_KINDS[self.best.kind].group == "written":
            return ClaimResult(claim, "not tested", "the prompt is a written one")
        controls = self._controls(claim)
        return (
            self._beyond_all(claim, controls)
            if controls
            else ClaimResult(claim, "not tested", "no written sentence was compared")
        )

    def _direction(self) -> ClaimResult:
        claim: Claim = "direction_is_specific"
        controls = sorted(self._controls(claim), key=lambda c: -self.paired.effect(c.name))
        if not controls:
            return ClaimResult(claim, "not tested", "no search along random directions was compared")
        n, own = len(controls), self.paired.effect(self.best.name)
        above = sum(self.paired.effect(c.name) >= own for c in controls)
        allowed = max(0, math.floor(ALPHA * (n + 1)) - 1)
        nearest = controls[min(allowed, n - 1)].name
        difference = self.paired.difference(self.best.name, nearest)
        rank = f"stronger than {n - above} of {n} random directions (percentile {100 * (n - above) / n:.0f})"
        if n < MIN_RANDOM_DIRECTIONS:
            rank += f"; fewer than {MIN_RANDOM_DIRECTIONS} cannot show it"
        shown = n >= MIN_RANDOM_DIRECTIONS and above <= allowed and self._beyond(difference)
        because = (
            rank
            if shown or above > allowed or n < MIN_RANDOM_DIRECTIONS
            else f"{rank}, but not clearly beyond {_named(nearest)}"
        )
        return ClaimResult(
            claim,
            "shown" if shown else "not shown",
            because,
            nearest,
            difference.interval,
            self._p(difference),
        )

    @property
    def _searched(self) -> bool:
        return CONDITION_KINDS[self.best.kind].group in ("found", "answer")

    def _beyond_all(self, claim: Claim, controls: Sequence[ConditionEntry]) -> ClaimResult:
        """Judge a claim that is shown if the prompt exceeds every control; the nearest control is named."""
        differences = {c.name: self.paired.difference(self.best.name, c.name) for c in controls}
        nearest = min(differences, key=lambda name: self._lower(differences[name]))
        p = max(self._p(difference) for difference in differences.values())
        shown = all(self._beyond(difference) for difference in differences.values())
        because = f"beyond {_several(differences)}" if shown else self._rival(nearest, differences[nearest])
        return ClaimResult(
            claim, "shown" if shown else "not shown", because, nearest, differences[nearest].interval, p
        )

    def _rival(self, name: str, difference: PairedDifference) -> str:
        """Describe how a control that the prompt does not exceed compares with it."""
        upper = max(
            self.paired.wanted * difference.interval.low, self.paired.wanted * difference.interval.high
        )
        if math.isfinite(upper) and upper < 0:
            return f"{_named(name)} does more"
        if (
            not math.isfinite(upper)
            or difference.p >= ALPHA > difference.smallest_p
            or self._lower(difference) <= 0
        ):
            return f"not clearly beyond {_named(name)}"
        return f"too few question groups ({difference.groups}) to tell it from {_named(name)}"

    def _lower(self, difference: PairedDifference) -> float:
        """Return the interval's end with the smaller effect, positive if it is in the intended direction.

        -inf if the interval has no finite ends.
        """
        ends = [self.paired.wanted * end for end in (difference.interval.low, difference.interval.high)]
        return min(ends) if all(map(math.isfinite, ends)) else -math.inf

    def _beyond(self, difference: PairedDifference) -> bool:
        return self._lower(difference) > 0 and difference.p < ALPHA

    def _p(self, difference: PairedDifference) -> float:
        """Return the two-sided p of a difference, or 1 if it is in the unintended direction."""
        return difference.p if self.paired.wanted * difference.value > 0 else 1.0


def _corrected(results: Sequence[ClaimResult]) -> list[ClaimResult]:
    """Apply Holm's method to the claims that were tested; claims that do not survive become "not shown"."""
    tested = [i for i, result in enumerate(results) if result.status != "not tested" and result.p is not None]
    adjusted = dict(zip(tested, holm([results[i].p or 0.0 for i in tested]), strict=True))
    found = []
    for i, result in enumerate(results):
        result = replace(result, p_adjusted=adjusted.get(i))
        if result.status == "shown" and adjusted[i] >= ALPHA:
            result = replace(
                result,
                status="not shown",
                because=f"{result.because}, but not after correction for {len(tested)} claims",
            )
        found.append(result)
    return found


def _clean(effects: Iterable[SideEffect]) -> ClaimResult:
    """Judge the claim *clean*: all three kinds of side effects were measured and are within their margins."""
    effects = tuple(effects)
    if not effects:
        return ClaimResult("clean", "not tested", "no side effects were measured question by question")
    outside = [effect for effect in effects if not effect.within]
    if outside:
        return ClaimResult("clean", "not shown", "; ".join(map(str, outside)))
    missing = [
        part
        for part in ("true statements", "other personas", "capability")
        if part not in {effect.part for effect in effects}
    ]
    if missing:
        return ClaimResult("clean", "not tested", f"nothing moved, but not measured: {', '.join(missing)}")
    return ClaimResult(
        "clean", "shown", "true statements, other personas and capability stay within their margins"
    )


def _cost_ratio(control: ConditionEntry, best: ConditionEntry) -> float | None:
    """Return the FLOPs of the control's search as a fraction of the prompt's search; None if unknown."""
    costs = [entry.cost.flops if entry.cost is not None else None for entry in (control, best)]
    return costs[0] / costs[1] if costs[0] and costs[1] else None


def _named(name: str) -> str:
    return condition_label(name)


def _several(names: Iterable[str]) -> str:
    found = [_named(name) for name in names]
    return (
        found[0]
        if len(found) == 1
        else f"{', '.join(found[:-1])} and {found[-1]}"
        if len(found) < 4
        else f"all {len(found)} controls"
    )
