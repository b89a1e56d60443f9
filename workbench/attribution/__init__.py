"""Why a prompt works: its tokens' effects on directions, latents and the answer, checked by intervention."""

from workbench.attribution.attribute import ESTIMATORS, attribute
from workbench.attribution.estimate import Estimate, Estimator
from workbench.attribution.gradient import GradientXInput
from workbench.attribution.integrated import IntegratedGradients
from workbench.attribution.ledger import Ledger, Pair
from workbench.attribution.mediation import Mediated, Mediator, as_mediator, mediate
from workbench.attribution.nodes import Node, Path, path
from workbench.attribution.problem import Problem
from workbench.attribution.removal import Removal
from workbench.attribution.replacement import Replacement
from workbench.attribution.shapley import Shapley
from workbench.attribution.targets import Target, Targets

__all__ = [
    "ESTIMATORS", "Estimate", "Estimator", "GradientXInput", "IntegratedGradients", "Ledger", "Mediated", "Mediator", "Node", "Pair",
    "Path", "Problem", "Removal", "Replacement", "Shapley", "Target", "Targets", "as_mediator", "attribute", "mediate", "path",
]  # fmt: skip
