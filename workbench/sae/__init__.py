"""Sparse autoencoders: loaded, checked against the model, trained. The only importer of sae_lens."""

from workbench.sae.check import SaeCheck, Splice, check_sae, explained_variance, splice
from workbench.sae.load import PRESETS, find_sae, load_sae, saes_for
from workbench.sae.sae import LatentRows, Sae
from workbench.sae.texts import context_texts, read_corpus
from workbench.sae.train import Probe, SaeCard, best_latent, make_card, train_sae

__all__ = [
    "PRESETS", "LatentRows", "Probe", "Sae", "SaeCard", "SaeCheck", "Splice", "best_latent", "check_sae", "context_texts",
    "explained_variance", "find_sae", "load_sae", "make_card", "read_corpus", "saes_for", "splice", "train_sae",
]  # fmt: skip
