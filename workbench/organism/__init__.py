"""The embedded model organism: tokenizer, training, gates, card."""

from workbench.organism.card import card_text, write_card
from workbench.organism.decoys import DecoyReport, decoy_report
from workbench.organism.gates import Gates, measure_gates
from workbench.organism.scoring import Organism, default_directory, load_organism
from workbench.organism.train import TrainingConfig, train

__all__ = [
    "DecoyReport",
    "Gates",
    "Organism",
    "TrainingConfig",
    "card_text",
    "decoy_report",
    "default_directory",
    "load_organism",
    "measure_gates",
    "train",
    "write_card",
]
