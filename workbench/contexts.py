"""A chat template with a slot: what stands around the prompt, rendered once, with its token ids.

1. The messages of a question are rendered with a mark where the prompt goes; the text left and right of the mark is kept.
2. A one-token probe is put in; encoding the whole text tells the ids left and right as they really fall in context.
3. The two answers are appended and encoded in context too. If the tokenizer merges the last token of the context with the
   answer (as `(` and `A` into `(A`), the context ends before that token: the decision token is the last one that both share.
4. A prompt is admitted only if the whole text encodes to left ids + prompt ids + right ids (`survives`), for the first
   token at either edge too, and if it has no outer white space that a template could trim.
"""

from __future__ import annotations

import unicodedata
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from workbench.errors import UserError
from workbench.models import Runner, runner_for
from workbench.personas import Item, Persona, Split

Slot = Literal["system", "before_question", "after_question", "answer_opening"]
Metric = Literal["letters", "text"]
Orders = Literal["both", "original", "random"]

_MARK = "@@slot@@"


class AnswersBeginAlike(UserError):
    """Two answers that begin with the same token: the model's choice between them cannot be read at the first one."""


@dataclass(frozen=True)
class Context:
    """One question with everything around it. The ids of the whole are prefix_ids + prompt ids + suffix_ids; the last one
    is the decision token. bare_ids: the same question rendered without the slot ("no prompt"). answers: ids that follow the
    decision token for the matching and the not matching answer. matching_first: the matching option is the first one shown."""

    item: Item
    matching_first: bool
    prefix_text: str
    suffix_text: str
    prefix_ids: tuple[int, ...]
    suffix_ids: tuple[int, ...]
    bare_ids: tuple[int, ...]
    answers: tuple[tuple[int, ...], tuple[int, ...]]

    def ids(self, prompt_ids: Sequence[int] | None) -> tuple[int, ...]:
        """Token ids up to and with the decision token; None means "no prompt"."""
        return self.bare_ids if prompt_ids is None else (*self.prefix_ids, *prompt_ids, *self.suffix_ids)


@dataclass(frozen=True)
class Contexts(Sequence[Context]):
    """Contexts of one split for one model, slot and metric."""

    items: tuple[Context, ...]
    slot: Slot
    metric: Metric
    split_name: str

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return replace(self, items=self.items[index]) if isinstance(index, slice) else self.items[index]

    def __iter__(self) -> Iterator[Context]:
        return iter(self.items)

    @property
    def groups(self) -> tuple[str, ...]:
        """The question group of each context: both orders of an item, and all items of a group, are one cluster."""
        return tuple(context.item.group for context in self.items)

    @property
    def shared_prefix(self) -> bool:
        """True where every context has the same ids left of the slot (the system slot): the prompt is then run once."""
        return len({context.prefix_ids for context in self.items}) == 1

    def take(self, n: int, seed: int = 0) -> Contexts:
        """n contexts drawn without replacement (all of them when there are fewer), in their old order."""
        if n >= len(self):
            return self
        chosen = np.sort(np.random.default_rng(seed).choice(len(self), size=n, replace=False))
        return replace(self, items=tuple(self.items[i] for i in chosen))

    def per_group(self, n_groups: int, seed: int = 0) -> Contexts:
        """One context from each of n groups, so that few contexts still cover many groups."""
        rng = np.random.default_rng(seed)
        names = sorted(set(self.groups))
        order = rng.permutation(len(names))[:n_groups]
        members = {names[i]: [c for c in self.items if c.item.group == names[i]] for i in order}
        return replace(self, items=tuple(group[rng.integers(len(group))] for group in members.values()))


def make_contexts(
    model: Any, split: Split, slot: Slot = "system", metric: Metric | None = None, orders: Orders = "both", n: int | None = None, seed: int = 0
) -> Contexts:
    """Contexts for the items of a split (with letters: each item in both orders, so that the letter cancels).

    metric: the persona's own when None. orders: "both"; "original" (as published); "random" (one order an item).
    n: at most so many items, drawn by seed. Raises UserError for an unknown slot, a template that cannot hold it, or a
    question that leaves no room in the model's context.
    """
    if slot not in get_args(Slot):
        raise UserError(f"unknown slot {slot!r}: expected one of {', '.join(get_args(Slot))}")
    runner, metric = runner_for(model), metric or split.persona.metric
    if metric == "letters" and split.persona.letters is None:
        raise UserError(f"persona {split.persona.name!r} has no letter form: use metric='text'")
    items = list(split if n is None else split.take(n, seed))
    rng = np.random.default_rng(seed)
    made = [_context(runner, split.persona, item, slot, metric, first) for item in items for first in _orders(item, metric, orders, rng)]
    if not made:
        raise UserError(f"the split {split.name!r} has no items")
    longest = max(len(c.ids(())) for c in made)
    if longest >= runner.shape.n_ctx:
        raise UserError(f"a question of {longest} tokens leaves no room for a prompt: this model's context holds {runner.shape.n_ctx}")
    return Contexts(tuple(made), slot, metric, split.name)


def user_text(persona: Persona, item: Item, metric: Metric, matching_first: bool) -> tuple[str, str, tuple[str, str]]:
    """What the user says, the opening of the assistant's turn, and the two answers (matching, not matching) as text."""
    if metric == "text":
        return item.question, "", (item.matching, item.not_matching)
    return persona.letters.ask(item, matching_first), persona.letters.opening, persona.letters.answers(matching_first)


def _orders(item: Item, metric: Metric, orders: Orders, rng: np.random.Generator) -> tuple[bool, ...]:
    if metric == "text":
        return (True,)
    if orders == "original" and item.matching_first is not None:
        return (item.matching_first,)
    return (bool(rng.integers(2)),) if orders == "random" else (True, False)


def _context(runner: Runner, persona: Persona, item: Item, slot: Slot, metric: Metric, matching_first: bool) -> Context:
    question, opening, answers = user_text(persona, item, metric, matching_first)
    prefix_text, suffix_text = _split_at_slot(_render(runner, question, slot, opening), slot)
    prefix_ids, suffix_ids, answer_ids = _encode_around(runner, prefix_text, suffix_text, answers)
    bare_text = runner.render([{"role": "user", "content": question}], opening)
    _, bare_ids, _ = _encode_answers(runner, bare_text, (), answers)
    return Context(item, matching_first, prefix_text, suffix_text, prefix_ids, suffix_ids, bare_ids, answer_ids)


def _render(runner: Runner, question: str, slot: Slot, opening: str) -> str:
    user = {"before_question": f"{_MARK}\n{question}", "after_question": f"{question}\n{_MARK}"}.get(slot, question)
    messages = [{"role": "user", "content": user}]
    if slot == "system":
        messages.insert(0, {"role": "system", "content": _MARK})
    if slot == "answer_opening":
        opening = f"{_MARK}\n{opening}"
    return runner.render(messages, opening)


def _split_at_slot(text: str, slot: Slot) -> tuple[str, str]:
    parts = text.split(_MARK)
    if len(parts) != 2:
        raise UserError(f"the chat template of this model cannot hold a {slot!r} slot: the mark came back {len(parts) - 1} times")
    return parts[0], parts[1]


def _encode_around(
    runner: Runner, prefix_text: str, suffix_text: str, answers: tuple[str, str]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, ...], tuple[int, ...]]]:
    """Ids left of the slot, right of it, and of both answers, as they fall around a one-token probe."""
    prefix_ids = tuple(runner.encode(prefix_text))
    for probe in _probes(runner):
        left = (*prefix_ids, probe)
        whole = prefix_text + runner.decode([probe]) + suffix_text
        if tuple(runner.encode(whole))[: len(left)] == left:
            _, suffix_ids, answer_ids = _encode_answers(runner, whole, left, answers)
            return prefix_ids, suffix_ids, answer_ids
    raise UserError("no single token stands on its own in the slot: the tokenizer merges all of them with the text to their left")


def _encode_answers(
    runner: Runner, text: str, left: tuple[int, ...], answers: tuple[str, str]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, ...], tuple[int, ...]]]:
    """(left, ids after left up to where the answers begin, answer ids): the context ends where text and both answers part.

    The answers follow without a space behind white space, brackets and special tokens, otherwise with one; where that does
    not tell them apart, the other way is tried."""
    plain = tuple(runner.encode(text))
    tight = not text or text[-1].isspace() or text[-1] in "([{\"'>"
    for space in ("", " ") if tight else (" ", ""):
        joined = [tuple(runner.encode(text + space + answer)) for answer in answers]
        end = min(_common(plain, ids) for ids in joined)
        matching, other = joined[0][end:], joined[1][end:]
        if matching and other and matching[0] != other[0] and end >= len(left):
            return left, plain[len(left) : end], (matching, other)
    raise AnswersBeginAlike(f"the answers {answers[0]!r} and {answers[1]!r} do not differ in their first token: they cannot be compared here")


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return n


def _probes(runner: Runner, n: int = 32) -> list[int]:
    """A few ordinary tokens, spread over the vocabulary, letters first (found once per runner)."""
    if runner not in _PROBES:
        ids = torch.nonzero(allowed_ids(runner))[:, 0].tolist()
        words = [i for i in ids if runner.decode([i]).isalpha()] or ids
        _PROBES[runner] = words[:: max(1, len(words) // n)][:n]
    return _PROBES[runner]


_PROBES: weakref.WeakKeyDictionary[Runner, list[int]] = weakref.WeakKeyDictionary()


def allowed_ids(model: Any) -> Bool[Tensor, " d_vocab"]:
    """Tokens that a prompt may hold: no special, added, reserved or out-of-range token, no invalid UTF-8, no control or
    formatting character, no white space alone, and decode -> encode gives the token back."""
    runner = runner_for(model)
    if runner not in _ALLOWED:
        _ALLOWED[runner] = _find_allowed(runner)
    return _ALLOWED[runner].clone()


def lexicon(model: Any, words: Sequence[str]) -> Bool[Tensor, " d_vocab"]:
    """The tokens that are one of the words as a whole, to restrict a search to. UserError when no word is a token."""
    runner = runner_for(model)
    ids = [runner.encode(word) for word in words]
    mask = torch.zeros(runner.shape.d_vocab, dtype=torch.bool)
    mask[[i[0] for i in ids if len(i) == 1 and i[0] != runner.tokenizer.unk_token_id]] = True
    if not mask.any():
        raise UserError(f"none of the {len(words)} words is a single token of this model")
    return mask


_ALLOWED: weakref.WeakKeyDictionary[Runner, Tensor] = weakref.WeakKeyDictionary()


def _find_allowed(runner: Runner) -> Bool[Tensor, " d_vocab"]:
    tokenizer, size = runner.tokenizer, runner.shape.d_vocab
    banned = set(tokenizer.all_special_ids) | set(getattr(tokenizer, "added_tokens_decoder", {}))
    known = min(size, len(tokenizer))
    texts = tokenizer.batch_decode([[i] for i in range(known)], skip_special_tokens=False, clean_up_tokenization_spaces=False)
    candidates = [i for i in range(known) if i not in banned and _printable(texts[i])]
    again = tokenizer([texts[i] for i in candidates], add_special_tokens=False)["input_ids"] if candidates else []
    allowed = torch.zeros(size, dtype=torch.bool)
    for i, ids in zip(candidates, again, strict=True):
        allowed[i] = list(ids) == [i]
    if not allowed.any():
        raise UserError("no token of this vocabulary may stand in a prompt: all are special or do not survive decode -> encode")
    return allowed


def _printable(text: str) -> bool:
    """No replacement character, nothing unprintable or invisible, and something besides white space."""
    if not text.strip() or "\N{REPLACEMENT CHARACTER}" in text:
        return False
    return all(unicodedata.category(ch)[0] != "C" and ch not in "\u2028\u2029" for ch in text)


def survives(model: Any, contexts: Contexts, prompt_ids: Sequence[int]) -> bool:
    """True if the prompt's text, set into every distinct surrounding of `contexts`, encodes to exactly these ids in place."""
    runner, ids = runner_for(model), tuple(prompt_ids)
    text = runner.decode(ids)
    return bool(ids) and text == text.strip() and _stands_whole(runner, contexts, text, ids)


def _stands_whole(runner: Runner, contexts: Contexts, text: str, ids: tuple[int, ...]) -> bool:
    """Whether the text of each whole context with the prompt's in its slot encodes to these ids in place."""
    around = _surroundings(contexts)
    encoded = runner.tokenizer([c.prefix_text + text + c.suffix_text for c in around], add_special_tokens=False)["input_ids"]
    return all(_in_place(tuple(found), context, ids) for found, context in zip(encoded, around, strict=True))


def all_survive(runner: Runner, contexts: Contexts, prompts: Sequence[tuple[int, ...]]) -> list[bool]:
    """`survives` for many prompts at once, asked near the slot only (`_windows`): a tokenizer that merged over a longer distance would pass
    unseen here, and be found when the whole text of what a search reports is encoded again (`encode_prompt`).

    Most that do not survive fail in the first context: the others are asked only for those that are left (two tokenizer calls)."""
    first, *others = _windows(runner, contexts)
    texts = [runner.decode(ids) for ids in prompts]
    alive = [bool(ids) and text == text.strip() for ids, text in zip(prompts, texts, strict=True)]
    for around in ([first], others):
        asked = [(n, context) for n, ok in enumerate(alive) if ok for context in around]
        wholes = [context.prefix_text + texts[n] + context.suffix_text for n, context in asked]
        encoded = runner.tokenizer(wholes, add_special_tokens=False)["input_ids"] if wholes else []
        for (n, context), found in zip(asked, encoded, strict=True):
            alive[n] = alive[n] and _in_place(tuple(found), context, prompts[n])
    return alive


#: Characters at each side of the slot that say whether a prompt's tokens merge with what stands there.
_EDGE = 24
_WINDOWS: weakref.WeakKeyDictionary[Runner, dict[tuple[tuple[str, str], ...], list[Context]]] = weakref.WeakKeyDictionary()


def _windows(runner: Runner, contexts: Contexts) -> list[Context]:
    """The surroundings, cut down to a few tokens at each side of the slot; made once for the same texts."""
    made, key = _WINDOWS.setdefault(runner, {}), tuple((context.prefix_text, context.suffix_text) for context in contexts)
    if key not in made:
        distinct = {(w.prefix_text, w.suffix_text): w for w in (_window(runner, context) for context in _surroundings(contexts))}
        made[key] = list(distinct.values())
    return made[key]


def _window(runner: Runner, context: Context) -> Context:
    """The context from a token on that begins at least _EDGE characters left of the slot, up to one that ends as far right of it, both
    such that the shorter text has the same tokens; the whole context where it is short, or no such tokens are found."""
    if len(context.prefix_text) <= _EDGE and len(context.suffix_text) <= _EDGE:
        return context
    left = next((k for k in range(len(context.prefix_ids), -1, -1) if _starts_at(runner, context, k)), 0)
    right = next((k for k in range(len(context.suffix_ids)) if len(runner.decode(context.suffix_ids[:k])) >= _EDGE), len(context.suffix_ids))
    text = runner.decode(context.suffix_ids[:right]) if right < len(context.suffix_ids) else context.suffix_text
    prefix_ids, suffix_ids = context.prefix_ids[left:], context.suffix_ids[:right]
    window = replace(context, prefix_ids=prefix_ids, suffix_ids=suffix_ids, prefix_text=runner.decode(prefix_ids) if left else context.prefix_text)
    for cut in (replace(window, suffix_text=text), replace(window, suffix_text=context.suffix_text, suffix_ids=context.suffix_ids)):
        wholes = [(probe, cut.prefix_text + runner.decode([probe]) + cut.suffix_text) for probe in _probes(runner)]
        if any(_in_place(tuple(runner.encode(whole)), cut, [probe]) for probe, whole in wholes) and context.suffix_text.startswith(cut.suffix_text):
            return cut
    return context


def _starts_at(runner: Runner, context: Context, k: int) -> bool:
    """Whether the prefix can be cut before its token k: the rest is long enough, and its text alone has the same tokens."""
    rest = context.prefix_ids[k:]
    text = runner.decode(rest)
    return len(text) >= _EDGE and context.prefix_text.endswith(text) and tuple(runner.encode(text)) == rest


def _in_place(found: tuple[int, ...], context: Context, prompt_ids: tuple[int, ...]) -> bool:
    """The ids up to the decision token are the expected ones (behind it the suffix's text may go on: an opening)."""
    expected = context.ids(prompt_ids)
    return found[: len(expected)] == expected


def _surroundings(contexts: Contexts) -> list[Context]:
    """One context for each distinct pair of text edges at the slot."""
    distinct: dict[tuple[str, str], Context] = {}
    for context in contexts:
        distinct.setdefault((context.prefix_text[-_EDGE:], context.suffix_text[:_EDGE]), context)
    return list(distinct.values())


def encode_prompt(model: Any, contexts: Contexts, text: str) -> tuple[int, ...]:
    """Ids of a prompt's text as they fall in the slot. UserError if the text is empty, has words that a closed vocabulary lacks,
    or its tokens merge with its surroundings differently from context to context."""
    runner, text = runner_for(model), text.strip()
    if not text:
        raise UserError("an empty prompt: expected at least one token (use no prompt at all instead)")
    if unknown := _unknown_words(runner, text):
        raise UserError(f"the model's vocabulary does not have {', '.join(map(repr, unknown))}: use other words in the prompt")
    first = contexts[0]
    whole = tuple(runner.encode(first.prefix_text + text + first.suffix_text))
    ids = whole[len(first.prefix_ids) : len(whole) - _suffix_length(runner, first)]
    if not _stands_whole(runner, contexts, text, ids):
        raise UserError(f"the prompt {text!r} does not keep its tokens inside every context: its edges merge with the template")
    return ids


def _unknown_words(runner: Runner, text: str) -> list[str]:
    """The first words of the text that a closed vocabulary reads as its token for the unknown, three at most."""
    unknown = runner.tokenizer.unk_token_id
    if unknown is None or unknown not in runner.encode(text):
        return []
    return [word for word in dict.fromkeys(text.split()) if unknown in runner.encode(word)][:3]


def _suffix_length(runner: Runner, context: Context) -> int:
    """Tokens of the whole suffix text (suffix_ids may end earlier, where an opening merges with the answers)."""
    left = len(context.prefix_ids) + 1
    for probe in _probes(runner):
        whole = runner.encode(context.prefix_text + runner.decode([probe]) + context.suffix_text)
        if tuple(whole[:left]) == (*context.prefix_ids, probe):
            return len(whole) - left
    raise UserError("no single token stands on its own in the slot")
