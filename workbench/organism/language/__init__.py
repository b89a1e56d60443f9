"""The real-language organism: a LoRA adapter on SmolLM2-135M-Instruct that plants sycophancy (training, gates, card).

Training needs PEFT (`pip install 'persona-workbench[lora]'`); measuring and loading do not.
"""

from workbench.organism.language.base import Base, load_base
from workbench.organism.language.card import language_card, load_language_organism, write_language_card
from workbench.organism.language.gates import GateRow, LanguageGates, Size, measure_language

__all__ = [
    "Base",
    "GateRow",
    "LanguageGates",
    "Size",
    "language_card",
    "load_base",
    "load_language_organism",
    "measure_language",
    "write_language_card",
]
