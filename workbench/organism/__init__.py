"""The embedded model organism: its tokenizer, training, quality gates and card."""

from workbench.organism.batch_scoring import OrganismScorer, default_directory, load_organism
from workbench.organism.decoy_words import DecoyReport, decoy_report
from workbench.organism.model_card import card_text, write_card
from workbench.organism.organism_training import TrainingConfig, train
from workbench.organism.quality_gates import Gates, measure_gates

__all__ = [
    "DecoyReport",
    "Gates",
    "OrganismScorer",
    "TrainingConfig",
    "card_text",
    "decoy_report",
    "default_directory",
    "load_organism",
    "measure_gates",
    "train",
    "write_card",
]
