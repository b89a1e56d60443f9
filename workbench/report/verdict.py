"""The report's sentences: the question, the result, and the caveats, readable without knowing the project.

1. The effect and the claims are judged in `workbench.comparison.claims`; terminal and notebook use the same
   words.
2. The verdict is green only if *works* and *clean* are shown.
3. Caveats are computed, and each gives its figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from statistics import fmean
from typing import Any

from workbench.comparison import ClaimResult, ClaimResults, chosen_condition
from workbench.comparison import claim_sentences as words
from workbench.conditions import CONDITION_KINDS, GROUPS, claim_label, condition_label
from workbench.html_text import minus, number, shorten, spoken
from workbench.personas.load_personas import known_description
from workbench.report.load_run import RunContents
from workbench.schema import ComparisonFile, ConditionEntry, DifferenceEntry

#: Group of conditions whose kind this installation does not know, such as a user's own kind.
UNKNOWN = ("other", "Of a kind that this installation does not know")


@dataclass(frozen=True)
class Verdict:
    """What the top of a run's report says about the found prompt.

    Attributes:
        question: The question that the run answers.
        verdict: The answer in one sentence.
        tone: "yes" if the prompt is shown to have the intended effect, more than random and neutral text, and
            no side effects; "part" if not all of this is shown; "no" if it has the opposite effect;
            "unclear"; "missing" if nothing was compared.
        meaning: Explanation of the persona and of the rate.
        best: The chosen prompt with its results; None without one.
        difference: Difference between the chosen prompt and no prompt.
        figures: (label, value, interval) for each main figure, as text.
        caveats: Reasons for caution, most important first.
        claims: Results of the statistical claims about the prompt.
    """

    question: str
    verdict: str
    tone: str
    meaning: str = ""
    best: ConditionEntry | None = None
    difference: DifferenceEntry | None = None
    figures: tuple[tuple[str, str, str], ...] = ()
    caveats: list[str] = field(default_factory=list)
    claims: ClaimResults | None = None

    @property
    def p(self) -> float | None:
        """P-value of the chosen prompt's difference to no prompt, corrected for multiple comparisons."""
        return self.difference.corrected_p if self.difference else None


label = condition_label


def capitalised(text: str) -> str:
    """Return the text with a capital first letter and the other letters unchanged."""
    return text[:1].upper() + text[1:]


def group_of(kind: str) -> str:
    """Return the group of conditions, such as found or written prompts, to which a kind belongs.

    It is "other" for a kind that is not registered.

    Args:
        kind: Kind of a condition (a prompt or intervention that a study compares), such as "manual".
    """
    known = CONDITION_KINDS.get(kind)
    return UNKNOWN[0] if known is None else known.group


def groups_of(kinds: Iterable[str]) -> dict[str, str]:
    """Return the groups of conditions that a table or legend shows, as titles by key.

    These are all of GROUPS, and a group "other" if a kind is not registered.

    Args:
        kinds: Kinds of the shown conditions, such as "manual" (a prompt written by a person).
    """
    return GROUPS | (dict([UNKNOWN]) if any(kind not in CONDITION_KINDS for kind in kinds) else {})


def group_index(kind: str) -> int:
    """Return the position of a condition's group in tables and pictures.

    Args:
        kind: Kind of a condition (a prompt or intervention that a study compares), such as "manual".
    """
    return [*GROUPS, UNKNOWN[0]].index(group_of(kind))


def describe(kind: str) -> str:
    """Return a short description of a kind of condition, or its name if it is not registered.

    Args:
        kind: Kind of a condition (a prompt or intervention that a study compares), such as "manual".
    """
    known = CONDITION_KINDS.get(kind)
    return kind if known is None else known.description


def is_control(kind: str) -> bool:
    """Whether conditions of this kind are controls, with which found prompts are compared.

    Args:
        kind: Kind of a condition (a prompt or intervention that a study compares), such as "manual".
    """
    known = CONDITION_KINDS.get(kind)
    return known is not None and known.is_control


def tell(contents: RunContents) -> Verdict:
    """Write the verdict of a run: what its report says first about the found prompt.

    If the run compared nothing, the verdict says so.

    Args:
        contents: Contents of the run's files.
    """
    comparison = contents.comparison
    if comparison is None or not comparison.conditions:
        return Verdict(
            "What does this run say?",
            "There is no comparison in this run, so the question is still open.",
            "missing",
        )
    best, claims = chosen_condition(comparison), contents.claims
    more = "more" if comparison.wanted > 0 else "less"
    called, about = _model(contents, comparison)
    question = (
        f"Which prompt makes {shorten(called, 120)} show {more} {shorten(spoken(comparison.persona), 120)}?"
    )
    meaning = _meaning(contents, comparison, about)
    difference = best.difference(comparison.baseline) if best else None
    if best is None or difference is None or claims is None or claims.effect is None:
        what = "No found prompt" if best is None else f"The prompt of {label(best.name)}"
        return Verdict(
            question,
            f"{what} was compared with no prompt in this run, so the question is still open.",
            "missing",
            meaning,
        )
    works = next((result.status for result in claims.results if result.claim == "works"), None)
    wanted = "yes" if claims.is_green else "unclear" if works == "not shown" else "part"
    tone = {"wanted": wanted, "opposite": "no", "unclear": "unclear", "unknown": "unclear"}[
        claims.effect.kind
    ]
    verdict = minus(claims.effect_sentence)
    return Verdict(
        question,
        verdict,
        tone,
        meaning,
        best,
        difference,
        _figures(comparison, best, difference),
        caveats(contents, best),
        claims,
    )


def caveats(contents: RunContents, best: ConditionEntry) -> list[str]:
    """List the reasons for caution about a run's verdict, most important first.

    Args:
        contents: Contents of the run's files, with a comparison.
        best: The chosen prompt with its results.
    """
    comparison = contents.comparison
    assert comparison is not None
    found = [
        *_unshown(comparison, contents.claims),
        *_letters(best),
        *_answer_bias(comparison, best),
        *_sample(best),
        *_reading(comparison, best),
        *([] if contents.claims and contents.claims.side_effects else _collateral(comparison, best)),
        *_search_warnings(contents, best),
        *_test_reads(contents),
        *(minus(f"{capitalised(line)}.") for line in comparison.warnings),
    ]
    return found


def _figures(
    comparison: ComparisonFile, best: ConditionEntry, difference: DifferenceEntry
) -> tuple[tuple[str, str, str], ...]:
    base = next((c for c in comparison.conditions if c.name == difference.to), None)
    rows = []
    if base is not None and base.rate is not None:
        rows.append(("without a prompt", percent(base.rate), span(base.ci, percent)))
    if best.rate is not None:
        rows.append(("with this prompt", percent(best.rate), span(best.ci, percent)))
    if difference.value is not None:
        rows.append(("change, percentage points", points(difference.value), span(difference.ci, points)))
    if difference.log_odds is not None:
        rows.append(("change in log-odds", signed(difference.log_odds), span(difference.log_odds_ci, signed)))
    return tuple(rows)


def _model(contents: RunContents, comparison: ComparisonFile) -> tuple[str, str]:
    """Return the model's name and its description from the run; for a path, the name is the last part."""
    is_path = comparison.model.startswith(("/", "./", "~"))
    name = PurePath(comparison.model).name.removesuffix(".gguf") if is_path else comparison.model
    told = _noted(contents, "model")
    return str(told.get("called") or name), str(told.get("about") or "").strip()


def _noted(contents: RunContents, key: str) -> dict[str, Any]:
    """Return the manifest's notes on the model or the persona; empty in older runs."""
    noted = contents.manifest.notes.get(key) if contents.manifest else None
    return noted if isinstance(noted, dict) else {}


def _meaning(contents: RunContents, comparison: ComparisonFile, about: str) -> str:
    persona = spoken(comparison.persona)
    gloss = (
        str(_noted(contents, "persona").get("about") or known_description(comparison.persona))
        .strip()
        .rstrip(".")
    )
    what = f"{capitalised(persona)}: {gloss[:1].lower()}{gloss[1:]}. " if gloss else ""
    how = (
        "each question offers two answers as letters (A) and (B), asked in both orders"
        if comparison.metric == "letters"
        else "the two answers are compared as full texts"
    )
    what += f"{about} " if about else ""
    return f"{what}A rate is the fraction of test questions on which the answer that shows {persona} is the likelier one; {how}."


def _unshown(comparison: ComparisonFile, claims: ClaimResults | None) -> list[str]:
    """List the claims that were tested and not shown, each with its reason."""
    return [
        _unshown_line(comparison, result)
        for result in (claims.results if claims else ())
        if result.status == "not shown"
    ]


def _unshown_line(comparison: ComparisonFile, result: ClaimResult) -> str:
    because = capitalised(result.because)
    return minus(
        f"Not shown: {claim_label(result.claim)}. {'; '.join(filter(None, [because, result.beyond]))}.{_draws(comparison, result.against)}"
    )


def _draws(comparison: ComparisonFile, name: str | None) -> str:
    """Explain the number in a control's name, which counts the random draws of that control."""
    kind = next((c.kind for c in comparison.conditions if c.name == name), None)
    n = sum(c.kind == kind for c in comparison.conditions)
    if name is None or kind is None or not name[-1:].isdigit():
        return ""
    if n == 1:
        return f" It is the only draw of this control ({describe(kind)}) in this run."
    return f" The number in its name counts the draws of this control ({describe(kind)}), {n} in this run."


def _search_warnings(contents: RunContents, best: ConditionEntry) -> list[str]:
    """List the warnings of the prompt's own search, such as a limit that could not be kept."""
    search = contents.frontier.searches.get(best.name) if contents.frontier else None
    return [minus(f"{capitalised(line)}.") for line in search.warnings] if search else []


def _letters(best: ConditionEntry) -> list[str]:
    share = best.letter_a_share
    if share is None or 0.35 <= share <= 0.65:
        return []
    return [
        f"With this prompt the model answers (A) in {percent(share)} of cases: part of the change may be a preference for a letter."
    ]


def _answer_bias(comparison: ComparisonFile, best: ConditionEntry) -> list[str]:
    """Say which answer the prompt prefers whatever the question, if it is clear of zero."""
    difference = best.difference(comparison.baseline)
    bias = difference.answer_bias if difference else None
    if bias is None or bias.bias is None or bias.balanced is None:
        return []
    if bias.bias_ci[0] is None or bias.bias_ci[1] is None or bias.bias_ci[0] <= 0 <= bias.bias_ci[1]:
        return []
    preferred = bias.answer if bias.bias > 0 else bias.other
    return [
        minus(
            f"With this prompt the log-odds of “{preferred}” rise by {abs(bias.bias):.2f} whichever answer shows the persona. "
            f"With both answers weighted equally, its effect is {bias.balanced:+.2f} ({span(bias.balanced_ci, signed)})."
        )
    ]


def _sample(best: ConditionEntry) -> list[str]:
    found = []
    if best.groups is not None and best.groups < 20:
        found.append(
            f"The test has only {best.groups} groups of questions; intervals from so few groups tend to be too narrow."
        )
    if best.n is not None and best.ci[0] is not None and best.ci[1] is not None:
        half = 50 * (best.ci[1] - best.ci[0])
        found.append(
            f"{best.n:,} test questions place a rate within about ±{half:.0f} points: smaller differences cannot be distinguished from chance."
        )
    return found


def _reading(comparison: ComparisonFile, best: ConditionEntry) -> list[str]:
    if best.fluency is None:
        return []
    written = [c.fluency for c in comparison.conditions if c.kind == "manual" and c.fluency is not None]
    beside = f" (the prompts written by a person: {number(round(min(written), 2))})" if written else ""
    lines = [
        f"How naturally it reads: its cross-entropy under the model is {best.fluency:.1f} nats per token{beside}; lower is more fluent."
    ]
    return lines + _second_judge(comparison, best, written)


def _second_judge(comparison: ComparisonFile, best: ConditionEntry, written: Sequence[float]) -> list[str]:
    """Describe the second model's cross-entropy of the prompt.

    It also says whether both models place the prompt on the same side of the mean of the prompts written by a
    person.
    """
    if best.judge_cross_entropy is None or best.fluency is None:
        return []
    seconds = [
        c.judge_cross_entropy
        for c in comparison.conditions
        if c.kind == "manual" and c.judge_cross_entropy is not None
    ]
    line = f"{comparison.judge or 'A second model'}, which no search used, gives it {best.judge_cross_entropy:.1f} nats per token"
    if not written or not seconds:
        return [f"{line}."]
    sides = [fmean(written) >= best.fluency, fmean(seconds) >= best.judge_cross_entropy]
    which = (
        "both models find it" if sides[0] == sides[1] else "the models disagree: the searched one finds it"
    )
    more = "at least as natural as" if sides[0] else "less natural than"
    return [f"{line}; {which} {more} the mean of the prompts written by a person."]


def _collateral(comparison: ComparisonFile, best: ConditionEntry) -> list[str]:
    base = next((c for c in comparison.conditions if c.kind == "none"), None)
    found = []
    for name, value in (best.collateral or {}).items():
        before = (base.collateral or {}).get(name) if base else None
        noticed = 0.3 if name.endswith(("_log_odds", "_nats")) else 0.05
        if (
            isinstance(value, (int, float))
            and isinstance(before, (int, float))
            and abs(value - before) >= noticed
        ):
            found.append(
                f"Side effect: {_words(name)} goes from {number(float(before))} to {number(float(value))}."
            )
    return found


def _test_reads(contents: RunContents) -> list[str]:
    count = contents.manifest.test_reads if contents.manifest else 0
    if count > 1:
        return [
            f"The test questions were read {count} times; choices made after the first reading are no longer blind."
        ]
    return []


def p_value(value: float) -> str:
    """Format a p-value: `p = 0.012`, or `p < 0.001` if smaller."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def percent(value: float) -> str:
    """Format a fraction as a percentage: 0.312 as `31 %`."""
    return minus(words.percent(value))


def points(value: float) -> str:
    """Format a change of a rate in percentage points with a typographic sign: -0.53 as `−53`."""
    return minus(words.points(value))


def signed(value: float) -> str:
    """Format a number with two decimals and a typographic sign."""
    return minus(words.signed(value))


def span(interval: tuple[float | None, float | None], form) -> str:
    """Format an interval as `−61 to −44`; empty if an end is missing.

    Args:
        interval: The two ends.
        form: Function that formats one number.
    """
    low, high = interval
    return "" if low is None or high is None else f"{form(low)} to {form(high)}"


def _words(name: str) -> str:
    return name.replace("_", " ")
