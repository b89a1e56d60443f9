"""Personas and their data: contrast items, published formats, splits by group, checks that need no model."""

from workbench.personas.duplicate_questions import Duplicate, duplicates
from workbench.personas.formats.data_format import DATA_FORMATS, DataFormat, register_format
from workbench.personas.formats.truthfulqa import DataQuestion, read_truthfulqa
from workbench.personas.item_files import read_items
from workbench.personas.load_personas import load_persona, organism_persona, persona_inventory
from workbench.personas.persona import Item, LetterForm, Metric, Normalization, Persona, Sign, Split, Splits
from workbench.personas.persona_checks import PersonaCheck, check_persona
from workbench.personas.persona_file import (
    CAA_LETTERS,
    PersonaFile,
    persona_from,
    persona_from_file,
    trait_from_file,
)
from workbench.personas.trait_file import TraitFile, read_trait

__all__ = [
    "CAA_LETTERS",
    "DATA_FORMATS",
    "DataFormat",
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
    "persona_inventory",
    "read_items",
    "read_trait",
    "read_truthfulqa",
    "register_format",
    "trait_from_file",
]
