"""Questions rendered around a slot: the values that `contexts` makes and `prompt_tokens` checks prompts in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from workbench.answer_tokens import AnswerBranch, answer_branches
from workbench.html_text import ShowsFacts, ShowsTable
from workbench.personas import Item
from workbench.personas.persona import counterbalanced

Slot = Literal["system", "before_question", "after_question", "answer_opening"]
Metric = Literal["letters", "text"]
Orders = Literal["both", "original", "random"]


@dataclass(frozen=True, repr=False)
class Context(ShowsFacts):
    """One question with everything around it. The ids of the whole are `prefix_ids` + prompt ids + `suffix_ids`.

    Attributes:
        item: The question.
        matching_first: The matching option is the first one shown.
        prefix_text: Text left of the slot.
        suffix_text: Text right of the slot.
        prefix_ids: Ids left of the slot.
        suffix_ids: Ids right of the slot; the last one is the decision token.
        bare_ids: The same question rendered without the slot ("no prompt").
        answers: Ids that follow the decision token, for the matching and the not matching answer.
        weights: What each token of the two answers counts in the answer's score (1 unless a normalization
            says otherwise).
        offsets: Added to the two scores (0 unless a normalization says otherwise).
        branch: Which of the sequences that its answers are read from (`answer_tokens`) this context is; None:
            the context as a whole.
        n_branches: How many such sequences there are.
        lead: White space between `prefix_text` and the prompt that belongs to the prompt's first token, as
            most tokenizers have it.

    Example:
        >>> context = contexts[0]
        >>> context.ids((5, 6)) == (*context.prefix_ids, 5, 6, *context.suffix_ids)
        True
    """

    item: Item
    matching_first: bool
    prefix_text: str
    suffix_text: str
    prefix_ids: tuple[int, ...]
    suffix_ids: tuple[int, ...]
    bare_ids: tuple[int, ...]
    answers: tuple[tuple[int, ...], tuple[int, ...]]
    weights: tuple[float, float] = (1.0, 1.0)
    offsets: tuple[float, float] = (0.0, 0.0)
    branch: int | None = None
    n_branches: int = 1
    lead: str = ""

    def facts(self) -> tuple[str, dict[str, object]]:
        """The question, its answers and the text around the slot."""
        asked = self.item
        item: dict[str, object] = {
            "question": asked.question,
            "matching": asked.matching,
            "not matching": asked.not_matching,
            "group": asked.group,
        }
        return "Context", item | {"left of the prompt": self.prefix_text, "right of it": self.suffix_text}

    def around(self, prompt: str) -> str:
        """The whole text with a prompt's text in the slot."""
        return self.prefix_text + self.lead + prompt + self.suffix_text

    @property
    def one_token(self) -> bool:
        """True where the log-odds are the difference of two logits at the decision token."""
        return (
            all(len(a) == 1 for a in self.answers)
            and self.weights == (1.0, 1.0)
            and self.offsets == (0.0, 0.0)
        )

    @property
    def branches(self) -> tuple[AnswerBranch, ...]:
        """The sequences that its answers are read from."""
        return answer_branches(self.answers, self.weights)

    @property
    def tail(self) -> tuple[int, ...]:
        """Ids that are run after the decision token, to score the answers of this branch."""
        return self._own.tail

    @property
    def reads(self) -> tuple[tuple[int, int, float, float], ...]:
        """What of the answers is read on this branch, multiplied by the number of branches (see `AnswerBranch`)."""
        n = self.n_branches
        return tuple((place, token, n * mine, n * other) for place, token, mine, other in self._own.reads)

    @property
    def _own(self) -> AnswerBranch:
        found = () if self.branch is None else self.branches
        return found[self.branch] if self.branch is not None and self.branch < len(found) else AnswerBranch()

    def sequence(self, prompt_ids: Sequence[int] | None) -> tuple[int, ...]:
        """`ids`, and after them the tail."""
        return (*self.ids(prompt_ids), *self.tail)

    @property
    def after_prompt(self) -> tuple[int, ...]:
        """All ids that are run after the prompt: the suffix and the tail."""
        return (*self.suffix_ids, *self.tail)

    def ids(self, prompt_ids: Sequence[int] | None) -> tuple[int, ...]:
        """Token ids up to and with the decision token; None means "no prompt"."""
        return self.bare_ids if prompt_ids is None else (*self.prefix_ids, *prompt_ids, *self.suffix_ids)


@dataclass(frozen=True, repr=False)
class Contexts(ShowsTable, Sequence[Context]):
    """Contexts of one split for one model, slot and metric; `make_contexts` makes them.

    Attributes:
        items: The contexts.
        slot: Where the prompt is put.
        metric: "letters" or "text".
        split_name: The split they come from.

    Example:
        >>> len(contexts) == len(contexts.groups)
        True
    """

    items: tuple[Context, ...]
    slot: Slot
    metric: Metric
    split_name: str

    def __len__(self) -> int:
        return len(self.items)

    @property
    def _caption(self) -> str:
        kinds = f"{len(self)} contexts in {len(set(self.groups))} groups of {self.split_name}"
        return f"{kinds}: metric {self.metric}, prompt in the slot {self.slot}"

    def shown_table(self) -> tuple[str, pd.DataFrame]:
        """The first five questions."""
        columns = ("question", "matching", "not_matching", "group")
        rows = pd.DataFrame([{name: getattr(c.item, name) for name in columns} for c in self.items[:5]])
        return f"{self._caption}; the first {min(5, len(self))}:", rows

    def __getitem__(self, index: Any) -> Any:
        return replace(self, items=self.items[index]) if isinstance(index, slice) else self.items[index]

    def __iter__(self) -> Iterator[Context]:
        return iter(self.items)

    @property
    def groups(self) -> tuple[str, ...]:
        """The question group of each context: both orders of an item, and all items of a group, are one cluster."""
        return tuple(context.item.group for context in self.items)

    @property
    def shared_prefix(self) -> bool:
        """True where every context has the same ids left of the slot (the system slot): the prompt is then run once."""
        return len({context.prefix_ids for context in self.items}) == 1

    @property
    def branched(self) -> Contexts:
        """The contexts with each one's branches in its place, as many for all: a mean over them is the mean over the contexts.

        The contexts themselves where all answers are single tokens, or where they are branches already.
        """
        if all(c.one_token or c.branch is not None for c in self.items):
            return self
        n = max(len(c.branches) for c in self.items)
        return replace(
            self, items=tuple(replace(c, branch=k, n_branches=n) for c in self.items for k in range(n))
        )

    def take(self, n: int, seed: int = 0) -> Contexts:
        """`n` contexts drawn without replacement (all of them when there are fewer), in their old order."""
        if n >= len(self):
            return self
        rng = np.random.default_rng(seed)
        balanced = self._is_counterbalanced
        drawn = (
            _least_drawn(self.items, rng.permutation(len(self)).tolist())[:n]
            if balanced
            else rng.choice(len(self), size=n, replace=False)
        )
        chosen = np.sort(drawn)
        return replace(self, items=tuple(self.items[i] for i in chosen))

    def per_group(self, n_groups: int, seed: int = 0) -> Contexts:
        """One context from each of n groups, so that few contexts still cover many groups.

        Where answers are counterbalanced, each matching answer comes about as often.
        """
        rng = np.random.default_rng(seed)
        names = sorted(set(self.groups))
        order = rng.permutation(len(names))[:n_groups]
        members = {names[i]: [c for c in self.items if c.item.group == names[i]] for i in order}
        picks = [int(rng.integers(len(group))) for group in members.values()]
        if not self._is_counterbalanced:
            return replace(
                self, items=tuple(group[pick] for group, pick in zip(members.values(), picks, strict=True))
            )
        drawn, chosen = Counter[str](), []
        for group, pick in zip(members.values(), picks, strict=True):
            turned = [*group[pick:], *group[:pick]]
            chosen.append(min(turned, key=lambda context: drawn[context.item.matching]))
            drawn[chosen[-1].item.matching] += 1
        return replace(self, items=tuple(chosen))

    @property
    def _is_counterbalanced(self) -> bool:
        return counterbalanced([context.item for context in self.items])


def _least_drawn(items: Sequence[Context], order: Sequence[int]) -> list[int]:
    """The order, in which the next is always the first whose matching answer was drawn least."""
    drawn, left, found = Counter[str](), [int(i) for i in order], list[int]()
    while left:
        best = min(range(len(left)), key=lambda k: (drawn[items[left[k]].item.matching], k))
        found.append(left.pop(best))
        drawn[items[found[-1]].item.matching] += 1
    return found
