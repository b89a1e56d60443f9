"""Intervals, tests and power for clustered values.

A cluster is a question group: all its items, in both orders of their options. All functions take values
(rates as 0/1, probabilities or log-odds) and the cluster id of each value; `clusters` is the only place that
decides what a cluster is. The kind of interval for each quantity was chosen by simulated coverage
(docs/validity.md).
"""

from workbench.statistics.cluster_intervals import (
    Interval,
    SeedSpread,
    cluster_interval,
    over_seeds,
    rate_interval,
)
from workbench.statistics.cluster_moments import ClusterMoments, clusters, moments
from workbench.statistics.equivalence_test import EquivalenceTest, tost
from workbench.statistics.multiple_testing import groups_needed, holm
from workbench.statistics.paired_tests import PairedDifference, paired_difference, paired_rate_difference
from workbench.statistics.permutation_test import sign_flip_p
from workbench.statistics.power import minimum_detectable_effect, minimum_detectable_effect_from_spread
from workbench.statistics.rank_correlation import rank_correlation, spearman

__all__ = [
    "ClusterMoments",
    "EquivalenceTest",
    "Interval",
    "PairedDifference",
    "SeedSpread",
    "cluster_interval",
    "clusters",
    "groups_needed",
    "holm",
    "minimum_detectable_effect",
    "minimum_detectable_effect_from_spread",
    "moments",
    "over_seeds",
    "paired_difference",
    "paired_rate_difference",
    "rank_correlation",
    "rate_interval",
    "sign_flip_p",
    "spearman",
    "tost",
]
