"""Tokens and their texts inside a longer text, many at a time.

SentencePiece tokenizers with a space before the first word (Llama 2, Mistral) drop that space when they decode a text and add it
when they encode one: their tokens are read and written after a line break, where text and tokens correspond.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase


def token_texts(tokenizer: PreTrainedTokenizerBase, sequences: Sequence[Sequence[int]]) -> list[str]:
    """The text of each sequence of tokens as it reads inside a longer text (one call for many).

    Example:
        >>> token_texts(mistral_tokenizer, [[22557]])  # "▁Hello"  # doctest: +SKIP
        [' Hello']
    """
    anchor = _anchor(tokenizer)
    rows = [[*anchor, *ids] for ids in sequences]
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        texts = backend.decode_batch(rows, skip_special_tokens=False)
    else:
        texts = tokenizer.batch_decode(rows, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return [text[1:] for text in texts] if anchor else texts


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text as they fall inside a longer text; empty where it changes the tokens before it."""
    anchor = _anchor(tokenizer)
    whole = [f"\n{text}" for text in texts] if anchor else list(texts)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not whole:
        return []
    if backend is not None:
        found = [encoding.ids for encoding in backend.encode_batch_fast(whole, add_special_tokens=False)]
    else:
        found = [list(ids) for ids in tokenizer(whole, add_special_tokens=False)["input_ids"]]
    return [ids[len(anchor) :] if tuple(ids[: len(anchor)]) == anchor else [] for ids in found]


def _anchor(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Ids of a line break, for tokenizers that put a space before the first word of a text; empty for others."""
    first = tokenizer.convert_ids_to_tokens(tokenizer("a", add_special_tokens=False)["input_ids"][:1])
    if not (first and str(first[0]).startswith("\N{LOWER ONE EIGHTH BLOCK}")):
        return ()
    return tuple(tokenizer("\n", add_special_tokens=False)["input_ids"])
