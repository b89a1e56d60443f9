"""Data classes of a persona: contrast items in groups, the form of letter questions, and the four splits.

An item is one question with two answers: the *matching* one shows the persona, the *not matching* one does
not. All classes are frozen; a split holds some of the persona's items and a reference to the persona.
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
from workbench.personas.balanced_draws import balanced_sets, balanced_within_groups_only, tilt
from workbench.personas.group_splits import SPLIT_NAMES, assign_groups, shuffle_key
from workbench.text_forms import canonical, require_whole_text

Metric = Literal["letters", "text"]
Sign = Literal["suppress", "induce"]
#: How the log-probabilities of an answer's tokens are combined into one score: "sum", "mean", "character"
#: (sum divided by the number of characters), or "pmi" (sum minus the same sum after an empty question, the
#: pointwise mutual information of Holtzman et al. 2021).
Normalization = Literal["sum", "mean", "character", "pmi"]


@dataclass(frozen=True)
class Item:
    """One question of a persona with two answers: the matching one shows the persona, the other does not.

    Attributes:
        id: Identifier, unique within its persona.
        question: Text of the question, without options.
        matching: The answer that shows the persona.
        not_matching: The answer that does not show it.
        group: Name of the group of related questions; all items of a group are in the same split.
        responses: Full texts of both answers, the matching one first, if `matching` and `not_matching` are
            only the parts that are scored.
        matching_first: Whether the matching answer was published as the first option; None if no order was
            published.
        source: Where the item comes from, as "file:row" (the first row is 1).
        numbered: Whether the id is only the number of the row; random draws then depend on the item's content
            instead of its id.

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
        """Full texts of the answer that shows the persona and of the other one, also if parts are scored."""
        return self.responses or (self.matching, self.not_matching)

    @property
    def content(self) -> tuple[object, ...]:
        """All parts of the item that a model could see; items with equal content are the same item."""
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
    r"""How a question shows its two options with letters.

    Attributes:
        template: Text with one each of {question}, {a} and {b}.
        opening: Text with which the assistant's answer begins, before the letter.
        letters: Letters of the first and the second option.

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
        """Return the user's text: the question followed by both lettered options.

        Args:
            item: The question with its answers.
            matching_first: Whether the first option is the answer that shows the persona.

        Returns:
            The filled template.
        """
        options = (item.matching, item.not_matching)
        first, second = options if matching_first else options[::-1]
        parts = {"{question}": item.question, "{a}": first, "{b}": second}
        return _fill(self.template, parts)

    def answers(self, matching_first: bool) -> tuple[str, str]:
        """Return the letter of the answer that shows the persona, and the letter of the other answer.

        Args:
            matching_first: Whether the first option is the answer that shows the persona.

        Returns:
            Two letters.
        """
        return self.letters if matching_first else (self.letters[1], self.letters[0])


@dataclass(frozen=True, repr=False)
class Persona:
    """A behaviour, with questions that show whether a model has it and prompts that raise or lower it.

    Attributes:
        name: Name of the persona.
        description: One line about the behaviour.
        items: The questions.
        metric: How answers are scored by default: "letters" (the options are shown with letters, and the
            letter is scored) or "text" (the whole answer is scored).
        letters: How a question shows its options with letters; None if answers can be scored as text only.
        manual_prompts: Prompts that a person would write, for "suppress" and for "induce".
        varied_system_texts: System texts of many kinds, under which a model's choices differ; directions are
            fitted and tested with them.
        true_items: Questions about true statements, in which the answer that agrees counts as `matching`.
        warnings: Problems of the data (balance, length, duplicates), one line each.
        normalization: With the metric "text": whether log-probabilities of tokens are summed, averaged per
            token or per character, or reduced by those after an empty question.

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
        """Number of items in each question group, in order of first appearance."""
        return dict(Counter(item.group for item in self.items))

    @property
    def hash(self) -> str:
        """Hexadecimal sha256 of the items' content.

        It does not depend on the file or the order of its rows.
        """
        return content_hash(self.items)

    def split(
        self, seed: int = 0, fractions: tuple[float, float, float, float] = (0.4, 0.2, 0.2, 0.2)
    ) -> Splits:
        """Split the items into train, search, selection and test so that no group is in two splits.

        Args:
            seed: Seed of the assignment of groups to splits.
            fractions: Fraction of the items that each split shall have.

        Returns:
            The four splits.

        Raises:
            UserError: The groups cannot be split that way (see `group_splits.assign_groups`).
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
    """A named part of a persona's items.

    Attributes:
        name: "train", "search", "selection" or "test".
        items: The questions.
        persona: The persona that they come from.

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
        """Question group of each item; groups are the clusters of all confidence intervals."""
        return tuple(item.group for item in self.items)

    @property
    def n_groups(self) -> int:
        """Number of different question groups in the split."""
        return len(set(self.groups))

    @property
    def hash(self) -> str:
        """Hexadecimal sha256 of the split's items, independent of their order."""
        return content_hash(self.items)

    def take(self, n: int, seed: int = 0) -> Split:
        """Draw at most n items, spread over the groups of related questions, in the file's order.

        With the same seed, the n items drawn are among the n + 1 items drawn. If the groups have answers of
        their own and balance them, as in `suggested_sycophancy`, the items of a group that balance each other are
        drawn together, so n items come from fewer groups.

        Args:
            n: Largest number of items, at least 1.
            seed: Seed of the draw.

        Returns:
            A split with the same name and the drawn items.

        Raises:
            UserError: `n` is below 1.
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
    """The four splits of a persona's questions.

    Directions are fitted to the train split. Prompts are searched for on the search split and chosen on the
    selection split. The test split is evaluated once.

    Attributes:
        train: Questions on which directions and latents are fitted.
        search: Questions that searches optimise prompts on.
        selection: Questions by which one of the found prompts is chosen.
        test: Questions of the final comparison.
    """

    train: Split
    search: Split
    selection: Split
    test: Split

    def __iter__(self) -> Iterator[Split]:
        return iter((self.train, self.search, self.selection, self.test))

    def shown_table(self) -> tuple[str, pd.DataFrame]:
        """Return the caption and the rows of the table that notebooks display for these splits.

        Each row has a split's name, its numbers of items and of groups, and the beginning of its hash.
        """
        rows = [
            {"split": part.name, "items": len(part), "groups": part.n_groups, "hash": part.hash[:8]}
            for part in self
        ]
        return f"Splits of {self.train.persona.name}, by group", pd.DataFrame(rows)


def content_hash(items: Sequence[Item]) -> str:
    """Return the hexadecimal sha256 of the items' content, in any order.

    Texts that are canonically equivalent in Unicode (NFC and NFD) have the same hash.
    """
    lines = sorted(_content_line(item) for item in items)
    return hashlib.sha256("".join(line + "\n" for line in lines).encode()).hexdigest()


def _content_line(item: Item) -> str:
    return unicodedata.normalize("NFC", json.dumps(item.content, ensure_ascii=False))


def _spread(items: Sequence[Item], seed: int) -> list[str]:
    """Return ids in a shuffled order that takes one item of every group before a second one of any group.

    The next item is the one that keeps the answers most balanced, first within its group and then among all
    drawn items; where no two items share an answer, the order stays as shuffled. If a group has answers of its own, the items that balance
    them are taken together, before the next group's.
    """
    shuffled = sorted(items, key=lambda item: (shuffle_key(seed, _draw_name(item)), item.id))
    if balanced_within_groups_only(items):
        in_turn = sorted(shuffled, key=lambda item: (shuffle_key(seed, item.group), item.group))
        return [in_turn[i].id for i in balanced_sets(in_turn)]
    waiting: dict[str, list[Item]] = {}
    for item in shuffled:
        waiting.setdefault(item.group, []).append(item)
    turns = sorted(waiting, key=lambda group: (shuffle_key(seed, group), group))
    found, own, drawn = list[str](), Counter[tuple[str, str]](), Counter[str]()
    for turn in range(max(map(len, waiting.values()), default=0)):
        for group in turns:
            members = waiting[group]
            if turn < len(members):
                rest = range(turn, len(members))
                best = min(rest, key=lambda k: (tilt(own, members[k], group), tilt(drawn, members[k]), k))
                item = members.pop(best)
                members.insert(turn, item)
                own.update({(group, item.matching): 1, (group, item.not_matching): -1})
                drawn.update({item.matching: 1, item.not_matching: -1})
                found.append(item.id)
    return found


def _draw_name(item: Item) -> str:
    return _content_line(item) if item.numbered else item.id


def _fill(template: str, parts: Mapping[str, str]) -> str:
    """Return the template with each mark replaced once; braces within the parts stay unchanged."""
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
