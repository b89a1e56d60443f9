"""Draw labelled activations from a split: which items, in which option orders, under which system texts."""

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
from workbench.personas.varied_texts import distinct_texts
from workbench.prompt_tokens import encode_prompt

#: Number of varied system texts held out for testing; no direction or latent is fitted to them.
TESTING_TEXTS = 32
#: Smallest number of texts under which each item appears in own-choice data, so that the effects of texts can
#: be separated from those of items.
TEXTS_PER_ITEM = 3


@dataclass(frozen=True)
class ActivationSampler:
    """Settings that all draws of activations in one analysis share: model, layers, and how chats are built.

    Attributes:
        runner: Runner of the model.
        layers: Layers whose outputs are read.
        slot: The place in the chat where system texts go, such as the system message.
        seed: Seed of the draws of questions and texts.
        orders: Orders in which the two options of a question are shown: "both", so that the effect of the
            letter cancels, or "original", as published.
    """

    runner: Runner
    layers: Sequence[int]
    slot: Slot = "system"
    seed: int = 0
    orders: Orders = "both"

    def labelled(
        self, split: Split, labels: Labels, n: int, texts: Sequence[str] | None = None
    ) -> LabelledActivations:
        """Run the model on questions of a split and return labelled activations, about n rows.

        A row is one sequence of tokens that the model was run on, with a score that is positive if it shows
        the persona.

        Args:
            split: Questions to draw from.
            labels: What is scored. "choice": the model's own log-odds; "choice_within": the same, with each
                question's mean subtracted; "answer": +1 for the question with the answer that shows the
                persona, -1 for the other one; "response": the same for whole responses.
            n: Approximate number of rows.
            texts: System texts under which the model chooses ("choice" and "choice_within" only). None for
                the persona's varied texts, without those that are held out for testing.

        Returns:
            Activations [n, d_model] at each layer, with one score per row.

        Raises:
            UserError: The labels are unknown.
        """
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
        """Run the same questions without a system text and under each system text.

        Args:
            split: Questions to draw the contexts from.
            texts: System texts.
            n_contexts: Number of questions, with their option orders, under each text.

        Returns:
            Activations before the answer, one row per question and text, those without a text first. The
            scores are the model's own log-odds of the answer that shows the persona.
        """
        contexts = self._contexts(split, max(1, n_contexts // self._orders(split)))
        prompts = [None, *(encode_prompt(self.runner, contexts, text) for text in texts)]
        rows = [p for p in prompts for _ in contexts]
        return own_choices(self.runner, [*contexts] * len(prompts), rows, self.layers)

    def _contexts(self, split: Split, n_items: int) -> Contexts:
        return make_contexts(self.runner, split, self.slot, None, self.orders, n_items, self.seed)

    def _orders(self, split: Split) -> int:
        return 1 if split.persona.metric == "text" or self.orders != "both" else 2

    def _own_choices(self, split: Split, texts: Sequence[str], n: int) -> LabelledActivations:
        """Draw items in turn, in all option orders, each under a text drawn by seed (or under none).

        The number of items is limited so that each can appear under several texts.
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
    """Split distinct system texts at random into texts to fit directions with and texts to test them on.

    Args:
        texts: System texts.
        n_testing: Largest number of texts to test on; at most half of the texts are used for it.
        seed: Seed of the split.

    Returns:
        The texts for fitting and the texts for testing.

    Raises:
        UserError: There are fewer than 8 distinct texts.
    """
    distinct = distinct_texts(texts)
    order = np.random.default_rng(seed).permutation(len(distinct))
    n_testing = min(n_testing, len(distinct) // 2)
    return [distinct[i] for i in order[n_testing:]], [distinct[i] for i in order[:n_testing]]
