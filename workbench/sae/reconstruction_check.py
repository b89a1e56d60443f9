"""Check whether an SAE fits a model, by its explained variance on the model's own text.

An SAE of another model, of another layer (off by one), or trained on scaled or centred residuals, loads
without an error if the width is right, but explains little of the activations.

1. The model is run on text, and the activations at layers L - 1, L and L + 1 of the SAE's hook are kept,
   without position 0.
2. Each is reconstructed; explained variance = 1 - |x - reconstruction|^2 / |x - mean|^2, summed over tokens.
3. A warning is given if it is below `floor`, or if a neighbouring layer is explained better than the layer
   that the SAE's file names.

`load_sae(name, model)` runs the check on text that the model writes (`own_text`), `rank_latents` on the
training questions. `splice` measures how much of the model's prediction survives: its cross-entropy when the
activations are replaced by their reconstruction, compared with unchanged activations and with their mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.activations import length_batches, read_all
from workbench.budget import Meter
from workbench.errors import UserError
from workbench.models import Runner, Site, pad_right, runner_for
from workbench.sae.sae import Sae
from workbench.sae.sae_check import SaeCheck

#: Tokens on which the neighbouring layers are compared.
COMPARED = 4096


@dataclass(frozen=True)
class SpliceEvaluation:
    """Cross-entropy of a text (nats per token) with a site's activations unchanged and replaced.

    Attributes:
        clean: Cross-entropy with unchanged activations.
        spliced: Cross-entropy with the activations replaced by the SAE's reconstruction.
        ablated: Cross-entropy with the activations replaced by their mean over tokens.
    """

    clean: float
    spliced: float
    ablated: float

    @property
    def recovered(self) -> float | None:
        """Fraction of the loss that the reconstruction recovers; 1 is perfect, 0 is no better than the mean.

        It is (ablated - spliced) / (ablated - clean), and None if ablation does not raise the cross-entropy.
        """
        gap = self.ablated - self.clean
        return (self.ablated - self.spliced) / gap if gap > 0 else None


def explained_variance(sae: Sae, x: Float[Tensor, "n d_model"]) -> float:
    """Compute the explained variance of an SAE's reconstruction of activations; 1 is perfect.

    It is 1 - |x - reconstruction|^2 / |x - mean|^2, with both terms summed over rows.

    Args:
        sae: The SAE.
        x: Activations at the SAE's site, one row per token.
    """
    x = x.float()
    left = (x - sae.reconstruct(x)).square().sum()
    return float(1 - left / (x - x.mean(dim=0)).square().sum())


def check_sae(
    sae: Sae, model: Any, sequences: Sequence[Sequence[int]], floor: float = 0.5, batch_tokens: int = 8192
) -> SaeCheck:
    """Check how well an SAE reconstructs a model's activations; a few thousand tokens suffice.

    Args:
        sae: The SAE.
        model: A loaded model or its runner.
        sequences: Token ids of the text.
        floor: Explained variance below which the result has a warning.
        batch_tokens: Most tokens in one batch.

    Raises:
        UserError: The model does not have the SAE's site or width, or the text is too short.
    """
    runner = runner_for(model)
    sae.check(runner)
    layers = [
        k for k in (sae.site.layer - 1, sae.site.layer, sae.site.layer + 1) if 0 <= k < runner.shape.n_layers
    ]
    states = token_states(runner, sequences, [replace(sae.site, layer=k) for k in layers], batch_tokens)
    compared = {site.layer: explained_variance(sae, x[:COMPARED]) for site, x in states.items()}
    x = states[sae.site]
    mean, left, total, fired = x.mean(dim=0), 0.0, 0.0, torch.zeros(sae.d_sae)
    for rows in x.split(2048):
        with torch.no_grad():
            fired += (sae.encode(rows) != 0).float().sum(dim=0)
        left += float((rows - sae.reconstruct(rows)).square().sum())
        total += float((rows - mean).square().sum())
    explained = 1 - left / total
    return SaeCheck(
        explained,
        compared,
        float(fired.sum()) / len(x),
        fired / len(x),
        len(x),
        _warnings(sae, runner, explained, compared, floor),
    )


def own_text(model: Any, n: int = 16, length: int = 32, seed: int = 0) -> list[list[int]]:
    """Let the model write text at temperature 1, as token sequences.

    The computation is not added to the counters of the model's cost (`Meter`).

    Args:
        model: A loaded model or its runner.
        n: Number of sequences.
        length: Number of tokens that are sampled after the first token of each sequence (BOS if there is
            one).
        seed: Seed of the sampling.
    """
    runner = runner_for(model)
    tokenizer, meter = runner.tokenizer, runner.meter
    start = next((i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None), None)
    first = [start] if start is not None else runner.encode("The")[:1]
    runner.meter = Meter()
    try:
        new = runner.generate(torch.tensor([first] * n), length, 1.0, torch.Generator().manual_seed(seed))
    finally:
        runner.meter = meter
    return [first + row for row in new.tolist()]


def splice(
    sae: Sae, model: Any, sequences: Sequence[Sequence[int]], batch_tokens: int = 4096
) -> SpliceEvaluation:
    """Measure the cross-entropy of text with a site's activations replaced by their reconstruction.

    The activation at the first token of each sequence is not replaced.

    Args:
        sae: The SAE.
        model: A loaded model or its runner.
        sequences: Token ids of the text.
        batch_tokens: Most tokens in one batch.

    Returns:
        Cross-entropies with unchanged activations, with the reconstruction, and with the mean.
    """
    runner = runner_for(model)
    mean = token_states(runner, sequences, [sae.site], batch_tokens)[sae.site].mean(dim=0)

    def keeping_first(new: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: torch.cat([x[:, :1], new(x[:, 1:]).to(x.dtype)], dim=1)

    edits = (
        None,
        keeping_first(sae.reconstruct),
        keeping_first(lambda x: mean.to(x.device).reshape(x.shape[2:]).expand(x.shape)),
    )
    return SpliceEvaluation(
        *(_cross_entropy(runner, sequences, sae.site, edit, batch_tokens) for edit in edits)
    )


def token_states(
    runner: Runner, sequences: Sequence[Sequence[int]], sites: Sequence[Site], batch_tokens: int = 8192
) -> dict[Site, Float[Tensor, "n d_model"]]:
    """Read the activations of all tokens but the first of each sequence.

    Args:
        runner: The model's runner.
        sequences: Token ids of the text.
        sites: Where in the model to read.
        batch_tokens: Most tokens in one batch.

    Returns:
        For each site, float32 [token, width] on the CPU, with attention heads flattened.
    """
    kept: dict[Site, list[Tensor]] = {site: [] for site in sites}
    usable = [s for s in sequences if len(s) > 1]
    if not usable:
        raise UserError("no text to check on: expected sequences of at least two tokens")
    for batch in length_batches(usable, runner.at_most(batch_tokens)):
        states = read_all(runner, [usable[i] for i in batch], sites)
        for site in sites:
            kept[site].extend(
                states[site][row, 1 : len(usable[i])].float().cpu().flatten(1) for row, i in enumerate(batch)
            )
    return {site: torch.cat(rows) for site, rows in kept.items()}


def _warnings(
    sae: Sae, runner: Runner, explained: float, by_layer: dict[int, float], floor: float
) -> tuple[str, ...]:
    found, layer, name = [], sae.site.layer, f"SAE {sae.name!r}"
    if not explained >= floor:  # also true for nan
        explains = f"{name} explains {explained:.2f} of the variance at {sae.site.name}"
        found.append(f"{explains}, less than {floor:.2f}: another model, layer or scale?")
    best = max(by_layer, key=lambda k: by_layer[k])
    if best != layer and by_layer[best] > by_layer[layer] + 0.02:
        explains = f"{name} explains layer {best} better ({by_layer[best]:.2f})"
        found.append(f"{explains} than layer {layer} that its file names ({by_layer[layer]:.2f})")
    trained_on = sae.metadata.get("model_fingerprint")
    if trained_on is not None and trained_on != runner.fingerprint:
        found.append(
            f"{name} was trained on a model with fingerprint {trained_on}, this one has {runner.fingerprint}"
        )
    return tuple(found)


@torch.no_grad()
def _cross_entropy(
    runner: Runner,
    sequences: Sequence[Sequence[int]],
    site: Site,
    edit: Callable[[Tensor], Tensor] | None,
    batch_tokens: int,
) -> float:
    total, count = 0.0, 0
    usable = [s for s in sequences if len(s) > 1]
    for batch in length_batches(usable, runner.at_most(batch_tokens)):
        ids = pad_right([usable[i] for i in batch]).to(runner.device)
        with ExitStack() as stack:
            if edit is not None:
                stack.enter_context(runner.edit(site.name, edit))
            resid, _ = runner.run(runner.embed(ids), 0, runner.shape.n_layers)
        for row, i in enumerate(batch):
            n = len(usable[i])
            total -= float(runner.log_probs_of(resid[row, : n - 1], ids[row, 1:n, None]).sum())
            count += n - 1
    return total / count
