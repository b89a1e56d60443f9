"""The real-language organism: a LoRA adapter on SmolLM2-135M-Instruct, with its training, gates and card.

Training needs PEFT (`pip install 'persona-workbench[lora]'`); measuring and loading do not.
"""

from workbench.organism.real_language.adapter_card import (
    language_card,
    load_language_organism,
    write_language_card,
)
from workbench.organism.real_language.adapter_gates import GateRow, GateSize, LanguageGates, measure_language
from workbench.organism.real_language.base_model import BaseModel, load_base

__all__ = [
    "BaseModel",
    "GateRow",
    "GateSize",
    "LanguageGates",
    "language_card",
    "load_base",
    "load_language_organism",
    "measure_language",
    "write_language_card",
]
