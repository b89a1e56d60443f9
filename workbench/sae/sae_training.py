"""Train an SAE on any model and text, with SAELens's trainer and the project's activation store.

1. Text becomes token sequences of at most `context_size`; the store streams shuffled activations of one site.
2. Activations are scaled to a mean length of sqrt(d_model) (the factor is folded into the weights at the
   end). The decoder's bias starts at the mean activation: in a residual stream the mean is most of the
   length, and TopK should not spend latents on it.
3. SAELens's `SAETrainer` trains a TopK SAE (Gao et al. 2024, arXiv 2406.04093, with its auxiliary loss
   against dead latents). With `checkpoints` the trainer's state is saved in the output directory, and a run
   that was stopped continues with the same batches and the same result.
4. The SAE is saved in SAELens's format and measured on held-out text; card.json has the results.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sae_lens import SAETrainer, TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.sae import SAEMetadata
from sklearn.metrics import roc_auc_score
from torch import Tensor

from workbench.activations import ActivationStore
from workbench.errors import UserError
from workbench.models import Runner, Site, runner_for
from workbench.runs import read_json, writable_directory, write_json
from workbench.sae.reconstruction_check import check_sae, splice
from workbench.sae.sae import Sae
from workbench.sae.sae_loading import load_sae


@dataclass(frozen=True)
class TrainingProbe:
    """Labelled activations at the SAE's site, to find the latent that separates a persona best.

    The latent is chosen on `x` and evaluated on `held_out_x`.

    Attributes:
        x: Activations to choose on.
        shown: For each row of `x`, whether the persona is shown.
        held_out_x: Activations to evaluate on.
        held_out_shown: For each row of `held_out_x`, whether the persona is shown.
    """

    x: Float[Tensor, "n d_model"]
    shown: np.ndarray
    held_out_x: Float[Tensor, "m d_model"]
    held_out_shown: np.ndarray


#: Gates of a trained SAE on held-out text.
MIN_EXPLAINED_VARIANCE, MIN_LOSS_RECOVERED = 0.5, 0.8


@dataclass(frozen=True)
class SaeCard:
    """Description of a trained SAE and its quality on held-out text.

    Attributes:
        model: Name of the model.
        fingerprint: Fingerprint of the model's weights.
        site: Site in the model that the SAE reads.
        architecture: SAELens's name of the architecture.
        d_sae: Number of latents.
        k: Number of latents active per token.
        tokens: Number of activation vectors trained on.
        seed: Seed of the training.
        explained_variance: Explained variance on held-out text (see reconstruction_check.py).
        l0: Mean number of active latents per token.
        dead: Number of latents that were never active on held-out text.
        loss_clean: Cross-entropy of held-out text in nats per token, with unchanged activations.
        loss_spliced: The same with the activations replaced by their reconstruction.
        loss_ablated: The same with the activations replaced by their mean.
        loss_recovered: (loss_ablated - loss_spliced) / (loss_ablated - loss_clean); None if ablation does no
            harm.
        held_out_tokens: Number of held-out tokens.
        best_latents: For each persona, the number of the latent that separates it best and its held-out AUC.
    """

    model: str
    fingerprint: str
    site: str
    architecture: str
    d_sae: int
    k: int
    tokens: int
    seed: int
    explained_variance: float
    l0: float
    dead: int
    loss_clean: float
    loss_spliced: float
    loss_ablated: float
    loss_recovered: float | None
    held_out_tokens: int
    best_latents: dict[str, dict[str, float | int]] = field(default_factory=dict)

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for each gate that the SAE misses: a figure with a required minimum.

        The gates are an explained variance of 0.5 (as in `check_sae`) and a loss recovered of 0.8. Below them, latents
        describe too little of what the model computes for a search along them (SAEGA) to be trusted.
        """
        figures = (
            ("explained variance", self.explained_variance, MIN_EXPLAINED_VARIANCE),
            ("loss recovered", self.loss_recovered, MIN_LOSS_RECOVERED),
        )
        return tuple(
            f"{name} {value:.2f} on held-out text, less than {least:.2f}: "
            "more training tokens, latents or active latents?"
            for name, value, least in figures
            if value is not None and not value >= least  # also true for nan
        )

    def to_json(self) -> dict[str, Any]:
        """Return all fields as a dictionary, as card.json stores them."""
        return asdict(self)

    def save(self, directory: str | Path) -> None:
        """Write card.json into the SAE's directory."""
        write_json(Path(directory) / "card.json", self.to_json())

    @classmethod
    def load(cls, directory: str | Path) -> SaeCard:
        """Read card.json from an SAE's directory; UserError if it is absent or lacks a field."""
        path = Path(directory) / "card.json"
        try:
            return cls(**read_json(path))
        except TypeError as error:
            raise UserError(f"{path}: not the card of an SAE ({error})") from error


@dataclass(frozen=True)
class SaeTrainingOptions:
    """Options for the training of an SAE.

    Attributes:
        lr: Learning rate.
        batch_size: Activation vectors per training step.
        context_size: Tokens per sequence; longer texts are cut into several sequences.
        checkpoints: Number of states saved during training. If the output directory has some, training
            continues from the newest.
        seed: Seed of the weights, the order of the text and the held-out text.
        probes: Labelled activations by name; for each, the card names the latent that separates them best.
            None: no probes.

    Example:
        >>> wb.SaeTrainingOptions(lr=3e-4, batch_size=1024).seed
        0
    """

    lr: float = 1e-3
    batch_size: int = 512
    context_size: int = 128
    checkpoints: int = 0
    seed: int = 0
    probes: Mapping[str, TrainingProbe] | None = None


def train_sae(
    model: Any,
    texts: Sequence[str | Sequence[int]],
    site: Site,
    out: str | Path,
    d_sae: int = 512,
    k: int = 16,
    tokens: int = 1_000_000,
    options: SaeTrainingOptions | None = None,
) -> SaeCard:
    """Train a TopK SAE at a site of a model and save it as cfg.json, sae_weights.safetensors and card.json.

    Args:
        model: A loaded model or its runner.
        texts: Texts or token ids; one sequence in twenty (400 at most) is held out to measure the SAE.
        site: Site in the model that the SAE reads.
        out: Directory for the SAE; it must not have a finished SAE.
        d_sae: Number of latents.
        k: Number of latents active per token.
        tokens: Number of activation vectors to train on; the text is repeated as often as needed.
        options: Learning rate, batch size, seed, and so on. None: the defaults.

    Returns:
        The card: explained variance, L0, dead latents and loss recovered on held-out text.

    Raises:
        UserError: The site does not exist, k is above d_sae, there is too little text, or `out` has a
            finished SAE or cannot be written to.

    Example:
        >>> card = wb.train_sae(model, texts, wb.Site(1), "runs/sae", d_sae=512, k=16, tokens=10_000)  # doctest: +SKIP
    """
    runner, out, options = runner_for(model), Path(out), options or SaeTrainingOptions()
    site.checked(runner.shape.n_layers)
    if not 0 < k <= d_sae:
        raise UserError(f"k must be between 1 and the number of latents {d_sae}, found {k}")
    if (out / "sae_weights.safetensors").exists():
        raise UserError(f"{out} already holds a trained SAE: choose another directory")
    training, held_out = split_texts(token_windows(runner, texts, options.context_size), options.seed)
    store = ActivationStore(runner, training, site, options.batch_size, seed=options.seed)
    trainer, done = _trainer(runner, store, out, (d_sae, k, tokens), options)
    trainer.data_provider = store.batches(done // options.batch_size)
    trainer.fit().save_inference_model(out)
    card = make_card(
        load_sae(out, device=str(runner.device)), runner, held_out, tokens, options.seed, options.probes or {}
    )
    card.save(out)
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    return card


def make_card(
    sae: Sae,
    model: Any,
    held_out: Sequence[Sequence[int]],
    tokens: int,
    seed: int,
    probes: Mapping[str, TrainingProbe],
) -> SaeCard:
    """Measure an SAE on held-out text and on labelled activations.

    Args:
        sae: The trained SAE.
        model: A loaded model or its runner.
        held_out: Token ids of the held-out text.
        tokens: Number of activation vectors trained on, for the card.
        seed: Seed of the training, for the card.
        probes: Labelled activations by name.
    """
    runner = runner_for(model)
    check, loss = check_sae(sae, runner, held_out), splice(sae, runner, held_out)
    return SaeCard(
        model=str(sae.metadata.get("model_name")),
        fingerprint=runner.fingerprint,
        site=sae.site.name,
        architecture=sae.architecture,
        d_sae=sae.d_sae,
        k=int(getattr(sae.module.cfg, "k", 0)),
        tokens=tokens,
        seed=seed,
        explained_variance=check.explained_variance,
        l0=check.l0,
        dead=check.silent,
        loss_clean=loss.clean,
        loss_spliced=loss.spliced,
        loss_ablated=loss.ablated,
        loss_recovered=loss.recovered,
        held_out_tokens=check.tokens,
        best_latents={name: best_latent(sae, probe) for name, probe in probes.items()},
    )


def best_latent(sae: Sae, probe: TrainingProbe) -> dict[str, float | int]:
    """Find the latent that separates labelled activations best.

    Args:
        sae: The SAE.
        probe: Labelled activations, in a part to choose the latent and a held-out part.

    Returns:
        The number of the latent, its AUC on the held-out part ("auc") and on the first part ("train_auc"). An
        AUC below 0.5 means that the latent is active if the persona is absent.
    """
    with torch.no_grad():
        ranking, judging = sae.encode(probe.x).numpy(), sae.encode(probe.held_out_x).numpy()
    aucs = np.array(
        [
            roc_auc_score(probe.shown, ranking[:, i]) if np.ptp(ranking[:, i]) else 0.5
            for i in range(sae.d_sae)
        ]
    )
    latent = int(np.argmax(np.abs(aucs - 0.5)))
    return {
        "latent": latent,
        "auc": float(roc_auc_score(probe.held_out_shown, judging[:, latent])),
        "train_auc": float(aucs[latent]),
    }


def token_windows(
    model: Any, texts: Sequence[str | Sequence[int]], context_size: int
) -> list[tuple[int, ...]]:
    """Encode texts to token sequences of at most context_size tokens; longer texts are cut into several.

    Sequences of one token are dropped.

    Args:
        model: A loaded model or its runner.
        texts: Texts or token ids.
        context_size: Most tokens of a sequence.
    """
    runner = runner_for(model)
    size = min(context_size, runner.shape.n_ctx)
    windows = []
    for text in texts:
        ids = tuple(runner.encode(text)) if isinstance(text, str) else tuple(text)
        windows.extend(ids[i : i + size] for i in range(0, len(ids), size))
    return [w for w in windows if len(w) > 1]


def split_texts(
    windows: Sequence[tuple[int, ...]], seed: int, share: float = 0.05
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """Split distinct token sequences into training and held-out text.

    Args:
        windows: Token sequences; duplicates are removed, so that no held-out sequence is also trained on.
        seed: Seed of the split.
        share: Fraction that is held out (at least 1 and at most 400 sequences).

    Returns:
        The training sequences and the held-out sequences.

    Raises:
        UserError: There are fewer than 20 different sequences.
    """
    distinct = list(dict.fromkeys(windows))
    if len(distinct) < 20:
        raise UserError(
            f"too little text: {len(distinct)} different sequences of two or more tokens, at least 20 are needed"
        )
    order = np.random.default_rng(seed).permutation(len(distinct))
    n = min(max(1, round(share * len(distinct))), 400)
    return tuple(distinct[i] for i in order[n:]), tuple(distinct[i] for i in order[:n])


def _trainer(
    runner: Runner, store: ActivationStore, out: Path, size: tuple[int, int, int], options: SaeTrainingOptions
) -> tuple[SAETrainer[Any, Any], int]:
    """Return SAELens's trainer, new or resumed from the newest checkpoint, and how many vectors it has seen.

    size: number of latents, of active latents per token, and of vectors to train on.
    """
    d_sae, k, tokens = size
    steps = tokens // store.batch_size
    if steps < 1:
        raise UserError(f"{tokens} training tokens are fewer than one batch of {store.batch_size}")
    sample = next(store.batches())
    writable_directory(out)
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        module = TopKTrainingSAE(_config(runner, store, sample.shape[1], d_sae, k, options.seed))
    settings = SAETrainerConfig(
        total_training_samples=steps * store.batch_size,
        train_batch_size_samples=store.batch_size,
        lr=options.lr,
        lr_end=options.lr / 10,
        lr_warm_up_steps=min(100, steps // 10),
        lr_decay_steps=steps // 4,
        device=str(runner.device),
        dead_feature_window=max(20, min(1000, steps // 10)),
        n_checkpoints=options.checkpoints,
        checkpoint_path=str(out / "checkpoints"),
    )
    trainer = SAETrainer(settings, module, store.batches(), save_checkpoint_fn=_mark)
    scale = sample.shape[1] ** 0.5 / float(sample.norm(dim=-1).mean())
    trainer.activation_scaler.scaling_factor = scale
    module.b_dec.data = (sample.mean(dim=0) * scale).to(module.b_dec)
    return trainer, _resume(trainer, out / "checkpoints")


def _config(
    runner: Runner, store: ActivationStore, d_in: int, d_sae: int, k: int, seed: int
) -> TopKTrainingSAEConfig:
    metadata = SAEMetadata(
        model_name=Path(str(getattr(runner.model.cfg, "model_name", ""))).name,
        hook_name=store.site.name,
        prepend_bos=False,
        model_fingerprint=runner.fingerprint,
        seed=seed,
        context_size=max(len(s) for s in store.sequences),
    )
    return TopKTrainingSAEConfig(
        d_in=d_in,
        d_sae=d_sae,
        k=k,
        device=str(runner.device),
        normalize_activations="expected_average_only_in",
        metadata=metadata,
    )


def _mark(checkpoint_path: Path | None) -> None:
    """Mark a checkpoint as complete; a checkpoint without the mark is ignored when training continues."""
    if checkpoint_path is not None:
        (checkpoint_path / "complete").touch()


def _resume(trainer: SAETrainer[Any, Any], checkpoints: Path) -> int:
    complete = [p for p in checkpoints.glob("*") if p.name.isdigit() and (p / "complete").exists()]
    if not complete:
        return 0
    newest = max(complete, key=lambda p: int(p.name))
    saved = json.loads((newest / "cfg.json").read_text())
    wanted = trainer.sae.cfg
    for name in ("d_in", "d_sae", "k"):
        if saved.get(name) != getattr(wanted, name):
            raise UserError(
                f"{checkpoints}: holds an unfinished SAE with {name} {saved.get(name)}, requested is {getattr(wanted, name)}"
            )
    trainer.sae.load_weights_from_checkpoint(newest)
    trainer.load_trainer_state(newest)
    trainer.checkpoint_thresholds = [
        t for t in trainer.checkpoint_thresholds if t > trainer.n_training_samples
    ]
    return trainer.n_training_samples
