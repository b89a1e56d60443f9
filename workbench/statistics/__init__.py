"""Intervals, tests and power for answers that come in clusters: a question's items, in both option orders, are one cluster.

Everything takes values (rates as 0/1, probabilities or log-odds) and the cluster id of each value. What a
cluster is, is decided in one place (`clusters`). Which interval is used where was chosen by simulated
coverage, docs/validity.md.
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
