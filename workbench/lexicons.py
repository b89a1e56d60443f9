"""Which words a search may use: by name (`words`, `latin`, `all`), or the words of a file, as masks over a model's vocabulary.

Tokens of real vocabularies are mostly pieces of words, and of words in many scripts. A prompt made of them
reads as nothing:

1. `words`: whole English words of one token, and punctuation. The first token of a prompt has no space before
   it (or has the space that the template leaves to it), every later word has one: words are always separated.
2. `latin`: all tokens in Latin letters, digits and ASCII punctuation, pieces of words among them.
3. `all`: all tokens that survive (`allowed_ids`).
4. A file: its words, one a line, with the rule of `words`.

The list of English words is data/words/english.txt (`benchmarks/english_words.py` made it with SmolLM2).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from workbench.errors import UserError
from workbench.models import runner_for
from workbench.models.model_sources import data_directory
from workbench.models.token_text import token_texts
from workbench.prompt_tokens import allowed_ids
from workbench.runs import read_text

NAMES = ("words", "latin", "all")
PUNCTUATION = frozenset(".,;:!?")
#: A list with fewer words than this as single tokens makes no prompts: other lexicons are needed.
FEWEST = 200


@dataclass(frozen=True)
class Lexicon:
    """Which tokens a search may use.

    Attributes:
        first: bool [d_vocab], tokens that may begin a prompt.
        later: bool [d_vocab], tokens that may follow.
        spaced: bool [d_vocab], tokens that may begin a prompt where the template leaves a space to it; None:
            those of `first`.

    Example:
        >>> words = wb.make_lexicon(model, "words")
        >>> words.first.shape[0] == wb.runner_for(model).shape.d_vocab
        True
    """

    first: Bool[Tensor, " d_vocab"]
    later: Bool[Tensor, " d_vocab"]
    spaced: Bool[Tensor, " d_vocab"] | None = None

    def begin(self, lead: str) -> Bool[Tensor, " d_vocab"]:
        """Tokens that may begin a prompt after this white space."""
        return self.first if not lead or self.spaced is None else self.spaced


def make_lexicon(model: Any, name: str | Path) -> Lexicon:
    """The lexicon of a name or of a file of words.

    Args:
        model: A loaded model or its runner.
        name: "words" (whole words, separated by spaces), "latin", "all", or the path of a file with one word
            per line.

    Returns:
        The tokens that may begin a prompt and those that may follow.

    Raises:
        UserError: No such file, or fewer than a handful of the words are single tokens of this model.

    Example:
        >>> words = wb.make_lexicon(model, "words")
        >>> found = wb.search(model, wb.answer_log_odds(), contexts, wb.EPO(length=4), wb.Budget(steps=1), lexicon=words)
    """
    runner = runner_for(model)
    allowed = allowed_ids(runner)
    if name == "all":
        return Lexicon(allowed, allowed)
    texts = token_texts(
        runner.tokenizer, [[i] for i in range(min(runner.shape.d_vocab, len(runner.tokenizer)))]
    )
    if name == "latin":
        latin = _mask(allowed, [all(map(_latin, text)) for text in texts])
        if not latin.any():
            raise UserError("no token of this model's vocabulary is in Latin letters: use lexicon: all")
        return Lexicon(latin, latin)
    words = english_words() if name == "words" else _words_of(lexicon_file(name) or Path(name))
    found = _of_words(allowed, texts, words)
    least = FEWEST if name == "words" else 1
    if int(found.first.sum()) < least or int(found.later.sum()) < least:
        count = int((found.first | found.later).sum())
        raise UserError(
            f"{name}: only {count} of {len(words)} words are single tokens of this model: use lexicon: latin or all"
        )
    return found


def readable_lexicon(model: Any) -> Lexicon:
    """`words` where the vocabulary has them, else `latin`, else `all`: the default for models with real vocabularies."""
    for name in NAMES[:2]:
        try:
            return make_lexicon(model, name)
        except UserError:
            continue
    return make_lexicon(model, "all")


@cache
def english_words() -> frozenset[str]:
    """Whole English words in lower case, as a language model continues them."""
    return frozenset(read_text(data_directory("words", "english.txt")).split())


def lexicon_file(name: str | Path) -> Path | None:
    """The file that a study's `search.lexicon` means; None for a name, whatever files are in the working directory.

    Args:
        name: As in `make_lexicon`, or "auto" or "world".

    Returns:
        The path, or None.

    Raises:
        UserError: Neither a name nor a file.

    Example:
        >>> lexicon_file("words") is None  # whatever files are here
        True
    """
    if str(name) in (*NAMES, "auto", "world"):
        return None
    if not Path(name).is_file():
        raise UserError(
            f"lexicon {str(name)!r}: expected {', '.join(NAMES)}, auto, world, or a file of words, one a line"
        )
    return Path(name)


def _words_of(file: Path) -> frozenset[str]:
    words = frozenset(line.strip() for line in read_text(file).splitlines() if line.strip())
    if not words:
        raise UserError(f"{file}: no word in it (expected one a line)")
    return words


def _of_words(allowed: Tensor, texts: Sequence[str], words: frozenset[str]) -> Lexicon:
    """The masks of a list: a word counts as written, and in the list's lower case with its first letter capital."""
    known = words | {word[:1].upper() + word[1:] for word in words}
    bare = _mask(allowed, [text in known for text in texts])
    spaced = _mask(allowed, [text[:1] == " " and text[1:] in known for text in texts])
    points = _mask(allowed, [text in PUNCTUATION for text in texts])
    if not spaced.any():  # a vocabulary of words that are put together with spaces
        return Lexicon(bare, bare | points)
    return Lexicon(bare, spaced | points, spaced)


def _mask(allowed: Tensor, wanted: Sequence[bool]) -> Bool[Tensor, " d_vocab"]:
    mask = torch.zeros_like(allowed)
    mask[: len(wanted)] = torch.tensor(wanted)
    return mask & allowed


@cache
def _latin(letter: str) -> bool:
    return letter.isascii() or unicodedata.name(letter, "").startswith("LATIN ")
