"""Test whether data support a direction at all: a permutation test of the held-out AUC.

1. Each context is followed by its matching and by its not matching answer, and activations are read at the
   answer's last token (in both option orders, so that the letter cancels). The direction is the mean
   difference of the train rows; its AUC is measured on rows of held-out groups.
2. Under the null hypothesis the labels of a question group are arbitrary. So the two answers of all questions
   of a group are exchanged together at random, in train and held-out data alike, and direction and AUC are
   computed again, `permutations` times. p = (1 + number of AUCs at least as far from one half) /
   (permutations + 1). Exchanges of single questions would give too small a p, because wordings of one claim
   (and option orders) are not independent. With too few held-out groups nothing is tested (`LEAST_GROUPS`).
3. A small p says that the answers of unseen groups differ along one direction. It does not say that the
   direction causes the answers: length or wording can differ too, so the correlation with length is reported.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
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
from workbench.directions.labelled_activations import LabelledActivations
from workbench.errors import UserError
from workbench.models import runner_for
from workbench.personas import Persona

#: Smallest number of held-out question groups. If the held-out AUC is 1, it is as far from one half whenever
#: all g held-out groups are exchanged or none is, in a fraction 2^(1 - g) of exchanges: with 5 groups 1/16 of
#: them, so that even a perfect direction has p above 0.05, and with 6 groups 1/32.
LEAST_GROUPS = 6


@dataclass(frozen=True, repr=False)
class DirectionPermutationTest:
    """Result of a permutation test of whether a direction separates a persona's two kinds of answers.

    Attributes:
        layer: Layer whose output was read.
        auc: AUC with which the direction, fitted to train questions, separates the answers to held-out
            questions.
        p: Two-sided p-value: the fraction of permutations whose AUC is at least as far from 0.5; nan if there
            are too few question groups to test.
        null: AUCs after the answers of whole question groups were exchanged at random; empty if not tested.
        n_train: Number of train questions.
        n_held_out: Number of held-out questions.
        n_held_out_groups: Number of groups of the held-out questions.
        length: Spearman correlation of the held-out answers' projections with their numbers of tokens; nan if
            all answers are equally long.
    """

    layer: int
    auc: float
    p: float
    null: Float[np.ndarray, " permutation"]
    n_train: int
    n_held_out: int
    n_held_out_groups: int
    length: float

    @property
    def tested(self) -> bool:
        """Whether there are enough held-out question groups for a p-value of 0.05 or less."""
        return self.n_held_out_groups >= LEAST_GROUPS

    @property
    def verdict(self) -> str:
        """Whether there is evidence of a direction for the persona, in one sentence with AUC and p-value."""
        if not self.tested:
            return f"not tested whether the two answers differ along one direction: {self._too_few}"
        low, high = np.percentile(self.null, [2.5, 97.5])
        p = "< 0.001" if self.p < 0.001 else f"= {self.p:.3f}"
        held_out = f"{self.n_held_out} held-out items of {self.n_held_out_groups} groups"
        tail = f"(permuted labels: {low:.2f} to {high:.2f}, p {p}, {held_out})"
        if self.p > 0.05:
            return f"no direction: at layer {self.layer} the held-out AUC is {self.auc:.2f} {tail}"
        return f"the two answers differ along one direction: at layer {self.layer} the held-out AUC is {self.auc:.2f} {tail}"

    def __repr__(self) -> str:
        return self.verdict

    @property
    def _too_few(self) -> str:
        return (
            f"at least {LEAST_GROUPS} held-out question groups are needed, here are {self.n_held_out_groups}"
        )

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
                f"{self.p:.4f}" if self.tested else "not tested",
                f"{len(self.null)} times with the answers of whole groups exchanged at random"
                if self.tested
                else self._too_few,
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
    after the answers of whole question groups were exchanged at random.

    Args:
        model: A loaded model or its runner.
        persona: The persona whose data are tested.
        layer: Layer whose output is read; None for the middle layer.
        n: Largest number of questions from the train split, and from the test split.
        permutations: Number of permutations of the labels.
        seed: Seed of splits, draws and permutations.

    Returns:
        The AUC, its p-value, and the correlation of the projections with answer length. The p-value is nan
        with fewer than `LEAST_GROUPS` held-out question groups.

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
    train, test = _pairs(fitted.states[layer]), _pairs(held.states[layer])
    observed, p, null = permutation_p(train, fitted.groups[::2], test, held.groups[::2], permutations, seed)
    direction = train[:, 0].mean(dim=0) - train[:, 1].mean(dim=0)
    return DirectionPermutationTest(
        layer=layer,
        auc=observed,
        p=p,
        null=null,
        n_train=_questions(fitted),
        n_held_out=_questions(held),
        n_held_out_groups=len(set(held.groups)),
        length=length_correlation(held.states[layer] @ direction, held.lengths),
    )


def permutation_p(
    train: Float[Tensor, "pair side d_model"],
    train_groups: Sequence[str],
    test: Float[Tensor, "pair side d_model"],
    test_groups: Sequence[str],
    permutations: int,
    seed: int,
) -> tuple[float, float, Float[np.ndarray, " permutation"]]:
    """Compare a direction's held-out AUC with AUCs after whole question groups' answers were exchanged.

    The answers of one group are exchanged together, because its questions are not independent.

    Args:
        train: Activations of pairs: the answer that shows the persona, then the other one.
        train_groups: Question group of each train pair.
        test: Activations of held-out pairs, in the same form.
        test_groups: Question group of each held-out pair.
        permutations: Number of random exchanges.
        seed: Seed of the exchanges.

    Returns:
        The AUC, its two-sided p-value, and one AUC per exchange. With fewer than `LEAST_GROUPS` held-out
        groups the p-value is nan and nothing is exchanged.
    """
    observed, rng = _auc(train, test), np.random.default_rng(seed)
    if len(set(test_groups)) < LEAST_GROUPS:
        return observed, float("nan"), np.empty(0)
    groups = list(dict.fromkeys((*train_groups, *test_groups)))
    null = np.empty(permutations)
    for k in range(permutations):
        chosen = {
            group
            for group, exchange in zip(groups, rng.integers(2, size=len(groups)), strict=True)
            if exchange
        }
        null[k] = _auc(_exchanged(train, train_groups, chosen), _exchanged(test, test_groups, chosen))
    extreme = int((np.abs(null - 0.5) >= abs(observed - 0.5) - 1e-12).sum())
    return observed, (1 + extreme) / (permutations + 1), null


def _exchanged(
    pairs: Float[Tensor, "pair side d_model"], groups: Sequence[str], chosen: Set[str]
) -> Float[Tensor, "pair side d_model"]:
    """Return the pairs with the two answers of the chosen groups exchanged."""
    exchange = torch.tensor([group in chosen for group in groups])
    return torch.where(exchange[:, None, None], pairs.flip(1), pairs)


def _auc(train: Tensor, test: Tensor) -> float:
    direction = train[:, 0].mean(dim=0) - train[:, 1].mean(dim=0)
    readings = test @ direction
    return auc(readings.flatten(), torch.tensor([True, False]).repeat(len(test)))


def _pairs(states: Float[Tensor, "n d_model"]) -> Float[Tensor, "pair side d_model"]:
    """Return the rows as pairs: the matching answer, then the other one."""
    return rearrange(states, "(pair side) d_model -> pair side d_model", side=2)


def _questions(rows: LabelledActivations) -> int:
    """Return the number of different questions, whose context ids end in the order of the options."""
    return len({name.rsplit(" ", 1)[0] for name in rows.context_ids})
