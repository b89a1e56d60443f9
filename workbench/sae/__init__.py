"""Load SAEs, check them against the model, and train them. The only importer of sae_lens."""

from workbench.sae.formats.sae_format import SAE_FORMATS, SaeFormat, SaeLocation, register_sae_format
from workbench.sae.formats.sae_lens_release import PRESETS
from workbench.sae.reconstruction_check import (
    SpliceEvaluation,
    check_sae,
    explained_variance,
    own_text,
    splice,
)
from workbench.sae.sae import LatentRows, Sae
from workbench.sae.sae_check import SaeCheck
from workbench.sae.sae_loading import find_sae, load_sae, saes_for
from workbench.sae.sae_training import (
    SaeCard,
    SaeTrainingOptions,
    TrainingProbe,
    best_latent,
    make_card,
    train_sae,
)
from workbench.sae.training_texts import context_texts, read_corpus

__all__ = [
    "PRESETS",
    "SAE_FORMATS",
    "LatentRows",
    "Sae",
    "SaeCard",
    "SaeCheck",
    "SaeFormat",
    "SaeLocation",
    "SaeTrainingOptions",
    "SpliceEvaluation",
    "TrainingProbe",
    "best_latent",
    "check_sae",
    "context_texts",
    "explained_variance",
    "find_sae",
    "load_sae",
    "make_card",
    "own_text",
    "read_corpus",
    "register_sae_format",
    "saes_for",
    "splice",
    "train_sae",
]
