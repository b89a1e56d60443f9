"""Drawing labelled activations from a split: which items, in which orders, under which system texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workbench.contexts import Contexts, Orders, Slot, make_contexts
from workbench.directions.direction_method import Labels
from workbench.directions.labelled_activations import (
    LabelledActivations,
    answer_pairs,
    own_choices,
    responses,
    within_contexts,
)
from workbench.errors import UserError
from workbench.models import Runner
from workbench.personas import Split
from workbench.prompt_tokens import encode_prompt

#: Varied system texts that are kept back for testing, so that no direction or latent is made from them.
TESTING_TEXTS = 32
#: Under how many texts an item should appear at least in own-choice data, so that the texts' effect shows
#: next to the item's.
TEXTS_PER_ITEM = 3


@dataclass(frozen=True)
class ActivationSampler:
    """What all drawings of one analysis share.

    The model, the layers that are read, the slot of the system texts, the seed, and the orders in which
    options are shown ("both", so that the letter cancels, or "original", as published).
    """

    runner: Runner
    layers: Sequence[int]
    slot: Slot = "system"
    seed: int = 0
    orders: Orders = "both"

    def labelled(
        self, split: Split, labels: Labels, n: int, texts: Sequence[str] | None = None
    ) -> LabelledActivations:
        """Activations and labels of about n rows of a split. texts: system texts for own choices; the persona's fitting texts when None."""
        if labels == "answer":
            contexts = self._contexts(split, max(2, n // (2 * self._orders(split))))
            return answer_pairs(self.runner, contexts, self.layers)
        if labels == "response":
            return responses(self.runner, split.take(max(2, n // 2), self.seed), self.layers)
        if labels not in ("choice", "choice_within"):
            raise UserError(f"unknown labels {labels!r}: expected choice, choice_within, answer or response")
        if texts is None:
            texts, _ = deal_texts(split.persona.varied_system_texts, TESTING_TEXTS, self.seed)
        data = self._own_choices(split, texts, n)
        return data if labels == "choice" else within_contexts(data)

    def under_each(self, split: Split, texts: Sequence[str], n_contexts: int) -> LabelledActivations:
        """The same contexts bare and under each text: rows text by text, the bare ones first."""
        contexts = self._contexts(split, max(1, n_contexts // self._orders(split)))
        prompts = [None, *(encode_prompt(self.runner, contexts, text) for text in texts)]
        rows = [p for p in prompts for _ in contexts]
        return own_choices(self.runner, [*contexts] * len(prompts), rows, self.layers)

    def _contexts(self, split: Split, n_items: int) -> Contexts:
        return make_contexts(self.runner, split, self.slot, None, self.orders, n_items, self.seed)

    def _orders(self, split: Split) -> int:
        return 1 if split.persona.metric == "text" or self.orders != "both" else 2

    def _own_choices(self, split: Split, texts: Sequence[str], n: int) -> LabelledActivations:
        """Items in turn, in all option orders, each item under a text drawn by seed (or under none).

        No more items than can each appear under several texts.
        """
        contexts = self._contexts(split, max(2, n // (TEXTS_PER_ITEM * self._orders(split))))
        prompts = [None, *(encode_prompt(self.runner, contexts, text) for text in texts)]
        rng = np.random.default_rng(self.seed)
        by_item: dict[str, list[int]] = {}
        for i, context in enumerate(contexts):
            by_item.setdefault(context.item.id, []).append(i)
        items, rows = list(by_item.values()), []
        while len(rows) < n:
            for k in rng.permutation(len(items)):
                drawn = prompts[rng.integers(len(prompts))]
                rows.extend((i, drawn) for i in items[k])
        rows = rows[:n]
        return own_choices(self.runner, [contexts[i] for i, _ in rows], [p for _, p in rows], self.layers)


def deal_texts(texts: Sequence[str], n_testing: int, seed: int) -> tuple[list[str], list[str]]:
    """Distinct texts dealt by seed into (fitting, testing): at most half and at most n_testing go to testing."""
    distinct = list(dict.fromkeys(text.strip() for text in texts if text.strip()))
    if len(distinct) < 8:
        found = f"the persona has {len(distinct)} varied system texts"
        raise UserError(f"{found}: at least 8 are needed, half to fit and half to test on")
    order = np.random.default_rng(seed).permutation(len(distinct))
    n_testing = min(n_testing, len(distinct) // 2)
    return [distinct[i] for i in order[n_testing:]], [distinct[i] for i in order[:n_testing]]
