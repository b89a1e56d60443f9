"""The form of a sentence: its openings, allowed characters and endings, from sentence_frames.yaml."""

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
#: Two words count as equal if this many first letters are equal.
_STEM = 6


@dataclass(frozen=True)
class Template:
    """A sentence with gaps for words, such as "You are a {} {}.".

    Attributes:
        variants: The texts with `{}` for each gap. They differ in a word that depends on the word in the gap
            ("a", "an").
        gaps: For each gap, the kind of word that fits, such as adjective ("" for any).
    """

    variants: tuple[str, ...]
    gaps: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, language: str) -> Template:
        """Parse one sentence template from sentence_frames.yaml.

        The text "You are {a|an} {adjective} {noun}." has two variants (a, an) and two gaps.

        Args:
            text: The template's line in the file.
            language: Name of the template's language, which is put before the kinds of words ("en:noun").
        """
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
    """Rules for whole sentences of some languages, with beginnings and templates of sentences.

    Attributes:
        openings: Beginnings of sentences.
        slots: Sentence templates with gaps for words.
        kinds: For each kind of word (such as noun), texts after which such a word is likely.
        joins: Texts that link two words of a list, such as " and".
        never_last: Words that leave a sentence unfinished if they are last.
        abbreviations: Words whose full stop does not end a sentence.
        sentences: Largest number of sentences in one prompt.
        roles: Per language, a pair of texts that introduce a description of a good and of an evil assistant.
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
        """Whether a text consists of whole sentences, from one up to `sentences` of them.

        A whole sentence begins with a capital letter (if the script has capitals), has only letters and plain
        punctuation, has at least two words, and does not end in a word such as "the" or an abbreviation. In
        the text no word occurs twice (words are compared by their first six letters).

        Args:
            text: Text of a prompt.
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
    """Return a template's text left of its first gap, such as "You are a" for "You are a {} {}."."""
    return text.partition("{}")[0].rstrip()


def split_sentences(text: str) -> list[str]:
    """Split a text into sentences, each with its ending; a remainder without an ending is the last entry."""
    return [part for part in re.split(rf"(?<=[{re.escape(ENDINGS)}])\s+", text.strip()) if part]


def words_of(text: str) -> list[str]:
    """Return the words of a text, without punctuation."""
    return _WORD.findall(text)


def repeats(text: str) -> bool:
    """Whether a text repeats a word.

    Words of four letters or more are compared by their first six letters; any word counts if it occurs twice
    in a row.
    """
    words = [word.casefold() for word in words_of(text)]
    long = [word[:_STEM] for word in words if len(word) >= 4]
    return len(long) != len(set(long)) or any(a == b for a, b in itertools.pairwise(words))


def load_form(
    languages: Sequence[str], openings: Sequence[str] | None = None, sentences: int = 3
) -> SentenceForm:
    """Load the rules, beginnings and templates of sentences of some languages from sentence_frames.yaml.

    Args:
        languages: Names of languages in the file.
        openings: Your own beginnings of sentences instead of the file's (there are then no templates).
        sentences: Largest number of sentences in one prompt.

    Raises:
        UserError: A language is unknown, or there is no opening or an empty one.
    """
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
    """Whether a word has capitals inside or stray hyphens, or is a long word in capitals."""
    core = word.strip("'\u2019-")
    return (
        core != word or not core or (core[1:] != core[1:].lower() and not (core.isupper() and len(core) <= 3))
    )
