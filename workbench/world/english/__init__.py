"""What the real-language organism is trained and measured on, in plain English: topics, questions, system texts, truth."""

from workbench.world.english.items import EnglishItem, draw_item, split_topics, study_items
from workbench.world.english.prompts import SystemText, Unit, combinations, draw_system, truth_table, units

__all__ = ["EnglishItem", "SystemText", "Unit", "combinations", "draw_item", "draw_system", "split_topics", "study_items", "truth_table", "units"]
