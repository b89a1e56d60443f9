"""Questions rendered around a slot: the values that `contexts` makes and `prompt_tokens` checks prompts in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from workbench.personas import Item

Slot = Literal["system", "before_question", "after_question", "answer_opening"]
Metric = Literal["letters", "text"]
Orders = Literal["both", "original", "random"]


@dataclass(frozen=True)
class Context:
    """One question with everything around it. The ids of the whole are prefix_ids + prompt ids + suffix_ids; the last one
    is the decision token. bare_ids: the same question rendered without the slot ("no prompt"). answers: ids that follow the
    decision token for the matching and the not matching answer. matching_first: the matching option is the first one shown.

    lead: white space between prefix_text and the prompt that belongs to the prompt's first token, as most tokenizers have it: the
    prompt's tokens then begin with it, its text is told without it."""

    item: Item
    matching_first: bool
    prefix_text: str
    suffix_text: str
    prefix_ids: tuple[int, ...]
    suffix_ids: tuple[int, ...]
    bare_ids: tuple[int, ...]
    answers: tuple[tuple[int, ...], tuple[int, ...]]
    lead: str = ""

    def around(self, prompt: str) -> str:
        """The whole text with a prompt's text in the slot."""
        return self.prefix_text + self.lead + prompt + self.suffix_text

    def ids(self, prompt_ids: Sequence[int] | None) -> tuple[int, ...]:
        """Token ids up to and with the decision token; None means "no prompt"."""
        return self.bare_ids if prompt_ids is None else (*self.prefix_ids, *prompt_ids, *self.suffix_ids)


@dataclass(frozen=True)
class Contexts(Sequence[Context]):
    """Contexts of one split for one model, slot and metric."""

    items: tuple[Context, ...]
    slot: Slot
    metric: Metric
    split_name: str

    def __len__(self) -> int:
        return len(self.items)

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

    def take(self, n: int, seed: int = 0) -> Contexts:
        """n contexts drawn without replacement (all of them when there are fewer), in their old order."""
        if n >= len(self):
            return self
        chosen = np.sort(np.random.default_rng(seed).choice(len(self), size=n, replace=False))
        return replace(self, items=tuple(self.items[i] for i in chosen))

    def per_group(self, n_groups: int, seed: int = 0) -> Contexts:
        """One context from each of n groups, so that few contexts still cover many groups."""
        rng = np.random.default_rng(seed)
        names = sorted(set(self.groups))
        order = rng.permutation(len(names))[:n_groups]
        members = {names[i]: [c for c in self.items if c.item.group == names[i]] for i in order}
        return replace(self, items=tuple(group[rng.integers(len(group))] for group in members.values()))
