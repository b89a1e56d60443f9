"""Intervals, tests and power for answers that come in clusters: a question's items, in both option orders, are one cluster.

Everything takes values (rates as 0/1, probabilities or log-odds) and the cluster id of each value. What a cluster is, is
decided in one place (`clusters`). Which interval is used where was chosen by simulated coverage, docs/validity.md.
"""

from workbench.statistics.clusters import Moments, clusters, moments
from workbench.statistics.correlation import rank_correlation
from workbench.statistics.intervals import Interval, Spread, cluster_interval, over_seeds, rate_interval
from workbench.statistics.paired import (
    PairedDifference,
    groups_needed,
    holm,
    paired_difference,
    paired_rate_difference,
    sign_flip_p,
)
from workbench.statistics.power import Equivalence, detectable_difference, detectable_from_spread, tost

__all__ = [
    "Equivalence",
    "Interval",
    "Moments",
    "PairedDifference",
    "Spread",
    "cluster_interval",
    "clusters",
    "detectable_difference",
    "detectable_from_spread",
    "groups_needed",
    "holm",
    "moments",
    "over_seeds",
    "paired_difference",
    "paired_rate_difference",
    "rank_correlation",
    "rate_interval",
    "sign_flip_p",
    "tost",
]
