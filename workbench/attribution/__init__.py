"""Why a prompt works: its tokens' effects on directions, latents and the answer, checked by intervention."""

from workbench.attribution.attribute import ESTIMATORS, attribute
from workbench.attribution.circuit import Circuit, Edge, Proof
from workbench.attribution.dose import Dose, dose_response
from workbench.attribution.estimate import Estimate, Estimator
from workbench.attribution.gradient import GradientXInput
from workbench.attribution.integrated import IntegratedGradients
from workbench.attribution.ledger import Ledger, Pair
from workbench.attribution.mediation import Mediated, Mediator, as_mediator, mediate
from workbench.attribution.nodes import Node, Path, path
from workbench.attribution.problem import Problem
from workbench.attribution.relevance import Relevance
from workbench.attribution.removal import Removal
from workbench.attribution.replacement import Replacement
from workbench.attribution.shapley import Shapley
from workbench.attribution.side_effects import Moved, SideEffects, side_effects
from workbench.attribution.targets import Target, Targets

__all__ = [
    "ESTIMATORS", "Circuit", "Dose", "Edge", "Estimate", "Estimator", "GradientXInput", "IntegratedGradients", "Ledger", "Mediated", "Mediator",
    "Moved", "Node", "Pair", "Path", "Problem", "Proof", "Relevance", "Removal", "Replacement", "Shapley", "SideEffects", "Target", "Targets",
    "as_mediator", "attribute", "dose_response", "mediate", "path", "side_effects",
]  # fmt: skip
