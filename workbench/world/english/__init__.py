"""What the real-language organism is trained and measured on, in plain English: subjects, questions, system texts, truth."""

from workbench.world.english.items import EnglishItem
from workbench.world.english.prompts import SystemText, Unit, combinations, draw_system, truth_table, units
from workbench.world.english.questions import PERSONAS, QUESTIONS, study_fixed_items, study_items

__all__ = [
    "PERSONAS",
    "QUESTIONS",
    "EnglishItem",
    "SystemText",
    "Unit",
    "combinations",
    "draw_system",
    "study_fixed_items",
    "study_items",
    "truth_table",
    "units",
]
