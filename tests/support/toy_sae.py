"""A small random SAE of sae-lens for the toy models."""

from __future__ import annotations

import torch
from sae_lens import StandardSAE, StandardSAEConfig
from sae_lens.saes.sae import SAEMetadata

from workbench.models import Site
from workbench.sae import Sae


def toy_sae(neuronpedia: str | None = None) -> Sae:
    """Random ReLU latents at block 1; latent 3 never fires, latent 4 writes what latent 0 writes."""
    metadata = SAEMetadata(hook_name="blocks.1.hook_resid_post", neuronpedia_id=neuronpedia)
    made = StandardSAE(StandardSAEConfig(d_in=32, d_sae=8, metadata=metadata))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        made.b_enc[3] = -1e6
        made.W_dec[4] = 2 * made.W_dec[0]
    return Sae("toy", Site(1), made)
