"""Objectives: what a prompt is optimised for, as differentiable scores of one forward pass.

An `Objective` says which sites it reads and whether it needs the logits. From a `Readout` (the activations at
the decision token of each context, the last token before the answer) it computes one score per row.
Prompt-level terms (repetition, similarity to a text) use the prompt's ids instead. Objectives can be added
and scaled.

Without guards, a raw projection can be maximised by a residual of 130 times the usual norm (observed with the
code of arXiv 2601.02896). Two guards prevent this:
1. *Scale*: `calibrate` measures the score's mean and spread over neutral prompts. A z-scored objective has
   the same unit in every model, so a fluency weight has the same meaning everywhere.
2. *Norm*: residuals longer than 1.1 times the longest one with neutral prompts are shortened to that length
   before they are projected.

Sign: plus is more of the persona; `-objective` suppresses it.
"""

from __future__ import annotations

from workbench.objectives.answer_objectives import (
    AnswerLogOddsObjective,
    AnswerLogProbObjective,
    answer_log_odds,
)
from workbench.objectives.hold import HoldObjective, hold_direction
from workbench.objectives.latent_activation import LatentActivationObjective, LatentReader, latent_activation
from workbench.objectives.objective import CombinedObjective, Objective, terms_of
from workbench.objectives.objective_scale import ObjectiveScale, neutral_prompts, read
from workbench.objectives.projection import Kind, ProjectionObjective, projection
from workbench.objectives.prompt_terms import RepetitionPenalty, TextSimilarity
from workbench.objectives.readout import Readout, WholeAnswers

__all__ = [
    "AnswerLogOddsObjective",
    "AnswerLogProbObjective",
    "CombinedObjective",
    "HoldObjective",
    "Kind",
    "LatentActivationObjective",
    "LatentReader",
    "Objective",
    "ObjectiveScale",
    "ProjectionObjective",
    "Readout",
    "RepetitionPenalty",
    "TextSimilarity",
    "WholeAnswers",
    "answer_log_odds",
    "hold_direction",
    "latent_activation",
    "neutral_prompts",
    "projection",
    "read",
    "terms_of",
]
