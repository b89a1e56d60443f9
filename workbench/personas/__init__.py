"""Personas and their data: contrast items, published formats, splits by group, checks that need no model."""

from workbench.personas.data_formats import DataQuestion, read_items, read_truthfulqa
from workbench.personas.duplicate_questions import Duplicate, duplicates
from workbench.personas.load_personas import load_persona, organism_persona
from workbench.personas.persona import Item, LetterForm, Metric, Normalization, Persona, Sign, Split, Splits
from workbench.personas.persona_checks import PersonaCheck, check_persona
from workbench.personas.persona_file import CAA_LETTERS, PersonaFile, persona_from, persona_from_file, trait_from_file
from workbench.personas.trait_file import TraitFile, read_trait

__all__ = [
    "CAA_LETTERS",
    "DataQuestion",
    "Duplicate",
    "Item",
    "LetterForm",
    "Metric",
    "Normalization",
    "Persona",
    "PersonaCheck",
    "PersonaFile",
    "Sign",
    "Split",
    "Splits",
    "TraitFile",
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
