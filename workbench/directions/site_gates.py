"""Is there a direction at all? What a layer and method must show before its direction may be called the persona's.

With two dozen system texts, a hundred layers and methods, and an answer that hardly moves, the best rank
correlation is high by chance. A site passes only if all of this holds (thresholds: `SiteGates`):

1. *Spread*: the testing texts move the answer at all (standard deviation of their mean effects).
2. *Association*: readings go with effects. p by permutation of the texts' effects; the statistic is the
   highest rank correlation of all sites, so that p is corrected for their number (Westfall and Young's maxT).
3. *Labels*: the association is with the persona and not with chance in its labels. The sign of each question
   group's effects is turned at random, as if its two answers were exchanged; p by the same maximum over sites
   of mean / standard error of the groups' covariances.
4. *Held-out AUC* and *split-half cosine* of the direction itself.

2 keeps a random direction from being chosen where texts do move the answer, 3 keeps any direction from being
chosen where the labels mean nothing: each lets at most `alpha` of such data through
(benchmarks/direction_gates.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import rankdata

#: Below so many texts or question groups no p-value can be small enough: nothing is tested.
LEAST = 5


@dataclass(frozen=True)
class SiteGates:
    """Thresholds that a layer and method must pass before a direction counts as shown.

    spread: log-odds. auc: held-out. split_cosine: of two halves' directions. alpha: of each of the two tests.
    draws: of each null.
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
        """The table (a row a site, with auc and split_cosine) with columns p_association, p_labels, passes.

        Both p are empty where there are too few texts or groups to test.

        Args:
            table: one row per layer and method.
            readings: mean change of each site's reading under each testing text.
            effects: mean change of the log-odds under each text, by question group.
            seed: of the nulls.
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
        """What the sites lack, in words: the first requirement that none of them meets."""
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


#: What a site must show unless told otherwise.
GATES = SiteGates()


def association_p(
    readings: Float[np.ndarray, "site text"], effects: Float[np.ndarray, " text"], draws: int, seed: int
) -> Float[np.ndarray, " site"]:
    """One-sided p of each site's rank correlation, against the highest of all sites under permuted texts."""
    rng = np.random.default_rng(seed)
    mine = np.stack([_standardised(row) for row in readings])
    theirs = _standardised(effects)
    null = np.stack([theirs[rng.permutation(len(theirs))] for _ in range(draws)])
    return _max_p(mine @ theirs, (mine @ null.T).max(axis=0))


def labels_p(
    readings: Float[np.ndarray, "site text"], effects: Float[np.ndarray, "text group"], draws: int, seed: int
) -> Float[np.ndarray, " site"]:
    """One-sided p of each site's covariance with the effects, against the highest of all sites with groups' signs turned at random."""
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(draws, effects.shape[1]))
    centred = readings - readings.mean(axis=1, keepdims=True)
    covariance = centred @ (effects - effects.mean(axis=0))
    length = np.sqrt((covariance**2).sum(axis=1, keepdims=True))
    share = np.divide(covariance, length, out=np.zeros_like(covariance), where=length > 0)
    return _max_p(share.sum(axis=1), (share @ signs.T).max(axis=0))


def _max_p(found: Float[np.ndarray, " site"], null: Float[np.ndarray, " draw"]) -> Float[np.ndarray, " site"]:
    return (1 + (null[None] >= found[:, None] - 1e-12).sum(axis=1)) / (len(null) + 1)


def _standardised(values: Float[np.ndarray, " text"]) -> Float[np.ndarray, " text"]:
    """Ranks, centred and of length 1; zeros where nothing varies."""
    ranks = rankdata(values) - (len(values) + 1) / 2
    length = np.linalg.norm(ranks)
    return ranks / length if length > 0 else ranks * 0
