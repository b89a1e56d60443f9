"""Personas and their data: contrast items, published formats, splits by group, checks that need no model."""

from workbench.personas.checks import PersonaCheck, check_persona
from workbench.personas.duplicates import Duplicate, duplicates
from workbench.personas.files import CAA_LETTERS, PersonaFile, persona_from, persona_from_file, trait_from_file
from workbench.personas.items import Item, LetterForm, Metric, Persona, Sign, Split, Splits
from workbench.personas.library import load_persona, organism_persona
from workbench.personas.readers import Question, read_items, read_truthfulqa
from workbench.personas.traits import Trait, read_trait

__all__ = [
    "CAA_LETTERS",
    "Duplicate",
    "Item",
    "LetterForm",
    "Metric",
    "Persona",
    "PersonaCheck",
    "PersonaFile",
    "Question",
    "Sign",
    "Split",
    "Splits",
    "Trait",
    "check_persona",
    "duplicates",
    "load_persona",
    "organism_persona",
    "persona_from",
    "persona_from_file",
    "read_items",
    "read_trait",
    "read_truthfulqa",
    "trait_from_file",
]
