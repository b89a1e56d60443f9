"""Decide whether a layer and method show a direction at all before it may be called the persona's.

With two dozen system texts, a hundred layers and methods, and an answer that hardly changes, the best rank
correlation is high by chance. A site (layer and method) passes only if all of these requirements hold
(thresholds: `SiteGates`):

1. *Spread*: the testing texts change the answer at all (standard deviation of their mean effects).
2. *Association*: readings correlate with effects. The p-value is from permutations of the texts' effects; the
   statistic is the highest rank correlation of all sites, so that p is corrected for their number (Westfall
   and Young's maxT).
3. *Labels*: the association is with the persona and not with chance in its labels. The sign of each question
   group's effects is changed at random, as if its two answers were exchanged; the statistic is the same
   maximum over sites of mean / standard error of the groups' covariances.
4. *Held-out AUC* and *split-half cosine* of the direction itself.

Requirement 2 rejects a random direction if texts do change the answer, and requirement 3 rejects any
direction if the labels mean nothing: each accepts at most the fraction `alpha` of such data
(benchmarks/direction_gates.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import rankdata

#: Smallest number of texts and of question groups for a test; with fewer, no p-value can be small enough.
LEAST = 5


@dataclass(frozen=True)
class SiteGates:
    """Requirements that a fitted direction must meet before it is reported as a persona's.

    The direction is tested on system texts that were not used for fitting.

    Attributes:
        spread: Smallest standard deviation over the system texts of their effects on the answer, log-odds.
        auc: Smallest AUC on held-out questions.
        split_cosine: Smallest cosine between directions fitted to two halves of the data.
        alpha: Level of each of the two significance tests.
        draws: Number of random draws from each null distribution.
    """

    spread: float = 0.05
    auc: float = 0.6
    split_cosine: float = 0.1
    alpha: float = 0.05
    draws: int = 2000

    def judge(
        self,
        table: pd.DataFrame,
        readings: Float[np.ndarray, "site text"],
        effects: Float[np.ndarray, "text group"],
        seed: int = 0,
    ) -> pd.DataFrame:
        """Test which layers and methods meet the requirements, and add p-values to their table.

        Both p-values are nan if there are too few system texts or question groups to test.

        Args:
            table: One row per layer and fitting method; the columns auc and split_cosine are used.
            readings: Change of the mean projection on each direction under each system text, against no text.
            effects: Change of the answer's log-odds under each system text, averaged over each question
                group.
            seed: Seed of the random draws.

        Returns:
            The table in the same order with three more columns: the p-values p_association and p_labels, and
            whether the row passes.
        """
        if min(effects.shape) < LEAST:
            return table.assign(p_association=np.nan, p_labels=np.nan, passes=False)
        association = association_p(readings, effects.mean(axis=1), self.draws, seed)
        labels = labels_p(readings, effects, self.draws, seed)
        good = (table["auc"] >= self.auc) & (table["split_cosine"] >= self.split_cosine)
        clear = (
            (association <= self.alpha)
            & (labels <= self.alpha)
            & (effects.mean(axis=1).std(ddof=1) >= self.spread)
        )
        return table.assign(p_association=association, p_labels=labels, passes=good.to_numpy() & clear)

    def why_not(self, table: pd.DataFrame, spread: float) -> str:
        """Explain why no direction may be reported: the first requirement that no direction meets.

        Args:
            table: The table that `judge` returned, one row per layer and method.
            spread: Standard deviation over system texts of their effects on the answer, log-odds.

        Returns:
            The reason.
        """
        lowest = {test: f"least p {table[f'p_{test}'].min():.3f}" for test in ("association", "labels")}
        highest = table["auc"].max()
        checks = [
            (
                spread >= self.spread,
                f"the system texts hardly move the answer (SD {spread:.3f} log-odds, {self.spread} needed)",
            ),
            (
                (table["p_association"] <= self.alpha).any(),
                f"no reading goes with what texts do to the answer ({lowest['association']})",
            ),
            (
                (table["p_labels"] <= self.alpha).any(),
                f"what goes with it depends on the questions' labels by chance ({lowest['labels']})",
            ),
            (
                highest >= self.auc,
                f"no direction separates held-out answers (highest AUC {highest:.2f}, {self.auc} needed)",
            ),
        ]
        failed = [words for ok, words in checks if not ok]
        return failed[0] if failed else "no one layer and method meets every requirement together"


#: Default requirements on a site.
GATES = SiteGates()


def association_p(
    readings: Float[np.ndarray, "site text"], effects: Float[np.ndarray, " text"], draws: int, seed: int
) -> Float[np.ndarray, " site"]:
    """Test by permutation whether system texts that change a direction's reading also change the answer.

    The p-values are one-sided, from rank correlations. They are corrected for the number of directions: each
    correlation is compared with the highest one of all directions when the effects are permuted.

    Args:
        readings: Change of the mean projection on each direction under each system text.
        effects: Mean change of the answer's log-odds under each system text.
        draws: Number of permutations.
        seed: Seed of the permutations.

    Returns:
        One p-value per direction.
    """
    rng = np.random.default_rng(seed)
    mine = np.stack([_standardised(row) for row in readings])
    theirs = _standardised(effects)
    null = np.stack([theirs[rng.permutation(len(theirs))] for _ in range(draws)])
    return _max_p(mine @ theirs, (mine @ null.T).max(axis=0))


def labels_p(
    readings: Float[np.ndarray, "site text"], effects: Float[np.ndarray, "text group"], draws: int, seed: int
) -> Float[np.ndarray, " site"]:
    """Test whether readings and effects of system texts agree beyond chance in the labels of the questions.

    The p-values are one-sided, from covariances. They are corrected for the number of directions: each value
    is compared with the highest one of all directions when the signs of the question groups are drawn at
    random, as if their two answers had been exchanged.

    Args:
        readings: Change of the mean projection on each direction under each system text.
        effects: Change of the answer's log-odds under each system text, averaged over each question group.
        draws: Number of random signs.
        seed: Seed of the signs.

    Returns:
        One p-value per direction.
    """
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(draws, effects.shape[1]))
    centred = readings - readings.mean(axis=1, keepdims=True)
    covariance = centred @ (effects - effects.mean(axis=0))
    length = np.sqrt((covariance**2).sum(axis=1, keepdims=True))
    share = np.divide(covariance, length, out=np.zeros_like(covariance), where=length > 0)
    return _max_p(share.sum(axis=1), (share @ signs.T).max(axis=0))


def _max_p(found: Float[np.ndarray, " site"], null: Float[np.ndarray, " draw"]) -> Float[np.ndarray, " site"]:
    return (1 + (null[None] >= found[:, None] - 1e-12).sum(axis=1)) / (len(null) + 1)


def _standardised(values: Float[np.ndarray, " text"]) -> Float[np.ndarray, " text"]:
    """Return ranks of the values, centred and scaled to length 1; zeros if all values are equal."""
    ranks = rankdata(values) - (len(values) + 1) / 2
    length = np.linalg.norm(ranks)
    return ranks / length if length > 0 else ranks * 0
