"""Convert many tokens to the text that they have inside a longer text, and back.

SentencePiece tokenizers with a space before the first word (Llama 2, Mistral) drop that space when they
decode a text and add it when they encode one. Their tokens are therefore decoded and encoded after a line
break, where text and tokens correspond.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase


def token_texts(tokenizer: PreTrainedTokenizerBase, sequences: Sequence[Sequence[int]]) -> list[str]:
    """Return the text that each sequence of tokens has inside a longer text (leading space kept).

    All sequences are decoded in one call.

    Args:
        tokenizer: Any tokenizer.
        sequences: Sequences of token ids.

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


def single_token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """Return the text of each token alone, as `token_texts` would, in a quarter of the time.

    All tokens are decoded as one text with the end token between them. If that text cannot be split again at
    the end tokens, or if a sample of tokens has other texts when decoded one by one, each token is decoded
    separately.

    Args:
        tokenizer: Any tokenizer.
        ids: Token ids.
    """
    end, backend = tokenizer.eos_token_id, getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not isinstance(end, int) or _anchor(tokenizer) or len(ids) < _FEW:
        return token_texts(tokenizer, [[i] for i in ids])
    mark = backend.decode([end], skip_special_tokens=False)
    row = [end] * (2 * len(ids) + 1)
    row[1::2] = [i if i != end else ids[0] for i in ids]
    texts = backend.decode(row, skip_special_tokens=False).split(mark)[1:-1] if mark else []
    sample = range(0, len(ids), max(1, len(ids) // _FEW))
    if len(texts) != len(ids) or [texts[k] for k in sample if ids[k] != end] != token_texts(
        tokenizer, [[ids[k]] for k in sample if ids[k] != end]
    ):
        return token_texts(tokenizer, [[i] for i in ids])
    return [text if i != end else mark for text, i in zip(texts, ids, strict=True)]


#: Fewer tokens than this are decoded one by one; also the size of the sample that is compared.
_FEW = 64


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids that each text has when it is encoded inside a longer text.

    The ids are empty if the text changes the token before it (they merge).

    Args:
        tokenizer: Any tokenizer.
        texts: The texts.
    """
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


def short_text_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of many short texts, as `token_ids` would, in a third of the time.

    All texts are encoded as one text with the end token between them. If the ids cannot be split at the end
    tokens, or if a sample of texts has other ids when encoded one by one, each text is encoded separately.

    Args:
        tokenizer: Any tokenizer.
        texts: The texts, such as those of single tokens.
    """
    end, backend = tokenizer.eos_token_id, getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not isinstance(end, int) or _anchor(tokenizer) or len(texts) < _FEW:
        return token_ids(tokenizer, texts)
    mark = backend.decode([end], skip_special_tokens=False)
    plain = [k for k, text in enumerate(texts) if mark and mark not in text]
    found = _parted(
        backend.encode_batch_fast(
            [mark + mark.join(texts[k] for k in plain) + mark], add_special_tokens=False
        )[0].ids,
        end,
    )
    sample = range(0, len(plain), max(1, len(plain) // _FEW))
    if len(found) != len(plain) or [found[k] for k in sample] != token_ids(
        tokenizer, [texts[plain[k]] for k in sample]
    ):
        return token_ids(tokenizer, texts)
    rest = sorted(set(range(len(texts))) - set(plain))
    ids = dict(zip((*plain, *rest), (*found, *token_ids(tokenizer, [texts[k] for k in rest])), strict=True))
    return [ids[k] for k in range(len(texts))]


def _parted(ids: Sequence[int], end: int) -> list[list[int]]:
    """Split ids at the end tokens."""
    places = [k for k, i in enumerate(ids) if i == end]
    return [list(ids[a + 1 : b]) for a, b in itertools.pairwise(places)]


def _anchor(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Ids of a line break, if the tokenizer puts a space before the first word of a text; else empty."""
    first = tokenizer.convert_ids_to_tokens(tokenizer("a", add_special_tokens=False)["input_ids"][:1])
    if not (first and str(first[0]).startswith("\N{LOWER ONE EIGHTH BLOCK}")):
        return ()
    return tuple(tokenizer("\n", add_special_tokens=False)["input_ids"])
