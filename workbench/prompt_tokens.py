"""Which tokens a prompt may contain, and whether a prompt keeps its tokens inside a chat text.

1. Allowed tokens are printable, are not special, added or reserved tokens, and come back from decode ->
   encode. They are found once per tokenizer and kept in memory and, under a hash of the tokenizer, in the
   cache directory.
2. A lexicon restricts a search further: to words, to a script, or to the words of a list.
3. A prompt is admitted only if the whole text encodes to left ids + prompt ids + right ids (`survives`), so
   that no token merges with the text around it, and if it has no outer white space that a template could
   trim.
"""

from __future__ import annotations

import hashlib
import unicodedata
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from workbench.errors import UserError
from workbench.models import Runner, runner_for
from workbench.models.gguf_files import cache_directory
from workbench.models.token_text import short_text_ids, single_token_texts, token_texts
from workbench.runs.atomic_writing import write_bytes
from workbench.slot_contexts import Context, Contexts

#: Version of the rules for allowed tokens, part of the cache's key: changed with the rules.
_RULES = "1"


def text_of(model: Any, ids: Sequence[int]) -> str:
    """Return the text of tokens as it reads inside a longer text.

    The text begins with a space if its first token is the beginning of a word for a SentencePiece tokenizer.

    Args:
        model: A loaded model or its runner.
        ids: Token ids.

    Example:
        >>> text_of(mistral, [22557])  # "▁Hello"  # doctest: +SKIP
        ' Hello'
    """
    runner = runner_for(model)
    return token_texts(runner.tokenizer, [ids])[0]


def probes(runner: Runner, lead: str = "", n: int = 32) -> list[int]:
    """Return a few ordinary tokens from all over the vocabulary.

    They are put at a prompt's place in the chat, to find out how the tokenizer encodes the text around it.

    They are chosen from about 4,000 tokens, so that no pass over the whole vocabulary is needed.

    Args:
        runner: The model's runner.
        lead: White space that each token's text must begin with; "" for any token.
        n: Number of tokens.

    Returns:
        Token ids of words, or of other tokens without white space if there are no words. They are found once
        per runner and lead.
    """
    made = _PROBES.setdefault(runner, {})
    if lead not in made:
        size = min(runner.shape.d_vocab, len(runner.tokenizer))
        spread = _round_trips(runner, range(0, size, max(1, size // 4096)))
        texts = token_texts(runner.tokenizer, [[i] for i in spread])
        starts = [
            (i, text[len(lead) :]) for i, text in zip(spread, texts, strict=True) if text.startswith(lead)
        ]
        words = [i for i, text in starts if text.isalpha()] or [
            i for i, text in starts if text == text.strip()
        ]
        made[lead] = words[:: max(1, len(words) // n)][:n]
    return made[lead]


_PROBES: weakref.WeakKeyDictionary[Runner, dict[str, list[int]]] = weakref.WeakKeyDictionary()


def allowed_ids(model: Any) -> Bool[Tensor, " d_vocab"]:
    """Find the tokens that a prompt may contain.

    Left out are special, added, reserved and out-of-range tokens, invalid UTF-8, control and formatting
    characters, tokens of white space alone, and every token that does not come back from decode -> encode.

    Args:
        model: A loaded model or its runner.

    Returns:
        bool [d_vocab], True for allowed tokens.

    Example:
        >>> int(wb.allowed_ids(model).sum()) > 100
        True
    """
    runner = runner_for(model)
    if runner not in _ALLOWED:
        _ALLOWED[runner] = _kept_allowed(runner)
    return _ALLOWED[runner].clone()


_ALLOWED: weakref.WeakKeyDictionary[Runner, Tensor] = weakref.WeakKeyDictionary()


def _kept_allowed(runner: Runner) -> Bool[Tensor, " d_vocab"]:
    """Load the mask of allowed tokens from the cache directory, or compute it and save it there."""
    size, file = runner.shape.d_vocab, _cache_file(runner)
    if file is not None and file.is_file():
        try:
            kept = load_file(file).get("allowed")
            if kept is not None and kept.dtype == torch.bool and kept.shape == (size,) and kept.any():
                return kept
        except (SafetensorError, OSError):
            pass
    found = _find_allowed(runner)
    if file is not None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(file, save({"allowed": found}))
        except OSError:  # without a cache directory the mask is computed again next time
            pass
    return found


#: The mask of a vocabulary up to this size is not cached: it takes a tenth of a second to compute.
_LARGE = 10_000


def _cache_file(runner: Runner) -> Path | None:
    backend = getattr(runner.tokenizer, "backend_tokenizer", None)
    if backend is None or len(runner.tokenizer) <= _LARGE:
        return None
    special = sorted(runner.tokenizer.all_special_ids)
    digest = hashlib.sha256(
        f"{_RULES} {unicodedata.unidata_version} {runner.shape.d_vocab} {special} {backend.to_str()}".encode()
    ).hexdigest()
    return cache_directory() / "allowed_tokens" / f"{digest[:32]}.safetensors"


#: Tokens per tokenizer call. Each call costs some milliseconds, so even the largest vocabulary is one call.
_AT_ONCE = 1 << 18


def _find_allowed(runner: Runner) -> Bool[Tensor, " d_vocab"]:
    size = runner.shape.d_vocab
    allowed, known = torch.zeros(size, dtype=torch.bool), min(size, len(runner.tokenizer))
    for start in range(0, known, _AT_ONCE):
        allowed[_round_trips(runner, range(start, min(known, start + _AT_ONCE)))] = True
    if not allowed.any():
        raise UserError(
            "no token of this vocabulary may be in a prompt: all are special or do not survive decode -> encode"
        )
    return allowed


def _round_trips(runner: Runner, ids: Sequence[int]) -> list[int]:
    """Return those of the tokens that a prompt may contain."""
    tokenizer = runner.tokenizer
    banned = set(tokenizer.all_special_ids) | set(getattr(tokenizer, "added_tokens_decoder", {}))
    texts = single_token_texts(tokenizer, ids)
    candidates = [
        (i, text) for i, text in zip(ids, texts, strict=True) if i not in banned and _printable(text)
    ]
    again = short_text_ids(tokenizer, [text for _, text in candidates])
    return [i for (i, _), back in zip(candidates, again, strict=True) if back == [i]]


def _printable(text: str) -> bool:
    """Whether a text is printable, has no replacement character, and is more than white space."""
    if not text.strip() or "\N{REPLACEMENT CHARACTER}" in text:
        return False
    return text.isprintable() or all(
        unicodedata.category(ch)[0] != "C" and ch not in "\u2028\u2029" for ch in text
    )


def lexicon(model: Any, words: Sequence[str]) -> Bool[Tensor, " d_vocab"]:
    """Mark the tokens that are one whole word of a list, to restrict a search to them.

    Args:
        model: A loaded model or its runner.
        words: The words; a word that is not a single token is ignored.

    Returns:
        bool [d_vocab], True for the words' tokens.

    Raises:
        UserError: No word of the list is a single token.

    Example:
        >>> int(wb.lexicon(model, ["honest", "be"]).sum()) >= 2
        True
    """
    runner = runner_for(model)
    ids = [runner.encode(word) for word in words]
    mask = torch.zeros(runner.shape.d_vocab, dtype=torch.bool)
    mask[[i[0] for i in ids if len(i) == 1 and i[0] != runner.tokenizer.unk_token_id]] = True
    if not mask.any():
        raise UserError(f"none of the {len(words)} words is a single token of this model")
    return mask


def survives(model: Any, contexts: Contexts, prompt_ids: Sequence[int]) -> bool:
    """Whether a prompt's text, put into the slot of the contexts, encodes to exactly the prompt's ids.

    The text is tried once for each distinct text around the slot.

    Args:
        model: A loaded model or its runner.
        contexts: Questions rendered with a slot, the place where the prompt goes.
        prompt_ids: Token ids of the prompt.

    Returns:
        True if the ids survive encoding, so that a search may report them as a text.

    Example:
        >>> wb.survives(model, contexts, wb.runner_for(model).encode("be honest"))
        True
    """
    runner, ids = runner_for(model), tuple(prompt_ids)
    text = text_of(runner, ids)
    return bool(ids) and _fits(text, contexts[0].lead) and _stands_whole(runner, contexts, text, ids)


def _fits(text: str, lead: str) -> bool:
    """Whether a prompt's text begins with exactly the white space `lead` and has no other at its edges."""
    inner = text.strip()
    return bool(inner) and text == lead + inner


def _stands_whole(runner: Runner, contexts: Contexts, text: str, ids: tuple[int, ...]) -> bool:
    """Whether each whole context, with the prompt's text in its slot, encodes to these ids in place."""
    around = _surroundings(contexts)
    encoded = runner.tokenizer(
        [c.prefix_text + text + c.suffix_text for c in around], add_special_tokens=False
    )["input_ids"]
    return all(_in_place(tuple(found), context, ids) for found, context in zip(encoded, around, strict=True))


def all_survive(runner: Runner, contexts: Contexts, prompts: Sequence[tuple[int, ...]]) -> list[bool]:
    """Check for many prompts at once whether each still has the same token ids after decoding and encoding.

    The text of a prompt is put at its place (the slot) in each context's chat and encoded, as in `survives`.

    To save time, text further than about 24 characters from the slot is left out. A tokenizer that merges
    over a longer distance would not be noticed; the whole text of each reported prompt is therefore encoded
    again (`encode_prompt`). Prompts that fail in the first context are not tried in the others.

    Args:
        runner: The model's runner.
        contexts: Questions rendered with a slot.
        prompts: Token ids of each prompt.
    """
    first, *others = _windows(runner, contexts)
    texts = token_texts(runner.tokenizer, prompts)
    alive = [bool(ids) and _fits(text, first.lead) for ids, text in zip(prompts, texts, strict=True)]
    for around in ([first], others):
        asked = [(n, context) for n, ok in enumerate(alive) if ok for context in around]
        wholes = [context.prefix_text + texts[n] + context.suffix_text for n, context in asked]
        encoded = runner.tokenizer(wholes, add_special_tokens=False)["input_ids"] if wholes else []
        for (n, context), found in zip(asked, encoded, strict=True):
            alive[n] = alive[n] and _in_place(tuple(found), context, prompts[n])
    return alive


#: Characters at each side of the slot that decide whether a prompt's tokens merge with the text around it.
_EDGE = 24
_WINDOWS: weakref.WeakKeyDictionary[Runner, dict[tuple[tuple[str, str], ...], list[Context]]] = (
    weakref.WeakKeyDictionary()
)


def _windows(runner: Runner, contexts: Contexts) -> list[Context]:
    """Return the distinct surroundings, cut down to a few tokens at each side of the slot; cached."""
    made, key = (
        _WINDOWS.setdefault(runner, {}),
        tuple((context.prefix_text, context.suffix_text) for context in contexts),
    )
    if key not in made:
        distinct = {
            (w.prefix_text, w.suffix_text): w
            for w in (_window(runner, context) for context in _surroundings(contexts))
        }
        made[key] = list(distinct.values())
    return made[key]


def _window(runner: Runner, context: Context) -> Context:
    """Cut a context to a window of about _EDGE characters at each side of the slot.

    The window begins and ends at token boundaries, chosen such that the shorter text has the same tokens. A
    short context, or one without such boundaries, is returned whole.
    """
    if len(context.prefix_text) <= _EDGE and len(context.suffix_text) <= _EDGE:
        return context
    left = next((k for k in range(len(context.prefix_ids), -1, -1) if _starts_at(runner, context, k)), 0)
    right = next(
        (k for k in range(len(context.suffix_ids)) if len(text_of(runner, context.suffix_ids[:k])) >= _EDGE),
        len(context.suffix_ids),
    )
    text = (
        text_of(runner, context.suffix_ids[:right])
        if right < len(context.suffix_ids)
        else context.suffix_text
    )
    prefix_ids, suffix_ids = context.prefix_ids[left:], context.suffix_ids[:right]
    window = replace(
        context,
        prefix_ids=prefix_ids,
        suffix_ids=suffix_ids,
        prefix_text=runner.decode(prefix_ids) if left else context.prefix_text,
    )
    for cut in (
        replace(window, suffix_text=text),
        replace(window, suffix_text=context.suffix_text, suffix_ids=context.suffix_ids),
    ):
        wholes = [
            (probe, cut.prefix_text + text_of(runner, [probe]) + cut.suffix_text)
            for probe in probes(runner, context.lead)
        ]
        if any(
            _in_place(tuple(runner.encode(whole)), cut, (probe,)) for probe, whole in wholes
        ) and context.suffix_text.startswith(cut.suffix_text):
            return cut
    return context


def _starts_at(runner: Runner, context: Context, k: int) -> bool:
    """Whether the prefix can be cut before its token k.

    The rest must be long enough, and its text alone must encode to the same tokens.
    """
    rest = context.prefix_ids[k:]
    text = runner.decode(rest)
    return len(text) >= _EDGE and context.prefix_text.endswith(text) and tuple(runner.encode(text)) == rest


def _in_place(found: tuple[int, ...], context: Context, prompt_ids: tuple[int, ...]) -> bool:
    """Whether the ids up to the decision token are the expected ones.

    After it the suffix's text may go on (an opening of the answer).
    """
    expected = context.ids(prompt_ids)
    return found[: len(expected)] == expected


def _surroundings(contexts: Contexts) -> list[Context]:
    """Return one context for each distinct pair of texts next to the slot."""
    distinct: dict[tuple[str, str], Context] = {}
    for context in contexts:
        distinct.setdefault((context.prefix_text[-_EDGE:], context.suffix_text[:_EDGE]), context)
    return list(distinct.values())


def encode_prompt(model: Any, contexts: Contexts, text: str) -> tuple[int, ...]:
    """Encode a prompt's text to its token ids in the slot.

    Args:
        model: A loaded model or its runner.
        contexts: Questions rendered with a slot, the place where the prompt goes.
        text: The prompt; outer white space is removed.

    Raises:
        UserError: The text is empty, has words that a closed vocabulary lacks, or does not encode to the same
            tokens in every context.
    """
    runner, text = runner_for(model), text.strip()
    if not text:
        raise UserError("an empty prompt: expected at least one token (use no prompt at all instead)")
    if unknown := _unknown_words(runner, text):
        raise UserError(
            f"the model's vocabulary does not have {', '.join(map(repr, unknown))}: use other words in the prompt"
        )
    first = contexts[0]
    whole = tuple(runner.encode(first.around(text)))
    ids = whole[len(first.prefix_ids) : len(whole) - _suffix_length(runner, first)]
    if not _stands_whole(runner, contexts, first.lead + text, ids):
        raise UserError(
            f"the prompt {text!r} does not keep its tokens inside every context: its edges merge with the template"
        )
    return ids


def _unknown_words(runner: Runner, text: str) -> list[str]:
    """Return the words (three at most) for which a closed vocabulary has only its token for unknown words."""
    unknown = runner.tokenizer.unk_token_id
    if unknown is None or unknown not in runner.encode(text):
        return []
    return [word for word in dict.fromkeys(text.split()) if unknown in runner.encode(word)][:3]


def _suffix_length(runner: Runner, context: Context) -> int:
    """Count the tokens of the whole suffix text.

    `suffix_ids` may be shorter: it ends where an opening of the answer merges with the answers.
    """
    left = len(context.prefix_ids) + 1
    for probe in probes(runner, context.lead):
        whole = runner.encode(context.prefix_text + text_of(runner, [probe]) + context.suffix_text)
        if tuple(whole[:left]) == (*context.prefix_ids, probe):
            return len(whole) - left
    raise UserError("no single token keeps its boundaries in the slot")
