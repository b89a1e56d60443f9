"""A prompt as words: what a person would delete or exchange, whatever the tokenizer makes of it.

1. A word is a run of characters without white space; a letter of a script that writes none (Han, kana) is a
   word of its own.
2. Its *core* leaves out punctuation at either end. An exchange puts another core between the same
   punctuation; a deletion takes the word and the white space before it, and hands its full stop or comma to
   the word on its left if that has none.
3. Every edit is an edit of the text, which is then encoded in place: tokens are never moved about, so what is
   measured is what a reader gets who makes the edit.
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
    """One word. space: white space before it; head, core, tail: opening punctuation, what is exchanged, closing punctuation."""

    space: str
    head: str
    core: str
    tail: str

    @property
    def text(self) -> str:
        """Its text in the prompt."""
        return self.head + self.core + self.tail

    @property
    def stop(self) -> str:
        """The closing punctuation that ends a clause, without brackets and quotation marks."""
        return "".join(character for character in self.tail if character in _STOPS)


@dataclass(frozen=True)
class WordPiece:
    """A stretch of a text with tracked changes: kept, removed (old) or inserted (new)."""

    kind: Literal["kept", "old", "new"]
    text: str


@dataclass(frozen=True)
class PromptWords:
    """The words of a prompt, in order."""

    items: tuple[PromptWord, ...]

    @classmethod
    def of(cls, text: str) -> PromptWords:
        """Cuts a text. UserError where it holds no word."""
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
        """Each word as it is in the prompt."""
        return tuple(word.text for word in self.items)

    def only(self, kept: Collection[int]) -> str:
        """The text with only these words."""
        return self.edited({i: None for i in range(len(self)) if i not in kept})

    def edited(self, changes: Changes) -> str:
        """The text with some cores exchanged, and the words deleted whose change is None."""
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
        """The edited text left of a word, with the opening punctuation that touches it."""
        shortened = PromptWords(self.items[:index]).edited(
            {i: change for i, change in changes.items() if i < index}
        )
        word = self.items[index]
        return shortened + (word.space + word.head if shortened and word.head else word.head)

    def tracked(self, changes: Changes) -> tuple[WordPiece, ...]:
        """The text as pieces that are kept, removed or inserted; white space is kept, and neighbouring pieces of one kind are joined."""
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
