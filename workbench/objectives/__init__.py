"""What a prompt is optimised for: differentiable functions of one forward pass, that add and scale.

An `Objective` says which sites it reads and whether it needs the end of the model; given a `Readout` (the
decision token of each context) it returns one score a row. Prompt-level terms (repetition, similarity to a
text) see the prompt's ids instead.

Two guards keep a score honest (REFERENCES of arXiv 2601.02896's code: a raw projection was won by a residual
of 130 times the usual norm):
1. *Scale*: `calibrate` measures the score's mean and spread over neutral prompts, so that a z-scored
   objective has the same unit in every model, and one fluency weight means the same everywhere.
2. *Norm*: residuals longer than those of neutral prompts are shortened to the longest usual norm before they
   are projected.

Sign: plus is more of the persona; `-objective` suppresses.
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
