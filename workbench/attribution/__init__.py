"""Attribution of a prompt's effect to its tokens, heads, MLPs and latents, checked by intervention."""

from workbench.attribution.attention_aware_relevance import AttentionAwareRelevance
from workbench.attribution.attribute import AttributionOptions, attribute
from workbench.attribution.attribution_patching import CircuitNode, PromptPath, path
from workbench.attribution.attribution_problem import AttributionProblem
from workbench.attribution.attribution_targets import AttributionTarget, AttributionTargets
from workbench.attribution.circuit import Circuit, CircuitEdge
from workbench.attribution.dose_response import DoseResponse, dose_response
from workbench.attribution.estimator import ESTIMATORS, EffectEstimate, Estimator
from workbench.attribution.faithfulness import FaithfulnessEvaluation, FaithfulnessPoint, faithfulness_curve
from workbench.attribution.gradient_x_input import GradientXInput
from workbench.attribution.integrated_gradients import IntegratedGradients
from workbench.attribution.ledger import Ledger, TokenPair
from workbench.attribution.mediation import MediationResult, Mediator, as_mediator, mediate
from workbench.attribution.shapley_values import ShapleyValues
from workbench.attribution.side_effects import MovedLatent, SideEffects, side_effects
from workbench.attribution.token_removal import TokenRemoval
from workbench.attribution.token_replacement import TokenReplacement

__all__ = [
    "ESTIMATORS",
    "AttentionAwareRelevance",
    "AttributionOptions",
    "AttributionProblem",
    "AttributionTarget",
    "AttributionTargets",
    "Circuit",
    "CircuitEdge",
    "CircuitNode",
    "DoseResponse",
    "EffectEstimate",
    "Estimator",
    "FaithfulnessEvaluation",
    "FaithfulnessPoint",
    "GradientXInput",
    "IntegratedGradients",
    "Ledger",
    "MediationResult",
    "Mediator",
    "MovedLatent",
    "PromptPath",
    "ShapleyValues",
    "SideEffects",
    "TokenPair",
    "TokenRemoval",
    "TokenReplacement",
    "as_mediator",
    "attribute",
    "dose_response",
    "faithfulness_curve",
    "mediate",
    "path",
    "side_effects",
]
