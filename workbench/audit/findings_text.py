"""Sentences about an audit's findings, the same in the terminal, the notebook and the page."""
# ruff: noqa: RUF001  (typographic signs are meant)

from __future__ import annotations

import math

from workbench.audit.audit_result import Audit
from workbench.audit.minimal_edit import OffTargetChange
from workbench.audit.phrase_interactions import PhraseInteraction
from workbench.comparison.claim_sentences import PromptEffect, claims_sentence
from workbench.html_text import minus, shorten, spoken
from workbench.statistics import Interval

LONGEST_WORD = 60


def question(audit: Audit) -> str:
    """Return the title of the audit's page, as a question."""
    return f"Which words of this prompt move {_persona(audit)} in {audit.model}?"


def signed(value: float) -> str:
    """Format a change in log-odds with its sign and two decimals."""
    return f"{value:+.2f}".replace("-", "−")


def span(interval: Interval) -> str:
    """Format an estimate with its 95 % interval in log-odds, such as `+1.20 [+0.80, +1.60]`.

    Args:
        interval: The interval. With a single group of questions it has no ends, and the text says so.
    """
    if not math.isfinite(interval.low):
        return f"{signed(interval.estimate)} (one group of questions: no interval)"
    return f"{signed(interval.estimate)} [{signed(interval.low)}, {signed(interval.high)}]"


def ends(interval: Interval) -> str:
    """Format the two ends of an interval, or a dash if there is no interval."""
    return f"{signed(interval.low)} to {signed(interval.high)}" if math.isfinite(interval.low) else "–"


def word(audit: Audit, index: int) -> str:
    """Return a word as written in the prompt; a very long one is cut, with the number of cut characters."""
    return shorten(audit.words.texts[index], LONGEST_WORD)


def whole(audit: Audit) -> str:
    """Describe the whole prompt's effect, and say which claims about it an audit does not test.

    Args:
        audit: The audit.
    """
    found, rate = audit.effects, audit.effects.rate
    low, high = (end if math.isfinite(end) else None for end in (found.whole.low, found.whole.high))
    change, ci = (
        (None, (None, None)) if rate is None else (rate.value, (rate.interval.low, rate.interval.high))
    )
    wanted = 1 if audit.sign == "induce" else -1
    effect = PromptEffect(
        "The prompt",
        _persona(audit),
        wanted,
        found.before,
        found.after,
        change,
        ci,
        found.whole.estimate,
        (low, high),
    )
    untested = claims_sentence([("works", "not tested"), ("better_than_writing", "not tested")])
    return minus(
        f"{effect.sentence()} In log-odds: {span(found.whole)}. {untested} (An audit compares with no prompt alone.)"
    )


def causes(audit: Audit) -> str:
    """Name the prompt's words that raise or lower the persona, with their effects in log-odds."""
    named = [(word(audit, i), audit.effects.words[i].interval) for i in audit.effects.named]
    if not named:
        return f"No single word has an effect of {audit.tolerance / 2:g} log-odds or more that holds up after correction for the number of words."
    parts = [
        f"{verb} it: " + ", ".join(f"“{text}” {span(interval)}" for text, interval in found)
        for verb, found in (
            ("raise", [n for n in named if n[1].estimate > 0]),
            ("lower", [n for n in named if n[1].estimate < 0]),
        )
        if found
    ]
    return f"Words that {'; words that '.join(parts)}."


def phrases(audit: Audit) -> tuple[str, ...]:
    """Describe each pair of neighbouring words that interact, one sentence per pair.

    Each sentence gives the joint effect and each word's effect without the other, in log-odds.

    Args:
        audit: The audit.
    """
    return tuple(
        _phrase(phrase, word(audit, phrase.first), word(audit, phrase.first + 1), audit.tolerance / 2)
        for phrase in audit.effects.phrases
    )


def _phrase(phrase: PhraseInteraction, left: str, right: str, least: float) -> str:
    alone = f"“{left}” {span(phrase.alone[0])} without “{right}”, “{right}” {span(phrase.alone[1])} without “{left}”"
    if phrase.inert(least):
        alone = f"neither does {least:g} or more without the other ({alone})"
    return f"“{left} {right}” interact: {span(phrase.both)}, of which {span(phrase.beyond)} is more than the sum of each; {alone}."


def minimal_edit_sentence(audit: Audit) -> str:
    """Describe the effect of the smallest edit that an audit found, or say why there is none."""
    minimal_edit = audit.minimal_edit
    if minimal_edit is None:
        return (
            {
                "none": f"Nothing to edit: on selection questions the prompt's effect is within ±{audit.tolerance:g} of no prompt.",
                "helps": "Nothing to edit: the prompt moves the persona the way that is wanted.",
                "unclear": "No edit was sought: on selection questions the prompt's effect may be zero.",
                "edit": "No edit was found that survives in this template and reads as fluently.",
            }[audit.need]
            if audit.max_edits or audit.need != "edit"
            else "No edit was sought: no edits were allowed."
        )
    n = len(minimal_edit.changes)
    falls = f"{n} edit{'s' if n > 1 else ''}: the effect goes from {span(audit.effects.whole)} to {span(minimal_edit.remaining)}"
    if not minimal_edit.suffices:
        return (
            f"No harmless fluent edit of at most {audit.max_edits} words suffices. The best found, {falls}."
        )
    if minimal_edit.equivalence.equivalent:
        return f"Edited: {falls}, shown to be within ±{audit.tolerance:g} of no prompt on test questions."
    return f"Edited: {falls}; it passed on selection questions, but test questions do not confirm that it is within ±{audit.tolerance:g}."


def sentence_offer(audit: Audit) -> tuple[str, ...]:
    """Describe the sentence that `offer_sentence` added to an audit: effect, cost and side effects.

    Args:
        audit: The audit. Without an added sentence, there are no lines.
    """
    added = audit.sentence
    if added is None:
        return ()
    falls = f"the effect goes from {span(audit.effects.whole)} to {span(added.remaining)} (a change of {span(added.change)})"
    cost = f"found with {added.model_calls:.0f} model calls in {added.seconds:.0f} s"
    harm = "" if added.harmless else " Every sentence tried on selection questions harmed something."
    lines = [f"With “{added.sentence}” added after it, {falls}; {cost}.{harm}"]
    return (*lines, *(collateral(entry) for entry in added.collateral), *added.warnings)


def collateral(entry: OffTargetChange) -> str:
    """Describe one side effect of a prompt before and after an edit, and whether it counts as harm.

    Args:
        entry: The side effect, on the agreement with true statements or on another persona.
    """
    if entry.kind == "truth":
        ends = [
            f"{100 * i.estimate:.0f} % [{100 * i.low:.0f} %, {100 * i.high:.0f} %]"
            for i in (entry.before, entry.after)
        ]
        text = f"{entry.name}: {ends[0]} → {ends[1]} (no prompt {100 * entry.bare:.0f} %)"
    else:
        text = f"effect on {entry.name.replace('_', ' ')}: {span(entry.before)} → {span(entry.after)}"
    return f"{text}: {'HARMED' if entry.harmed else 'not harmed'}"


def passage(audit: Audit, index: int) -> str:
    """List how much a word of the prompt changes directions and latents of the model.

    Only changes whose interval excludes zero are listed, and at most the two largest of latents.

    Args:
        audit: The audit.
        index: Index of the word.
    """
    through = [t for t in audit.effects.words[index].through if t.clear]
    latents = sorted((t for t in through if t.kind == "latent"), key=lambda t: -abs(t.interval.estimate))[:2]
    return ", ".join(
        f"{t.name} {signed(t.interval.estimate)}"
        for t in [*(t for t in through if t.kind != "latent"), *latents]
    )


def _persona(audit: Audit) -> str:
    return spoken(audit.persona)
