"""Can this data carry a direction at all? A permutation test of the held-out AUC.

1. Rows are pairs: each context with its matching and its not matching answer, read at the answer's last token
   (both option orders, so that the letter cancels). The mean difference of the train rows is the direction;
   its AUC is that of the held-out groups' rows.
2. Under the null the two answers of an item are exchangeable: the sign of each item's pairs, in train and
   held-out data alike, is turned at random, direction and AUC are made again, `permutations` times. p = (1 +
   number as far from one half or further) / (permutations + 1). Items turn as wholes, both orders together,
   since they are not independent.
A small p says that the answers differ along one direction on unseen groups. It does not say that the
direction decides anything: length or wording can do that too, so the length rule is next to it.
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
    """Result of the test whether data support a direction.

    auc: held-out. p: of the permutation test. null: AUCs under permuted labels. n_train, n_held_out: items.
    length: Spearman's correlation of the held-out reading with the answer's tokens.
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
        """In words."""
        low, high = np.percentile(self.null, [2.5, 97.5])
        p = "< 0.001" if self.p < 0.001 else f"= {self.p:.3f}"
        tail = f"(permuted labels: {low:.2f} to {high:.2f}, p {p}, {self.n_held_out} held-out items)"
        if self.p > 0.05:
            return f"no direction: at layer {self.layer} the held-out AUC is {self.auc:.2f} {tail}"
        return f"the two answers differ along one direction: at layer {self.layer} the held-out AUC is {self.auc:.2f} {tail}"

    def __repr__(self) -> str:
        return self.verdict

    def added_to(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of a persona's check, with these after them."""
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
    """Whether the data support a direction at all: the held-out AUC against that under permuted labels.

    Args:
        model: A loaded model or its runner.
        persona: The data.
        layer: Where; None: the middle one.
        n: Items of the train split and of the other splits, at most.
        permutations: Of the labels.
        seed: Of splits, draws and permutations.

    Returns:
        The AUC, its p-value, and whether length alone explains it.

    Raises:
        UserError: Fewer than 4 groups, or a layer that does not exist.

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
    """Held-out AUCs with the sides of each item's pairs exchanged at random, in train and held-out data alike."""
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
    """Rows two by two (matching, not matching), and the item of each pair."""
    return rearrange(states, "(pair side) d_model -> pair side d_model", side=2), [
        name.rsplit(" ", 1)[0] for name in context_ids[::2]
    ]
