"""The form of a sentence: how it may begin, which characters it may hold, how it must end. All of it is data (sentence_frames.yaml)."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from workbench.errors import UserError
from workbench.runs import parse_yaml

#: Characters that end a sentence, in several scripts.
ENDINGS = ".!?\u3002\uff01\uff1f\u0964\u061f"
_INNER = " ,;'\u2019-\u3001\uff0c\u060c" + ENDINGS
_WORD = re.compile(r"[^\s" + re.escape(_INNER.replace("'", "").replace("\u2019", "").replace("-", "")) + "]+")
#: Two words are one when this many first letters agree.
_STEM = 6


@dataclass(frozen=True)
class Template:
    """A sentence with gaps.

    variants: its texts, alike but for a word that goes with the gap's ("a", "an"), with `{}` for each gap.
    gaps: the kind of word of each ("" takes any).
    """

    variants: tuple[str, ...]
    gaps: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, language: str) -> Template:
        """A line of sentence_frames.yaml: "You are {a|an} {adjective} {noun}." has two variants and two gaps."""
        choices = [
            part[1:-1].split("|") if "|" in part else [part] for part in re.split(r"(\{[^{}]*\})", text)
        ]
        gaps = tuple(
            f"{language}:{part[1:-1]}" if part != "{}" else ""
            for (part, *more) in choices
            if part[:1] == "{" and not more
        )
        texts = (
            "".join("{}" if part[:1] == "{" else part for part in parts)
            for parts in itertools.product(*choices)
        )
        return cls(tuple(texts), gaps)


@dataclass(frozen=True)
class SentenceForm:
    """Which texts count as whole sentences, and how sentences may begin.

    openings: how sentences may begin. slots: templates with gaps for words. kinds: left contexts of each kind
    of word. joins: what links two words of a list. never_last: words that leave a sentence unfinished.
    abbreviations: words whose full stop ends nothing. sentences: at most so many in one prompt. roles: per
    language, what announces the behaviour of a good assistant and of an evil one.
    """

    openings: tuple[str, ...]
    slots: tuple[Template, ...]
    kinds: Mapping[str, tuple[str, ...]]
    joins: tuple[str, ...]
    never_last: frozenset[str]
    abbreviations: frozenset[str]
    sentences: int = 3
    roles: tuple[tuple[str, str], ...] = ()

    def accepts(self, text: str) -> bool:
        """True for one to `sentences` whole sentences.

        A capital first (where the script has any), only letters and plain punctuation, at least two words, a
        proper last word, no word (or its first six letters) twice.
        """
        parts = split_sentences(text)
        if not 1 <= len(parts) <= self.sentences or any(not _plain(ch) for ch in text) or "  " in text:
            return False
        return all(self._whole(part) for part in parts) and not repeats(text)

    def _whole(self, sentence: str) -> bool:
        words, body = words_of(sentence), sentence.rstrip(ENDINGS)
        if (
            len(sentence) - len(body) != 1
            or not body
            or not body[-1].isalnum()
            or body[0].islower()
            or not body[0].isalpha()
        ):
            return False
        if len(words) < 2 and len(body) < 6:
            return False
        if re.search(r"[,;]\s*[,;]|\s[,;.!?]", sentence) or any(_odd(word) for word in words):
            return False
        last = words[-1].casefold()
        return (
            last not in self.never_last
            and last not in self.abbreviations
            and (len(last) > 1 or not last.isascii())
        )


def left_of_gap(text: str) -> str:
    """The text left of a template's first gap: "You are a" of "You are a {} {}."."""
    return text.partition("{}")[0].rstrip()


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, each with its ending; a rest without one is the last entry."""
    return [part for part in re.split(rf"(?<=[{re.escape(ENDINGS)}])\s+", text.strip()) if part]


def words_of(text: str) -> list[str]:
    """The words, without punctuation."""
    return _WORD.findall(text)


def repeats(text: str) -> bool:
    """True where a word of four letters or more comes twice (by its first six letters), or any word twice running."""
    words = [word.casefold() for word in words_of(text)]
    long = [word[:_STEM] for word in words if len(word) >= 4]
    return len(long) != len(set(long)) or any(a == b for a, b in itertools.pairwise(words))


def load_form(
    languages: Sequence[str], openings: Sequence[str] | None = None, sentences: int = 3
) -> SentenceForm:
    """The form of some languages of sentence_frames.yaml. openings: one's own in place of the file's (slots are then left out)."""
    table = parse_yaml(
        files("workbench.search.sentence_writing")
        .joinpath("sentence_frames.yaml")
        .read_text(encoding="utf-8"),
        "sentence_frames.yaml",
    )
    unknown = [name for name in languages if name not in table]
    if unknown or not languages:
        raise UserError(
            f"no sentence frames for the language {', '.join(unknown) or '(none given)'}: there are {', '.join(table)}"
        )

    def joined(key: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(str(entry) for name in languages for entry in table[name][key]))

    own = tuple(openings) if openings is not None else joined("openings")
    if not own or any(not opening.strip() for opening in own):
        raise UserError("a search over sentences needs at least one opening, and none of them empty")
    slots = (
        tuple(Template.parse(str(text), name) for name in languages for text in table[name]["slots"])
        if openings is None
        else ()
    )
    kinds = {
        f"{name}:{kind}": tuple(map(str, texts))
        for name in languages
        for kind, texts in table[name].get("kinds", {}).items()
    }
    roles = tuple(
        (str(table[name]["roles"][0]), str(table[name]["roles"][1]))
        for name in languages
        if "roles" in table[name]
    )
    return SentenceForm(
        own,
        slots,
        kinds,
        joined("joins"),
        frozenset(joined("never_last")),
        frozenset(joined("abbreviations")),
        sentences,
        roles,
    )


def _plain(ch: str) -> bool:
    return ch.isalpha() or ch in _INNER or unicodedata.category(ch)[0] == "M"


def _odd(word: str) -> bool:
    """Capitals in the middle of a word; a word all of capitals longer than an abbreviation; stray hyphens."""
    core = word.strip("'\u2019-")
    return (
        core != word or not core or (core[1:] != core[1:].lower() and not (core.isupper() and len(core) <= 3))
    )
