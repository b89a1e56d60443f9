"""A chat template with a slot: what is around the prompt, rendered once, with its token ids.

1. The messages of a question are rendered with a mark where the prompt goes; the text left and right of the
   mark is kept.
2. A one-token probe is put in; encoding the whole text tells the ids left and right as they really fall in
   context.
3. The two answers are appended and encoded in context too. If the tokenizer merges the last token of the
   context with the answer (as `(` and `A` into `(A`), the context ends before that token: the decision token
   is the last one that both share.
4. Where the text before the slot ends in a space, that space is left to the prompt's first token if the
   tokenizer wants it so. Which prompts keep their tokens in the slot is asked of `prompt_tokens`.
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
    """Contexts for the items of a split (with letters: each item in both orders, so that the letter cancels).

    Args:
        model: A loaded model or its runner.
        split: The questions.
        slot: Where the prompt is put: "system", "before_question", "after_question" or "answer_opening".
        metric: "letters" or "text"; the persona's own when None.
        orders: Of the options: "both"; "original" (as published); "random" (one per item).
        n: At most so many items, drawn by seed; None: all.
        seed: Of the draw.
        normalization: Of text answers; the persona's own when None.

    Returns:
        One context per item and order.

    Raises:
        UserError: An unknown slot, a template that cannot hold it, answers that cannot be compared
            (`AnswersNotComparable`), or a question that leaves no room in the model's context.

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
    """What the user says, the opening of the assistant's turn, and the two answers (matching, not matching) as text."""
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
    prefix_text, suffix_text = _split_at_slot(_render(runner, question, slot, opening), slot)
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
    """What each token counts, for the two answers."""
    if normalization == "mean":
        return 1 / len(ids[0]), 1 / len(ids[1])
    return (
        (1 / len(answers[0].strip()), 1 / len(answers[1].strip()))
        if normalization == "character"
        else (1.0, 1.0)
    )


def _without_prior(runner: Runner, contexts: list[Context]) -> list[Context]:
    """The contexts with offsets that take off each answer's log-probability after an empty question."""
    text = runner.render([{"role": "user", "content": ""}])
    pairs = {c.answers: (c.item.matching, c.item.not_matching) for c in contexts}
    rows = []
    for pair in pairs.values():
        _, ids, answers = encode_answers(runner, text, (), pair)
        rows += [(ids, answer) for answer in answers]
    found = answer_log_probs(runner, rows)
    prior = {ids: (-found[2 * i], -found[2 * i + 1]) for i, ids in enumerate(pairs)}
    return [replace(c, offsets=prior[c.answers]) for c in contexts]


def _render(runner: Runner, question: str, slot: Slot, opening: str) -> str:
    user = {"before_question": f"{_MARK}\n{question}", "after_question": f"{question}\n{_MARK}"}.get(
        slot, question
    )
    messages = [{"role": "user", "content": user}]
    if slot == "system":
        messages.insert(0, {"role": "system", "content": _MARK})
    if slot == "answer_opening":
        opening = f"{_MARK}\n{opening}"
    return runner.render(messages, opening)


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
    """Token ids around the slot.

    What of the white space left of the slot belongs to the prompt's first token, and the ids left of the
    slot, right of it, and of both answers, as they fall around a one-token probe.

    Where the text before the slot ends in a space, most tokenizers make it the beginning of the next word's
    token: the way in which most probes keep their boundaries is taken, without such a lead where both are
    equal.
    """
    lead, left, whole = lead_in(runner, prefix_text, suffix_text)
    _, suffix_ids, answer_ids = encode_answers(runner, whole, left, answers)
    return lead, left[:-1], suffix_ids, answer_ids


def lead_in(runner: Runner, prefix_text: str, suffix_text: str) -> tuple[str, tuple[int, ...], str]:
    """White space, ids and text around the slot, found with a one-token probe.

    The white space left of a slot that belongs to the prompt's first token, the ids left of the slot and of a
    probe that keeps its boundaries there, and the whole text with that probe.

    Raises:
        UserError: No token keeps its boundaries there.

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
    """Nothing, or the space before the slot; at the very start of a text, the space that a SentencePiece tokenizer puts there."""
    return ("", " ") if prefix_text.endswith(" ") or not prefix_text else ("",)


def _standing(
    runner: Runner, prefix_text: str, suffix_text: str, lead: str
) -> tuple[str, list[tuple[tuple[int, ...], str]]]:
    """The probes that begin with the lead and keep their boundaries: ids left of the slot and the probe, and the whole text."""
    start = prefix_text[: len(prefix_text) - len(lead)]
    prefix_ids, found = tuple(runner.encode(start)), []
    for probe in probes(runner, lead):
        left, whole = (*prefix_ids, probe), start + text_of(runner, [probe]) + suffix_text
        if tuple(runner.encode(whole))[: len(left)] == left:
            found.append((left, whole))
            if len(_leads(prefix_text)) == 1:
                break
    return lead, found
