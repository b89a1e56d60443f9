"""Test whether data support a direction at all: a permutation test of the held-out AUC.

1. Each context is followed by its matching and by its not matching answer, and activations are read at the
   answer's last token (in both option orders, so that the letter cancels). The direction is the mean
   difference of the train rows; its AUC is measured on rows of held-out groups.
2. Under the null hypothesis the two answers of an item are exchangeable. So the answers of each item are
   exchanged at random, in train and held-out data alike, and direction and AUC are computed again,
   `permutations` times. p = (1 + number of AUCs at least as far from one half) / (permutations + 1). Both
   option orders of an item are exchanged together, because they are not independent. A small p says that the
   answers of unseen groups differ along one direction. It does not say that the direction causes the answers:
   length or wording can differ too, so the correlation with length is reported as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from workbench.directions.activation_sampling import ActivationSampler
from workbench.directions.direction_quality import auc, length_correlation
from workbench.errors import UserError
from workbench.models import runner_for
from workbench.personas import Persona


@dataclass(frozen=True, repr=False)
class DirectionPermutationTest:
    """Result of a permutation test of whether a direction separates a persona's two kinds of answers.

    Attributes:
        layer: Layer whose output was read.
        auc: AUC with which the direction, fitted to train questions, separates the answers to held-out
            questions.
        p: Two-sided p-value: the fraction of permutations whose AUC is at least as far from 0.5.
        null: AUCs after the labels of the two answers were exchanged at random.
        n_train: Number of train questions.
        n_held_out: Number of held-out questions.
        length: Spearman correlation of the held-out answers' projections with their numbers of tokens; nan if
            all answers are equally long.
    """

    layer: int
    auc: float
    p: float
    null: Float[np.ndarray, " permutation"]
    n_train: int
    n_held_out: int
    length: float

    @property
    def verdict(self) -> str:
        """Whether there is evidence of a direction for the persona, in one sentence with AUC and p-value."""
        low, high = np.percentile(self.null, [2.5, 97.5])
        p = "< 0.001" if self.p < 0.001 else f"= {self.p:.3f}"
        tail = f"(permuted labels: {low:.2f} to {high:.2f}, p {p}, {self.n_held_out} held-out items)"
        if self.p > 0.05:
            return f"no direction: at layer {self.layer} the held-out AUC is {self.auc:.2f} {tail}"
        return f"the two answers differ along one direction: at layer {self.layer} the held-out AUC is {self.auc:.2f} {tail}"

    def __repr__(self) -> str:
        return self.verdict

    def added_to(self, table: pd.DataFrame) -> pd.DataFrame:
        """Append the AUC, its p-value and the correlation with answer length to the table of `check_persona`.

        Args:
            table: The table of a persona's check, one row per figure.

        Returns:
            A new table.
        """
        length = "equally long" if np.isnan(self.length) else f"{self.length:+.2f}"
        rows = [
            (
                "held-out AUC",
                f"{self.auc:.3f}",
                f"of the mean difference at layer {self.layer}, {self.n_held_out} items of unseen groups",
            ),
            (
                "permutation p",
                f"{self.p:.4f}",
                f"{len(self.null)} times with the answers of each item exchanged at random",
            ),
            (
                "reading and length",
                length,
                "rank correlation with the answer's tokens; near 1 or -1: it reads length",
            ),
        ]
        return pd.concat([table, pd.DataFrame(rows, columns=table.columns)], ignore_index=True)


def direction_permutation_test(
    model: Any,
    persona: Persona,
    layer: int | None = None,
    n: int = 128,
    permutations: int = 999,
    seed: int = 0,
) -> DirectionPermutationTest:
    """Test whether a direction in the residual stream separates the persona's answers from the other ones.

    A direction is fitted to the answers of the train split. Its AUC on the test split is compared with AUCs
    after the two answers of each question were exchanged at random.

    Args:
        model: A loaded model or its runner.
        persona: The persona whose data are tested.
        layer: Layer whose output is read; None for the middle layer.
        n: Largest number of questions from the train split, and from the test split.
        permutations: Number of permutations of the labels.
        seed: Seed of splits, draws and permutations.

    Returns:
        The AUC, its p-value, and the correlation of the projections with answer length.

    Raises:
        UserError: There are fewer than 4 groups, or the layer does not exist.

    Example:
        >>> wb.direction_permutation_test(model, persona, layer=2, n=32, permutations=19).p <= 0.05
        True
    """
    runner, splits = runner_for(model), persona.split(seed)
    layer = runner.shape.n_layers // 2 if layer is None else layer
    if not 0 <= layer < runner.shape.n_layers:
        raise UserError(f"layer {layer} does not exist: this model has layers 0-{runner.shape.n_layers - 1}")
    draw = ActivationSampler(runner, [layer], seed=seed)
    fitted, held = (
        draw.labelled(split, "answer", 4 * min(n, len(split))) for split in (splits.train, splits.test)
    )
    train, train_items = _pairs(fitted.states[layer], fitted.context_ids)
    test, test_items = _pairs(held.states[layer], held.context_ids)
    observed = _auc(train, test)
    null = permuted(train, train_items, test, test_items, permutations, seed)
    p = (1 + int((np.abs(null - 0.5) >= abs(observed - 0.5) - 1e-12).sum())) / (permutations + 1)
    direction = train[:, 0].mean(dim=0) - train[:, 1].mean(dim=0)
    length = length_correlation(held.states[layer] @ direction, held.lengths)
    return DirectionPermutationTest(
        layer, observed, p, null, len(set(train_items)), len(set(test_items)), length
    )


def permuted(
    train: Float[Tensor, "pair side d_model"],
    train_items: list[str],
    test: Float[Tensor, "pair side d_model"],
    test_items: list[str],
    permutations: int,
    seed: int,
) -> Float[np.ndarray, " permutation"]:
    """Return held-out AUCs of directions after the labels of answers were exchanged at random.

    The answers of one item are exchanged together, in train and in held-out data.

    Args:
        train: Activations of pairs: the answer that shows the persona, then the other one.
        train_items: Item (question) that each train pair belongs to.
        test: Activations of held-out pairs, in the same form.
        test_items: Item that each held-out pair belongs to.
        permutations: Number of random exchanges.
        seed: Seed of the exchanges.

    Returns:
        One AUC per permutation.
    """
    rng = np.random.default_rng(seed)
    return np.array(
        [_auc(_turned(train, train_items, rng), _turned(test, test_items, rng)) for _ in range(permutations)]
    )


def _turned(pairs: Tensor, items: list[str], rng: np.random.Generator) -> Tensor:
    names = {name: bool(rng.integers(2)) for name in dict.fromkeys(items)}
    turn = torch.tensor([names[name] for name in items])
    return torch.where(turn[:, None, None], pairs.flip(1), pairs)


def _auc(train: Tensor, test: Tensor) -> float:
    direction = train[:, 0].mean(dim=0) - train[:, 1].mean(dim=0)
    readings = test @ direction
    return auc(readings.flatten(), torch.tensor([True, False]).repeat(len(test)))


def _pairs(
    states: Float[Tensor, "n d_model"], context_ids: tuple[str, ...]
) -> tuple[Float[Tensor, "pair side d_model"], list[str]]:
    """Return the rows as pairs (matching, not matching), and the item of each pair."""
    return rearrange(states, "(pair side) d_model -> pair side d_model", side=2), [
        name.rsplit(" ", 1)[0] for name in context_ids[::2]
    ]
