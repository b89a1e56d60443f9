"""Render questions in the model's chat template, with a slot: the place in the chat where the prompt goes.

1. The messages of a question are rendered with a mark in the slot; the text left and right of the mark is
   kept.
2. A one-token probe replaces the mark. Encoding the whole text gives the token ids left and right of the slot
   as they really are in context.
3. The two answers are appended and encoded in context too. If the tokenizer merges the last token of the
   context with the answer (as `(` and `A` into `(A`), the context ends before that token: the decision token
   is the last token that the context shares with both answered texts.
4. If the text before the slot ends in a space that most tokenizers make part of the next word's token, that
   space belongs to the first token of the prompt. `prompt_tokens` checks whether a prompt keeps its tokens in
   the slot.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np

from workbench.answer_tokens import answer_log_probs, encode_answers
from workbench.errors import UserError
from workbench.models import Runner, runner_for
from workbench.personas import Item, Normalization, Persona, Split
from workbench.prompt_tokens import probes, text_of
from workbench.prompted_chat import render_with_prompt
from workbench.slot_contexts import Context, Contexts, Metric, Orders, Slot

_MARK = "@@slot@@"


def make_contexts(
    model: Any,
    split: Split,
    slot: Slot = "system",
    metric: Metric | None = None,
    orders: Orders = "both",
    n: int | None = None,
    seed: int = 0,
    normalization: Normalization | None = None,
) -> Contexts:
    """Render the questions of a split in the model's chat template, with a slot for a prompt.

    With lettered answers each question is rendered in both orders of its options, so that a preference for a
    letter cancels.

    Args:
        model: A loaded model or its runner.
        split: The questions.
        slot: Where the prompt goes: "system", "before_question", "after_question" or "answer_opening".
        metric: "letters" (answers are option letters) or "text" (answers are whole texts). None: as the
            persona says.
        orders: Order of the two options: "both", "original" (as published) or "random" (one per question).
        n: Number of questions drawn from the split. None: all.
        seed: Seed of the drawing of questions and of random orders.
        normalization: How the scores of text answers are normalised for length. None: as the persona says.

    Returns:
        One context per question and order.

    Raises:
        UserError: The slot is unknown, the template cannot hold it, two answers cannot be compared
            (`AnswersNotComparable`), or a question leaves no room for a prompt in the model's context.

    Example:
        >>> contexts = wb.make_contexts(model, data.search, slot="system", n=4)
    """
    if slot not in get_args(Slot):
        raise UserError(f"unknown slot {slot!r}: expected one of {', '.join(get_args(Slot))}")
    runner, metric = runner_for(model), metric or split.persona.metric
    if metric == "letters" and split.persona.letters is None:
        raise UserError(f"persona {split.persona.name!r} has no letter form: use metric='text'")
    items = list(split if n is None else split.take(n, seed))
    rng = np.random.default_rng(seed)
    rule = "mean" if metric == "letters" else normalization or split.persona.normalization
    made = [
        _context(runner, split.persona, item, slot, metric, first, rule)
        for item in items
        for first in _orders(item, metric, orders, rng)
    ]
    if not made:
        raise UserError(f"the split {split.name!r} has no items")
    if rule == "pmi":
        made = _without_prior(runner, made)
    longest = max(len(c.ids(())) + max(map(len, c.answers)) - 1 for c in made)
    if longest >= runner.shape.n_ctx:
        raise UserError(
            f"a question of {longest} tokens leaves no room for a prompt: this model's context holds {runner.shape.n_ctx}"
        )
    return Contexts(tuple(made), slot, metric, split.name)


def user_text(
    persona: Persona, item: Item, metric: Metric, matching_first: bool
) -> tuple[str, str, tuple[str, str]]:
    """Return the user's message and the two answers' texts for one question.

    Args:
        persona: The persona whose question it is.
        item: The question with its two answers.
        metric: "letters" or "text".
        matching_first: Whether the answer that shows the persona is option A. Not used with "text", which
            shows no options.

    Returns:
        The user's message, the beginning of the assistant's turn ("" with "text"), and the two answers: first
        the one that shows the persona.
    """
    if metric == "text":
        return item.question, "", (item.matching, item.not_matching)
    assert persona.letters is not None, "a persona with the letters metric has them"
    return (
        persona.letters.ask(item, matching_first),
        persona.letters.opening,
        persona.letters.answers(matching_first),
    )


def _orders(item: Item, metric: Metric, orders: Orders, rng: np.random.Generator) -> tuple[bool, ...]:
    if metric == "text":
        return (True,)
    if orders == "original" and item.matching_first is not None:
        return (item.matching_first,)
    return (bool(rng.integers(2)),) if orders == "random" else (True, False)


def _context(
    runner: Runner,
    persona: Persona,
    item: Item,
    slot: Slot,
    metric: Metric,
    matching_first: bool,
    normalization: Normalization,
) -> Context:
    question, opening, answers = user_text(persona, item, metric, matching_first)
    prefix_text, suffix_text = _split_at_slot(
        render_with_prompt(runner, question, _MARK, slot, opening), slot
    )
    lead, prefix_ids, suffix_ids, answer_ids = _encode_around(runner, prefix_text, suffix_text, answers)
    prefix_text = prefix_text[: len(prefix_text) - len(lead)]
    bare_text = runner.render([{"role": "user", "content": question}], opening)
    _, bare_ids, _ = encode_answers(runner, bare_text, (), answers)
    weights = _weights(normalization, answers, answer_ids)
    return Context(
        item,
        matching_first,
        prefix_text,
        suffix_text,
        prefix_ids,
        suffix_ids,
        bare_ids,
        answer_ids,
        weights,
        lead=lead,
    )


def _weights(
    normalization: Normalization, answers: tuple[str, str], ids: tuple[tuple[int, ...], tuple[int, ...]]
) -> tuple[float, float]:
    """Return the weight of each token of the matching answer and of the other answer in its score."""
    if normalization == "mean":
        return 1 / len(ids[0]), 1 / len(ids[1])
    return (
        (1 / len(answers[0].strip()), 1 / len(answers[1].strip()))
        if normalization == "character"
        else (1.0, 1.0)
    )


def _without_prior(runner: Runner, contexts: list[Context]) -> list[Context]:
    """Return the contexts with offsets: minus each answer's log-probability after an empty question."""
    text = runner.render([{"role": "user", "content": ""}])
    pairs = {c.answers: (c.item.matching, c.item.not_matching) for c in contexts}
    rows = []
    for pair in pairs.values():
        _, ids, answers = encode_answers(runner, text, (), pair)
        rows += [(ids, answer) for answer in answers]
    found = answer_log_probs(runner, rows)
    prior = {ids: (-found[2 * i], -found[2 * i + 1]) for i, ids in enumerate(pairs)}
    return [replace(c, offsets=prior[c.answers]) for c in contexts]


def _split_at_slot(text: str, slot: Slot) -> tuple[str, str]:
    parts = text.split(_MARK)
    if len(parts) != 2:
        raise UserError(
            f"the chat template of this model cannot hold a {slot!r} slot: the mark came back {len(parts) - 1} times"
        )
    return parts[0], parts[1]


def _encode_around(
    runner: Runner, prefix_text: str, suffix_text: str, answers: tuple[str, str]
) -> tuple[str, tuple[int, ...], tuple[int, ...], tuple[tuple[int, ...], tuple[int, ...]]]:
    """Encode the text around the slot, with a one-token probe in it.

    Returns:
        The white space left of the slot that belongs to the prompt's first token, the ids left of the slot,
        the ids right of it, and the ids of both answers.
    """
    lead, left, whole = lead_in(runner, prefix_text, suffix_text)
    _, suffix_ids, answer_ids = encode_answers(runner, whole, left, answers)
    return lead, left[:-1], suffix_ids, answer_ids


def lead_in(runner: Runner, prefix_text: str, suffix_text: str) -> tuple[str, tuple[int, ...], str]:
    """Encode the text to the left of a prompt, and find whether a space there belongs to the prompt.

    The slot is the place in the chat where the prompt goes. If the text before it ends in a space, most
    tokenizers make this space the beginning of the next word's token. To find out, single tokens are put into
    the slot (probes). The space is given to the prompt if more of them remain separate tokens with it than
    without it.

    Args:
        runner: The model's runner.
        prefix_text: Text left of the slot.
        suffix_text: Text right of the slot.

    Returns:
        The white space that belongs to the prompt's first token (often ""); the token ids left of the slot,
        followed by the id of a probe that remains a separate token; and the whole text with this probe.

    Raises:
        UserError: The tokenizer merges every probe with the text around the slot.

    Example:
        >>> lead_in(runner, "Be honest. ", "")[0]  # doctest: +SKIP
        ' '
    """
    ways = [_standing(runner, prefix_text, suffix_text, lead) for lead in _leads(prefix_text)]
    lead, usable = max(ways, key=lambda way: len(way[1]))
    if not usable:
        raise UserError(
            "no single token keeps its boundaries in the slot: the tokenizer merges all of them with the text to their left"
        )
    return lead, *usable[0]


def _leads(prefix_text: str) -> tuple[str, ...]:
    """Return the white space that may belong to the prompt's first token: none, or one space.

    A space is possible if the text before the slot ends in one, or is empty: a SentencePiece tokenizer puts a
    space before the first word of a text.
    """
    return ("", " ") if prefix_text.endswith(" ") or not prefix_text else ("",)


def _standing(
    runner: Runner, prefix_text: str, suffix_text: str, lead: str
) -> tuple[str, list[tuple[tuple[int, ...], str]]]:
    """Find the one-token probes that begin with the lead and keep their boundaries in the slot.

    Returns:
        The lead; and for each such probe the ids left of the slot with the probe, and the whole text.
    """
    start = prefix_text[: len(prefix_text) - len(lead)]
    prefix_ids, found = tuple(runner.encode(start)), []
    for probe in probes(runner, lead):
        left, whole = (*prefix_ids, probe), start + text_of(runner, [probe]) + suffix_text
        if tuple(runner.encode(whole))[: len(left)] == left:
            found.append((left, whole))
            if len(_leads(prefix_text)) == 1:
                break
    return lead, found
