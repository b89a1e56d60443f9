"""A prompt as words that a person would delete or exchange, independent of the tokenizer.

1. A word is a run of characters without white space. A letter of a script without spaces (Han, kana) is one
   word.
2. The *core* of a word excludes punctuation at either end. An exchange puts another core between the same
   punctuation. A deletion removes the word and the white space before it; its full stop or comma moves to the
   word before if that has none.
3. Every edit changes the text, which is then tokenized in place. So the measurement is of the text that a
   person would get by making the edit.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from workbench.errors import UserError

Changes = Mapping[int, str | None]
_UNSPACED = "\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_STOPS = ".,;:!?…。、！？"  # noqa: RUF001 (full-width signs are meant)
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_PARTS = re.compile(r"^(\W*)(.*?)(\W*)$", re.DOTALL)


@dataclass(frozen=True)
class PromptWord:
    """One word of a prompt.

    Attributes:
        space: White space before the word.
        head: Opening punctuation.
        core: The word without punctuation, which an edit may exchange.
        tail: Closing punctuation.
    """

    space: str
    head: str
    core: str
    tail: str

    @property
    def text(self) -> str:
        """The word with its punctuation, as in the prompt."""
        return self.head + self.core + self.tail

    @property
    def stop(self) -> str:
        """Closing punctuation that ends a clause, without brackets and quotation marks."""
        return "".join(character for character in self.tail if character in _STOPS)


@dataclass(frozen=True)
class WordPiece:
    """A piece of a text with tracked changes.

    Attributes:
        kind: "kept", "old" (deleted) or "new" (inserted).
        text: The text of the piece.
    """

    kind: Literal["kept", "old", "new"]
    text: str


@dataclass(frozen=True)
class PromptWords:
    """A prompt, cut into words.

    Attributes:
        items: The words in order.
    """

    items: tuple[PromptWord, ...]

    @classmethod
    def of(cls, text: str) -> PromptWords:
        """Cut a text into words.

        Raises:
            UserError: The text contains no word.
        """
        text, end, found = text.strip(), 0, []
        for match in _WORD.finditer(text):
            parts = _PARTS.match(match.group())
            head, core, tail = parts.groups() if parts and parts[2] else ("", match.group(), "")
            found.append(PromptWord(text[end : match.start()], head, core, tail))
            end = match.end()
        if not found:
            raise UserError("an empty prompt: expected at least one word to audit")
        return cls(tuple(found))

    def __len__(self) -> int:
        return len(self.items)

    @property
    def texts(self) -> tuple[str, ...]:
        """Each word with its punctuation, as in the prompt."""
        return tuple(word.text for word in self.items)

    def only(self, kept: Collection[int]) -> str:
        """Return the text that contains only the words at the given indices."""
        return self.edited({i: None for i in range(len(self)) if i not in kept})

    def edited(self, changes: Changes) -> str:
        """Return the text with some words exchanged or deleted.

        Args:
            changes: New word (without punctuation) by the index of the old one; None deletes the word.
        """
        written: list[str] = []
        bare = False  # the last written word has no closing punctuation
        for i, word in enumerate(self.items):
            if i in changes and changes[i] is None:
                if bare and word.stop:
                    written[-1] += word.stop
                    bare = False
                continue
            core = changes.get(i) or word.core
            written.append((word.space if written else "") + word.head + core + word.tail)
            bare = not word.tail
        return "".join(written)

    def left_of(self, index: int, changes: Changes) -> str:
        """Return the edited text before a word, including the opening punctuation of that word.

        Args:
            index: Index of the word.
            changes: Replacement by the index of a word before it; None deletes the word.
        """
        shortened = PromptWords(self.items[:index]).edited(
            {i: change for i, change in changes.items() if i < index}
        )
        word = self.items[index]
        return shortened + (word.space + word.head if shortened and word.head else word.head)

    def tracked(self, changes: Changes) -> tuple[WordPiece, ...]:
        """Return the edited text as tracked changes: pieces that are kept, deleted or inserted.

        White space is kept, and neighbouring pieces of one kind are joined.

        Args:
            changes: New word (without punctuation) by the index of the old one; None deletes the word.
        """
        pieces: list[WordPiece] = []

        def add(kind: Literal["kept", "old", "new"], text: str) -> None:
            if text and pieces and pieces[-1].kind == kind:
                pieces[-1] = WordPiece(kind, pieces[-1].text + text)
            elif text:
                pieces.append(WordPiece(kind, text))

        bare = False
        for i, word in enumerate(self.items):
            add("kept", word.space)
            if i not in changes:
                add("kept", word.text)
            elif changes[i] is None:
                stays = bare and word.stop == word.tail
                add("old", word.text if not stays else word.head + word.core)
                add("kept", word.stop if stays else "")
                bare = bare and not word.stop
                continue
            else:
                add("kept", word.head)
                add("old", word.core)
                add("new", changes[i] or "")
                add("kept", word.tail)
            bare = not word.tail
        return tuple(pieces)
