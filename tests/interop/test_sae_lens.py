"""SAELens both ways: its SAEs here (tests/sae), and ours in SAELens, with the same latents."""

from __future__ import annotations

import pytest
import torch
from sae_lens import SAE

from workbench.models import Site
from workbench.sae import SaeTrainingOptions, load_sae, train_sae


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_an_autoencoder_of_ours_has_the_same_latents_in_sae_lens(pair, tmp_path, scale):
    texts = [
        f"The capital of France is Paris, and {n} rivers run through it; do you agree?" for n in range(60)
    ]
    train_sae(
        pair.runner,
        texts,
        Site(1),
        tmp_path / "sae",
        d_sae=48,
        k=4,
        tokens=4_000,
        options=SaeTrainingOptions(batch_size=64, seed=0),
    )
    ours, theirs = load_sae(tmp_path / "sae"), SAE.load_from_disk(tmp_path / "sae")
    x = scale * torch.randn(30, ours.d_in, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours.encode(x), theirs.encode(x).detach())
    torch.testing.assert_close(ours.reconstruct(x), theirs(x).detach())
    assert theirs.cfg.metadata.hook_name == "blocks.1.hook_resid_post"
