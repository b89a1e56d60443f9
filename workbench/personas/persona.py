"""What a persona is made of: contrast items with their groups, how letters are asked, and the four splits.

An item is one question with two answers: the *matching* one shows the persona, the *not matching* one does
not. Everything is frozen; a split is a view of the persona's items and knows the persona it came from.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import pandas as pd

from workbench.errors import UserError
from workbench.html_text import ShowsTable, html_facts, html_table
from workbench.personas.group_splits import SPLIT_NAMES, assign_groups, shuffle_key
from workbench.text_forms import canonical, require_whole_text

Metric = Literal["letters", "text"]
Sign = Literal["suppress", "induce"]
#: How a whole text answer's log-probability is made comparable: "sum" over its tokens, "mean" over its
#: tokens, "character": sum over the number of its characters, "pmi": sum minus the same sum after an empty
#: question (pointwise mutual information, Holtzman et al. 2021).
Normalization = Literal["sum", "mean", "character", "pmi"]


@dataclass(frozen=True)
class Item:
    """One question with a matching and a not matching answer.

    Attributes:
        id: Unique in its persona.
        question: Without the options.
        matching: The answer that shows the persona.
        not_matching: The other one.
        group: Items that must stay in one split.
        responses: The full answer texts (matching, not matching) where they are longer than what is scored.
        matching_first: The published order has the matching option first; None where nothing was published.
        source: "file:row", 1 is first.
        numbered: The id is only the row's number, so that draws go by the content and not by it.

    Example:
        >>> persona.items[0].matching != persona.items[0].not_matching
        True
    """

    id: str
    question: str
    matching: str
    not_matching: str
    group: str
    responses: tuple[str, str] | None = None
    matching_first: bool | None = None
    source: str = ""
    numbered: bool = False

    def __post_init__(self) -> None:
        where = self.source or self.id
        for name in ("question", "matching", "not_matching", "group"):
            require_whole_text(getattr(self, name), f"{where}, field {name}")
        for name in ("id", "question", "matching", "not_matching", "group"):
            if not getattr(self, name).strip():
                raise UserError(f"{where}, field {name}: expected text, found an empty one")
        if (canonical(self.matching) or self.matching) == (canonical(self.not_matching) or self.not_matching):
            raise UserError(
                f"{where}: the matching and the not matching answer are the same: {self.matching[:60]!r}"
            )

    @property
    def full_answers(self) -> tuple[str, str]:
        """The full texts of the two answers (matching, not matching), also where only a first word is scored."""
        return self.responses or (self.matching, self.not_matching)

    @property
    def content(self) -> tuple[object, ...]:
        """All that a model could see of the item; equal content is the same item, wherever it came from."""
        return (
            self.question,
            self.matching,
            self.not_matching,
            self.responses,
            self.matching_first,
            self.group,
        )


@dataclass(frozen=True)
class LetterForm:
    r"""How two options are shown with letters.

    Attributes:
        template: Holds {question}, {a} and {b}.
        opening: Starts the answer's turn.
        letters: The two answers.

    Example:
        >>> form = wb.LetterForm("{question}\n(A) {a}\n(B) {b}", "Answer: (", ("A", "B"))
    """

    template: str
    opening: str
    letters: tuple[str, str]

    def __post_init__(self) -> None:
        wrong = ", ".join(mark for mark in ("{question}", "{a}", "{b}") if self.template.count(mark) != 1)
        if wrong:
            raise UserError(
                f"a letter template holds {{question}}, {{a}} and {{b}} once each, unlike {wrong}: {self.template!r}"
            )
        if len(set(self.letters)) != 2 or not all(self.letters):
            raise UserError(f"a letter form needs two different letters, found {self.letters!r}")

    def ask(self, item: Item, matching_first: bool) -> str:
        """The user's text: the question and both options, the matching one as the first or the second."""
        options = (item.matching, item.not_matching)
        first, second = options if matching_first else options[::-1]
        parts = {"{question}": item.question, "{a}": first, "{b}": second}
        return _fill(self.template, parts)

    def answers(self, matching_first: bool) -> tuple[str, str]:
        """The letters of the (matching, not matching) option."""
        return self.letters if matching_first else (self.letters[1], self.letters[0])


@dataclass(frozen=True, repr=False)
class Persona:
    """A behaviour, the items that show it, and the texts that people would write to raise or lower it.

    Attributes:
        name: Of the persona.
        description: One line.
        items: The questions.
        metric: The primary one, "letters" or "text".
        letters: How options are shown with letters; None: only by text.
        manual_prompts: Texts for "suppress" and for "induce".
        varied_system_texts: System texts of varied stance, under which a model's own choices differ.
        true_items: Statements that deserve agreement (matching = agrees), for the dual stance.
        warnings: What the data's reader saw (balance, length, duplicates), one line each.
        normalization: Of whole answers, for the metric "text".

    Example:
        >>> data = persona.split(seed=0)
        >>> [split.name for split in data]
        ['train', 'search', 'selection', 'test']
    """

    name: str
    description: str
    items: tuple[Item, ...]
    metric: Metric
    letters: LetterForm | None
    manual_prompts: Mapping[str, tuple[str, ...]] = field(hash=False)
    varied_system_texts: tuple[str, ...]
    true_items: tuple[Item, ...] = ()
    warnings: tuple[str, ...] = ()
    normalization: Normalization = "mean"

    def __post_init__(self) -> None:
        if self.metric not in ("letters", "text"):
            raise UserError(
                f"persona {self.name!r}: metric must be 'letters' or 'text', found {self.metric!r}"
            )
        if self.normalization not in get_args(Normalization):
            expected = ", ".join(get_args(Normalization))
            raise UserError(
                f"persona {self.name!r}: normalization must be one of {expected}, found {self.normalization!r}"
            )
        if self.metric == "letters" and self.letters is None:
            raise UserError(f"persona {self.name!r}: the metric is 'letters', so a letter form is needed")
        unknown = set(self.manual_prompts) - {"suppress", "induce"}
        if unknown:
            raise UserError(
                f"persona {self.name!r}: manual prompts are for 'suppress' and 'induce', found {sorted(unknown)}"
            )
        if len(self.items) < 2:
            raise UserError(f"persona {self.name!r}: expected at least 2 items, found {len(self.items)}")
        _refuse_repeated_ids(self.name, self.items)

    def __repr__(self) -> str:
        return f"Persona({self.name!r}: {len(self.items)} items in {len(self.group_sizes)} groups, metric {self.metric!r})"

    @property
    def group_sizes(self) -> dict[str, int]:
        """The number of items of each group, in order of first appearance."""
        return dict(Counter(item.group for item in self.items))

    @property
    def hash(self) -> str:
        """sha256 of the items' content, whatever the file and the order of its rows: equal hashes are equal data."""
        return content_hash(self.items)

    def split(
        self, seed: int = 0, fractions: tuple[float, float, float, float] = (0.4, 0.2, 0.2, 0.2)
    ) -> Splits:
        """Four disjoint splits by group (see `splits`); `fractions` are fractions of the items.

        UserError if the groups cannot be split.
        """
        if len(fractions) != len(SPLIT_NAMES):
            raise UserError(
                f"expected {len(SPLIT_NAMES)} split fractions ({', '.join(SPLIT_NAMES)}), found {len(fractions)}"
            )
        assigned = assign_groups(self.group_sizes, fractions, seed, f"persona {self.name!r}")
        parts = [
            tuple(item for item in self.items if assigned[item.group] == i) for i in range(len(SPLIT_NAMES))
        ]
        return Splits(*(Split(name, items, self) for name, items in zip(SPLIT_NAMES, parts, strict=True)))

    def _repr_html_(self) -> str:
        facts = {
            "description": self.description,
            "items": len(self.items),
            "groups": len(self.group_sizes),
            "metric": self.metric,
        }
        return html_facts(facts | {"warnings": "\n".join(self.warnings) or "none"}, caption=self.name)


@dataclass(frozen=True, repr=False)
class Split(Sequence[Item]):
    """Some items of a persona under a name.

    Attributes:
        name: "train", "search", "selection" or "test".
        items: The questions.
        persona: Where they come from.

    Example:
        >>> len(data.test.take(5).items)
        5
    """

    name: str
    items: tuple[Item, ...]
    persona: Persona

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def __repr__(self) -> str:
        return f"Split({self.name!r} of {self.persona.name!r}: {len(self)} items in {self.n_groups} groups)"

    @property
    def groups(self) -> tuple[str, ...]:
        """The group of each item, one entry per item (the clusters of every interval)."""
        return tuple(item.group for item in self.items)

    @property
    def n_groups(self) -> int:
        """How many different groups the split holds."""
        return len(set(self.groups))

    @property
    def hash(self) -> str:
        """sha256 of the items' content, whatever their order."""
        return content_hash(self.items)

    def take(self, n: int, seed: int = 0) -> Split:
        """At most n items, drawn by seed and spread over the groups; the draw of n is part of the draw of n + 1.

        Keeps the file's order.
        """
        if n < 1:
            raise UserError(f"expected at least 1 item to take, found {n}")
        drawn = set(_spread(self.items, seed)[:n])
        return replace(self, items=tuple(item for item in self.items if item.id in drawn))

    def _repr_html_(self) -> str:
        columns = ("id", "group", "question", "matching", "not_matching")
        rows = pd.DataFrame(
            [{name: getattr(item, name) for name in columns} for item in self.items], columns=list(columns)
        )
        caption = f"{self.name} of {self.persona.name}: {len(self)} items in {self.n_groups} groups"
        return html_table(rows, caption, max_rows=8, max_characters=160)


@dataclass(frozen=True, repr=False)
class Splits(ShowsTable):
    """train makes directions, search makes prompts, selection chooses among them, test is read once."""

    train: Split
    search: Split
    selection: Split
    test: Split

    def __iter__(self) -> Iterator[Split]:
        return iter((self.train, self.search, self.selection, self.test))

    def shown_table(self) -> tuple[str, pd.DataFrame]:
        """The caption and the rows."""
        rows = [
            {"split": part.name, "items": len(part), "groups": part.n_groups, "hash": part.hash[:8]}
            for part in self
        ]
        return f"Splits of {self.train.persona.name}, by group", pd.DataFrame(rows)


def content_hash(items: Sequence[Item]) -> str:
    """sha256 (hexadecimal) of what the items say, in any order; canonically equivalent texts (NFC, NFD) hash alike."""
    lines = sorted(_content_line(item) for item in items)
    return hashlib.sha256("".join(line + "\n" for line in lines).encode()).hexdigest()


def _content_line(item: Item) -> str:
    return unicodedata.normalize("NFC", json.dumps(item.content, ensure_ascii=False))


def _spread(items: Sequence[Item], seed: int) -> list[str]:
    """Ids in a shuffled order that visits every group once before any group twice.

    Where every group is counterbalanced, the item comes next that leaves a liking for one answer the least
    effect, on its group and then on all that are drawn.
    """
    waiting: dict[str, list[Item]] = {}
    for item in sorted(items, key=lambda item: (shuffle_key(seed, _draw_name(item)), item.id)):
        waiting.setdefault(item.group, []).append(item)
    balanced = all(map(counterbalanced, waiting.values()))
    turns, found, own = (
        sorted(waiting, key=lambda group: (shuffle_key(seed, group), group)),
        list[str](),
        Counter[tuple[str, str]](),
    )
    drawn = Counter[str]()
    for turn in range(max(map(len, waiting.values()), default=0)):
        for group in turns:
            members = waiting[group]
            if turn < len(members):
                rest = range(turn, len(members)) if balanced else [turn]
                best = min(rest, key=lambda k: (_tilt(own, members[k], group), _tilt(drawn, members[k]), k))
                item = members.pop(best)
                members.insert(turn, item)
                own.update({(group, item.matching): 1, (group, item.not_matching): -1})
                drawn.update({item.matching: 1, item.not_matching: -1})
                found.append(item.id)
    return found


def _tilt(counts: Mapping[Any, int], item: Item, group: str | None = None) -> int:
    """By how much an item increases what a liking for an answer does to the sum; counts: times an answer matched minus times it did not."""
    m, n = (
        (item.matching, item.not_matching)
        if group is None
        else ((group, item.matching), (group, item.not_matching))
    )
    return abs(counts[m] + 1) - abs(counts[m]) + abs(counts[n] - 1) - abs(counts[n])


def counterbalanced(items: Sequence[Item]) -> bool:
    """Whether every answer is the matching one as often as it is the other one, so that a liking for it cancels over the items."""
    return bool(items) and Counter(item.matching for item in items) == Counter(
        item.not_matching for item in items
    )


def _draw_name(item: Item) -> str:
    return _content_line(item) if item.numbered else item.id


def _fill(template: str, parts: Mapping[str, str]) -> str:
    """The template with its marks replaced once; braces inside a part stay as they are."""
    places = sorted((template.index(mark), mark) for mark in parts)
    text, end = "", 0
    for start, mark in places:
        text += template[end:start] + parts[mark]
        end = start + len(mark)
    return text + template[end:]


def _refuse_repeated_ids(name: str, items: Sequence[Item]) -> None:
    repeated = [
        item_id
        for item_id, count in Counter(canonical(item.id) or item.id for item in items).items()
        if count > 1
    ]
    if repeated:
        raise UserError(
            f"persona {name!r}: every item needs an id of its own, found {repeated[0]!r} more than once"
        )
