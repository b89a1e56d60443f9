"""The tokens that a search may use (`words`, `latin`, `all` or a file), as masks over the vocabulary.

Most tokens of a real vocabulary are pieces of words, in many scripts, and prompts made of them are
unreadable. A lexicon restricts a search to readable tokens:

1. `words`: whole English words of one token, and punctuation. The first token of a prompt has no space before
   it (unless the chat template leaves its space to the prompt), and every later word has one, so that words
   are always separated.
2. `latin`: all tokens in Latin letters, digits and ASCII punctuation, including pieces of words.
3. `all`: all tokens that a prompt may contain (`allowed_ids`).
4. A file: its words, one per line, with the rule of `words`.

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
#: Fewest single-token English words with which the lexicon `words` can be used.
FEWEST = 200


@dataclass(frozen=True)
class Lexicon:
    """The tokens that a search may use in prompts, as masks over the model's vocabulary.

    Attributes:
        first: bool [d_vocab], tokens that may begin a prompt.
        later: bool [d_vocab], tokens that may follow the first one.
        spaced: bool [d_vocab], tokens that may begin a prompt if the chat template's space before it belongs
            to the prompt's first token. None: the same as `first`.

    Example:
        >>> words = wb.make_lexicon(model, "words")
        >>> words.first.shape[0] == wb.runner_for(model).shape.d_vocab
        True
    """

    first: Bool[Tensor, " d_vocab"]
    later: Bool[Tensor, " d_vocab"]
    spaced: Bool[Tensor, " d_vocab"] | None = None

    def begin(self, lead: str) -> Bool[Tensor, " d_vocab"]:
        """Return the mask of the tokens that may begin a prompt.

        Args:
            lead: White space before the prompt that the tokenizer makes part of the prompt's first token: " "
                or "".
        """
        return self.first if not lead or self.spaced is None else self.spaced


def make_lexicon(model: Any, name: str | Path) -> Lexicon:
    """Build a lexicon, the set of tokens that a search may use, from its name or a file of words.

    Args:
        model: A loaded model or its runner.
        name: "words" (whole English words, separated by spaces), "latin" (tokens in Latin letters), "all"
            (every token that a prompt may contain), or the path of a file with one word per line.

    Returns:
        Two masks over the vocabulary: the tokens that may begin a prompt, and those that may follow.

    Raises:
        UserError: The file does not exist, or too few of the words are single tokens of this model.

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
    """Return the most readable lexicon (tokens that a prompt may contain) that the vocabulary allows.

    It is `words` (whole English words), else `latin` (tokens in Latin letters), else `all`. It is the default
    for models with a real vocabulary.
    """
    for name in NAMES[:2]:
        try:
            return make_lexicon(model, name)
        except UserError:
            continue
    return make_lexicon(model, "all")


@cache
def english_words() -> frozenset[str]:
    """Return whole English words in lower case, read from data/words/english.txt."""
    return frozenset(read_text(data_directory("words", "english.txt")).split())


def lexicon_file(name: str | Path) -> Path | None:
    """Return the file that a study's setting `search.lexicon` names, or None for a named lexicon.

    Args:
        name: A name of a lexicon ("words", "latin", "all", "auto" or "world") or the path of a file of words.
            A known name is never read as a file, even if a file of that name exists.

    Returns:
        The path of the file; None for a name.

    Raises:
        UserError: `name` is neither a known name nor a file.

    Example:
        >>> lexicon_file("words") is None  # even if a file has this name
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
    """Build the masks of a word list; a word counts as written and with its first letter as a capital."""
    known = words | {word[:1].upper() + word[1:] for word in words}
    bare = _mask(allowed, [text in known for text in texts])
    spaced = _mask(allowed, [text[:1] == " " and text[1:] in known for text in texts])
    points = _mask(allowed, [text in PUNCTUATION for text in texts])
    if not spaced.any():  # the tokenizer joins whole words with spaces: no token begins with one
        return Lexicon(bare, bare | points)
    return Lexicon(bare, spaced | points, spaced)


def _mask(allowed: Tensor, wanted: Sequence[bool]) -> Bool[Tensor, " d_vocab"]:
    mask = torch.zeros_like(allowed)
    mask[: len(wanted)] = torch.tensor(wanted)
    return mask & allowed


@cache
def _latin(letter: str) -> bool:
    return letter.isascii() or unicodedata.name(letter, "").startswith("LATIN ")
