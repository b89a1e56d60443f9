"""The report's sentences: what was asked, what came out, and what speaks against it, in words that need no project.

1. The prompt that is shown as the answer is the one that the *selection* questions chose; the test never chooses.
2. The verdict is read off the interval of the paired difference to no prompt.
3. Caveats are computed: each names the figure that makes it one.
"""
# ruff: noqa: RUF001  (typographic signs are meant)

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from workbench.conditions import CONDITION_KINDS, GROUPS, kind_label
from workbench.html_text import number, shorten, spoken
from workbench.report.load_run import RunContents
from workbench.schema import ComparisonFile, ConditionEntry, DifferenceEntry
from workbench.search import SEARCH_METHODS

#: Where conditions stand whose kind this installation does not know (a run made with somebody's own condition).
UNKNOWN = ("other", "Of a kind that this installation does not know")
PERSONAS = {
    "sycophancy": "agreeing with the user rather than with the facts",
    "hallucination": "making up an answer instead of saying that it does not know",
    "myopic_reward": "preferring a small reward now to a larger one later",
}


@dataclass(frozen=True)
class Verdict:
    """What the head of the page says. tone: "yes", "no", "unclear" or "missing"; before, after, change are percentages and points."""

    question: str
    verdict: str
    tone: str
    meaning: str = ""
    best: ConditionEntry | None = None
    difference: DifferenceEntry | None = None
    figures: tuple[tuple[str, str, str], ...] = ()
    caveats: list[str] = field(default_factory=list)

    @property
    def p(self) -> float | None:
        """Corrected p of the headline's difference."""
        return self.difference.corrected_p if self.difference else None


def label(name: str) -> str:
    """A condition's or search's name as a reader sees it: no underscores, the methods' names in capitals."""
    acronyms = {key for key, method in SEARCH_METHODS.items() if method.__name__.isupper()}
    return " ".join(word.upper() if word in acronyms else kind_label(word) for word in name.split(" "))


def group_of(kind: str) -> str:
    """The group that a kind belongs to, a key of GROUPS; "other" for a kind that is not registered."""
    known = CONDITION_KINDS.get(kind)
    return UNKNOWN[0] if known is None else known.group


def groups_of(kinds: Iterable[str]) -> dict[str, str]:
    """The groups of a table or legend with their titles: all of them, and that of unknown kinds where it is needed."""
    return GROUPS | (dict([UNKNOWN]) if any(kind not in CONDITION_KINDS for kind in kinds) else {})


def group_index(kind: str) -> int:
    """The place of a kind's group in tables and pictures."""
    return [*GROUPS, UNKNOWN[0]].index(group_of(kind))


def describe(kind: str) -> str:
    """What a kind is, in a few words; the word itself where it is not registered."""
    known = CONDITION_KINDS.get(kind)
    return kind if known is None else known.description


def is_control(kind: str) -> bool:
    """True for a registered kind that is a control of some claim."""
    known = CONDITION_KINDS.get(kind)
    return known is not None and known.is_control


def tell(contents: RunContents) -> Verdict:
    """The story of a run; with no comparison it says that the question is open."""
    comparison = contents.comparison
    if comparison is None or not comparison.conditions:
        return Verdict("What does this run say?", "There is no comparison in this run, so the question is still open.", "missing")
    best = best_found(comparison)
    more = "more" if comparison.wanted > 0 else "less"
    question = f"Which prompt makes {shorten(comparison.model, 120)} show {more} {shorten(spoken(comparison.persona), 120)}?"
    meaning = _meaning(comparison)
    difference = best.difference() if best else None
    if best is None or difference is None:
        what = "No found prompt" if best is None else f"The prompt of {label(best.name)}"
        return Verdict(question, f"{what} was compared with no prompt in this run, so the question is still open.", "missing", meaning)
    tone, verdict = _verdict(comparison, best, difference)
    return Verdict(question, verdict, tone, meaning, best, difference, _figures(comparison, best, difference), caveats(contents, best))


def best_found(comparison: ComparisonFile) -> ConditionEntry | None:
    """The found prompt with the best rate on the selection questions, never on the test; ties and lacking rates go by order."""
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
    """Whose prompt may be the answer: those found by looking inside, by the answer alone, by a search at random, written ones."""
    known = CONDITION_KINDS.get(kind)
    if known is None:
        return None
    return 2 if "optimizer_matters" in known.control_of else {"found": 0, "answer": 1, "written": 3}.get(known.group)


def caveats(contents: RunContents, best: ConditionEntry) -> list[str]:
    """What speaks against the headline, most important first."""
    comparison = contents.comparison
    assert comparison is not None
    found = [
        *_rivals(comparison, best),
        *_letters(best),
        *_sample(best),
        *_reading(comparison, best),
        *_collateral(comparison, best),
        *_search_warnings(contents, best),
        *_test_reads(contents),
        *(f"{line[:1].upper()}{line[1:]}." for line in comparison.warnings),
    ]
    return found


def _verdict(comparison: ComparisonFile, best: ConditionEntry, difference: DifferenceEntry) -> tuple[str, str]:
    low, high = _interval(difference)
    if low is None or high is None:
        return (
            "unclear",
            f"The prompt of {label(best.name)} was compared with no prompt, but without an interval: how sure the change is, is not known.",
        )
    wanted = comparison.wanted
    verb = "raises" if wanted > 0 else "lowers"
    persona = spoken(comparison.persona)
    if (wanted > 0 and low > 0) or (wanted < 0 and high < 0):
        return "yes", f"Yes: this prompt {verb} {persona}, and the change is larger than chance explains."
    if low > 0 or high < 0:
        return "no", f"No: this prompt does the opposite of what was wanted and {'lowers' if wanted > 0 else 'raises'} {persona}."
    return "unclear", f"Not shown: the interval of the change includes zero, so this prompt may not change {persona} at all."


def _interval(difference: DifferenceEntry) -> tuple[float | None, float | None]:
    """Of the log-odds where they are there, else of the rates."""
    return difference.log_odds_ci if None not in difference.log_odds_ci else difference.ci


def _figures(comparison: ComparisonFile, best: ConditionEntry, difference: DifferenceEntry) -> tuple[tuple[str, str, str], ...]:
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


def _meaning(comparison: ComparisonFile) -> str:
    persona = spoken(comparison.persona)
    gloss = PERSONAS.get(persona.strip().lower().replace("-", "_").replace(" ", "_"))
    what = f"{persona.capitalize()} means {gloss}. " if gloss else ""
    how = (
        "each question offers two answers as letters (A) and (B), asked in both orders"
        if comparison.metric == "letters"
        else "the two answers are compared as full texts"
    )
    return f"{what}A rate is the share of test questions on which the answer that shows {persona} is the likelier one; {how}."


def _rivals(comparison: ComparisonFile, best: ConditionEntry) -> list[str]:
    """Controls and simpler ways that reach as far as the found prompt, judged in log-odds with the rate as a fallback."""
    own = _effect(best, comparison.wanted)
    if own is None:
        return []
    found = []
    beating = [c for c in comparison.conditions if c.name not in (best.name, comparison.baseline) and (_effect(c, comparison.wanted) or -1e9) >= own]
    controls = [label(c.name) for c in beating if is_control(c.kind)]
    if controls:
        found.append(f"A control reaches as far: {_list(controls)}. What was found inside the model may not be what moves the answer.")
    written = [label(c.name) for c in beating if group_of(c.kind) == "written"]
    if written:
        found.append(f"A prompt that needs no search does as well: {_list(written)}.")
    inside = [label(c.name) for c in beating if group_of(c.kind) in ("answer", "inside")]
    if inside:
        found.append(f"Another way moves the answer at least as far: {_list(inside)}.")
    nearest = max((c for c in comparison.conditions if is_control(c.kind)), key=lambda c: _effect(c, comparison.wanted) or -1e9, default=None)
    share = (_effect(nearest, comparison.wanted) or 0.0) / own if nearest and own > 0 else 0.0
    if nearest and not controls and share >= 0.33:
        found.append(f"The control {label(nearest.name)} alone already reaches {percent(share)} of the change.")
    return found


def _effect(condition: ConditionEntry, wanted: int) -> float | None:
    difference = condition.difference()
    if difference is None:
        return None
    value = difference.log_odds if difference.log_odds is not None else difference.value
    return None if value is None else wanted * value


def _search_warnings(contents: RunContents, best: ConditionEntry) -> list[str]:
    """What the prompt's own search warned of: a direction that moves without the behaviour, a limit that could not be kept."""
    search = contents.frontier.searches.get(best.name) if contents.frontier else None
    return [f"{line[:1].upper()}{line[1:]}." for line in search.warnings] if search else []


def _letters(best: ConditionEntry) -> list[str]:
    share = best.letter_a_share
    if share is None or 0.35 <= share <= 0.65:
        return []
    return [f"With this prompt the model answers (A) in {percent(share)} of cases: part of the change may be a preference for a letter."]


def _sample(best: ConditionEntry) -> list[str]:
    found = []
    if best.groups is not None and best.groups < 20:
        found.append(f"The test has only {best.groups} groups of questions; intervals from so few groups tend to be too narrow.")
    if best.n is not None and best.ci[0] is not None and best.ci[1] is not None:
        half = 50 * (best.ci[1] - best.ci[0])
        found.append(f"{best.n:,} test questions place a rate within about ±{half:.0f} points: smaller differences cannot be told from chance here.")
    return found


def _reading(comparison: ComparisonFile, best: ConditionEntry) -> list[str]:
    if best.fluency is None:
        return []
    written = [c.fluency for c in comparison.conditions if c.kind == "manual" and c.fluency is not None]
    beside = f" (the prompts written by a person: {number(round(min(written), 2))})" if written else ""
    return [f"How naturally it reads: its tokens surprise the model by {best.fluency:.1f} nats on average{beside}; lower is more fluent."]


def _collateral(comparison: ComparisonFile, best: ConditionEntry) -> list[str]:
    base = next((c for c in comparison.conditions if c.kind == "none"), None)
    found = []
    for name, value in (best.collateral or {}).items():
        before = (base.collateral or {}).get(name) if base else None
        noticed = 0.3 if name.endswith(("_log_odds", "_nats")) else 0.05
        if isinstance(value, (int, float)) and isinstance(before, (int, float)) and abs(value - before) >= noticed:
            found.append(f"Side effect: {_words(name)} goes from {number(float(before))} to {number(float(value))}.")
    return found


def _test_reads(contents: RunContents) -> list[str]:
    count = contents.manifest.test_reads if contents.manifest else 0
    if count > 1:
        return [f"The test questions were read {count} times; choices made after the first reading are no longer blind."]
    return []


def p_value(value: float) -> str:
    """`p = 0.012`, and below a thousandth `p < 0.001`."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def percent(value: float) -> str:
    """0.312 as `31 %`."""
    return f"{100 * value:.0f} %".replace("-", "−")


def points(value: float) -> str:
    """-0.53 as `−53`: percentage points with their sign."""
    return f"{100 * value:+.0f}".replace("-", "−")


def signed(value: float) -> str:
    """Two decimals with their sign."""
    return f"{value:+.2f}".replace("-", "−")


def span(interval: tuple[float | None, float | None], form) -> str:
    """`−61 to −44`, empty when an end is missing."""
    low, high = interval
    return "" if low is None or high is None else f"{form(low)} to {form(high)}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
