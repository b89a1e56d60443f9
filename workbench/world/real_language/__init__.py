"""Data of the real-language organism in plain English: subjects, questions, system texts and ground truth.

Training and measurements use it.
"""

from workbench.world.real_language.english_items import EnglishItem
from workbench.world.real_language.persona_questions import (
    PERSONAS,
    QUESTIONS,
    study_fixed_items,
    study_items,
)
from workbench.world.real_language.steering_sentences import (
    SteeringUnit,
    SystemText,
    combinations,
    draw_system,
    truth_table,
    units,
)

__all__ = [
    "PERSONAS",
    "QUESTIONS",
    "EnglishItem",
    "SteeringUnit",
    "SystemText",
    "combinations",
    "draw_system",
    "study_fixed_items",
    "study_items",
    "truth_table",
    "units",
]
