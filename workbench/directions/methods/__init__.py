"""Direction methods: pure functions of labelled activations, one file per published method.

Each file registers its methods.
"""

from workbench.directions.methods.logistic_probe import logistic_probe
from workbench.directions.methods.mean_difference import mean_difference
from workbench.directions.methods.principal_difference import principal_difference
from workbench.directions.methods.weighted_difference import weighted_difference
from workbench.directions.methods.whitened_difference import whitened_difference

__all__ = [
    "logistic_probe",
    "mean_difference",
    "principal_difference",
    "weighted_difference",
    "whitened_difference",
]
