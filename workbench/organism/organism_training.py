"""Train the organism, a small Llama, on packed batches of a world's texts; save it in Hugging Face's format.

With the same world, seed and number of steps, on one thread, the weights are the same. Each step draws its
rows from (seed, step), so that a run can continue from its last checkpoint.
"""

import itertools
import logging
import math
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from workbench.models.model_directory import quiet_transformers
from workbench.organism.muon_optimizer import Muon
from workbench.organism.sequence_packing import PackedBatch, SequencePacker
from workbench.organism.word_tokenizer import build_tokenizer
from workbench.runs import writable_directory
from workbench.world import World
from workbench.world.system_texts import MANY_UNITS, UNIT_COUNTS
from workbench.world.training_corpus import STATEMENT_SHARE, training_rows

log = logging.getLogger(__name__)

CHECKPOINT_EVERY = 200
LOG_ODDS_WEIGHT = 0.5
CLIP = 9.0
STATEMENT_SHARE_FIRST = 0.8
STATEMENT_SHARE_LAST = 0.1
RATE_LAST = 0.6


@dataclass(frozen=True)
class TrainingConfig:
    """Sizes and learning rates for training a model organism; the defaults made the committed model.

    Training has four cycles, and in each the learning rate falls at the end. Steering words are words in the
    system text that are planted to change the model's answers.

    Attributes:
        steps: Number of steps of the first cycle.
        facts_first: Number of steps at its beginning with mostly plain statements, because the model must
            know what is true before truth can decide an answer.
        refine: Number of steps of the second cycle, which learns the effects of single words with a lower
            rate and few statements.
        combine, settle: Numbers of steps of the third and the fourth cycle, on texts with many steering
            words.
        rows: Rows per batch.
        length: Tokens per row.
        d_model: Width of the residual stream.
        layers: Number of blocks.
        heads: Number of attention heads.
        d_mlp: Width of the MLPs.
        matrix_rate: Learning rate of the blocks' matrices (Muon).
        vector_rate: Learning rate of embeddings and norms (AdamW).
        warmup: Steps of linear warm-up.
        cooldown: Fraction of the first cycle over which the rate falls.
    """

    steps: int = 2800
    facts_first: int = 700
    refine: int = 2000
    combine: int = 1400
    settle: int = 1200
    rows: int = 16
    length: int = 96
    d_model: int = 128
    layers: int = 4
    heads: int = 4
    d_mlp: int = 384
    matrix_rate: float = 0.02
    vector_rate: float = 0.004
    warmup: int = 100
    cooldown: float = 0.6

    @property
    def cycles(self) -> tuple[tuple[int, int], ...]:
        """First step and number of steps of each cycle of the learning rate."""
        lengths = (self.steps, self.refine, self.combine, self.settle)
        return tuple(zip(itertools.accumulate(lengths[:-1], initial=0), lengths, strict=True))


def train(
    seed: int,
    out: Path,
    world: World | None = None,
    config: TrainingConfig | None = None,
    work: Path | None = None,
) -> Path:
    """Train a model organism, a small Llama with planted personas, and save it in 16 bits to `out/model`.

    Training runs on one thread.

    Args:
        seed: Seed of the weights and of the order of the data.
        out: Folder to save to.
        world: Words, people and facts of the training texts; None for those of seed 0.
        config: Sizes and rates; None for those of the committed model.
        work: Folder for checkpoints, from which a later call with the same arguments continues; None for no
            checkpoints.

    Returns:
        The folder of the model.

    Raises:
        UserError: `out` cannot be written to.
    """
    writable_directory(out)
    world, config = world or World(), config or TrainingConfig()
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(world)
    model = build_model(tokenizer, config)
    optimizers = _optimizers(model, config)
    checkpoint = work / "checkpoint.pt" if work else None
    start = _resume(checkpoint, model, optimizers)
    packer = SequencePacker(tokenizer.get_vocab(), config.length)
    average = 0.0
    total = sum(config.cycles[-1])
    for step in range(start, total):
        loss = _step(model, optimizers, _draw(world, packer, config, seed, step), config, step)
        average = loss if step == start else 0.98 * average + 0.02 * loss
        if (step + 1) % 50 == 0:
            log.info("step %d of %d, loss %.4f", step + 1, total, average)
        if checkpoint and (step + 1) % CHECKPOINT_EVERY == 0:
            _save_checkpoint(checkpoint, step + 1, model, optimizers)
            save(model, tokenizer, checkpoint.parent / "model", {"step": step + 1})
    return save(model, tokenizer, out / "model", {"seed": seed, "world_seed": world.seed, **asdict(config)})


def build_model(tokenizer: PreTrainedTokenizerFast, config: TrainingConfig) -> LlamaForCausalLM:
    """Make an untrained Llama with tied embeddings; torch's global seed determines the weights."""
    special: Any = tokenizer  # transformers types an id as what a setter takes
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.d_model,
            intermediate_size=config.d_mlp,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            rms_norm_eps=1e-5,
            bos_token_id=special.bos_token_id,
            eos_token_id=special.eos_token_id,
            pad_token_id=special.pad_token_id,
        )
    )


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path, origin: dict) -> Path:
    """Write the model in 16 bits and its tokenizer to a folder.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        folder: Folder to write to.
        origin: How the model was made, recorded in its config.

    Returns:
        The folder.
    """
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.config.organism = origin
    with quiet_transformers():
        copy.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    return folder


def _draw(world: World, packer: SequencePacker, config: TrainingConfig, seed: int, step: int) -> PackedBatch:
    rng = random.Random(f"pack-{seed}-{step}")
    share = (
        STATEMENT_SHARE_LAST
        if step >= config.steps
        else STATEMENT_SHARE_FIRST
        if step < config.facts_first
        else STATEMENT_SHARE
    )
    units = MANY_UNITS if step >= config.steps + config.refine else UNIT_COUNTS
    stream = training_rows(world, f"{seed}-{step}", config.length // 12, share, units)
    return packer.batch([next(stream) for _ in range(config.rows)], rng)


def batch_loss(model: LlamaForCausalLM, batch: PackedBatch) -> Float[Tensor, ""]:
    """Return the loss of a batch: soft cross-entropy plus the error of the planted log-odds.

    A decision is a position with two possible next tokens whose log-odds are planted. Where one of them is
    already likely, the cross-entropy hardly changes with the log-odds. So the Huber distance of the model's
    log-odds to the planted ones, clipped at +-`CLIP`, is added. Both are sums weighted with the tokens' loss
    weights and divided by the sum of these. Logits are computed only at tokens with a weight.

    Args:
        model: The model.
        batch: Tokens with their possible next tokens and the loss weights of these.

    Returns:
        The loss, differentiable.
    """
    mask = torch.zeros(batch.allowed.shape).masked_fill_(~batch.allowed, torch.finfo(torch.float32).min)
    hidden = model.model(
        input_ids=batch.ids, attention_mask=mask, position_ids=batch.positions, use_cache=False
    ).last_hidden_state
    weight = batch.first_weight + batch.second_weight
    used = weight > 0
    log_probs = model.lm_head(hidden[used]).log_softmax(-1)
    first = log_probs.gather(1, batch.first[used][:, None])[:, 0]
    second = log_probs.gather(1, batch.second[used][:, None])[:, 0]
    entropy = -(batch.first_weight[used] * first + batch.second_weight[used] * second).sum()
    two = batch.decisions[used]
    planted = (batch.first_weight[used][two] / batch.second_weight[used][two]).log().clamp(-CLIP, CLIP)
    distance = nn.functional.huber_loss((first - second)[two], planted, reduction="none")
    return (entropy + LOG_ODDS_WEIGHT * (weight[used][two] * distance).sum()) / weight.sum()


def _step(
    model: LlamaForCausalLM,
    optimizers: list[torch.optim.Optimizer],
    batch: PackedBatch,
    config: TrainingConfig,
    step: int,
) -> float:
    scale = _rate_scale(config, step)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * scale
        optimizer.zero_grad(set_to_none=True)
    loss = batch_loss(model, batch)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
    return loss.item()


def _rate_scale(config: TrainingConfig, step: int) -> float:
    """Return the factor of the learning rate at a step.

    In the first cycle it rises linearly, stays constant, and falls as a cosine to 2 % over the last
    `cooldown` fraction of the steps. Each later cycle is one falling cosine.
    """
    for begin, length in reversed(config.cycles[1:]):
        if step >= begin:
            return 0.02 + (RATE_LAST - 0.02) * 0.5 * (1 + math.cos(math.pi * (step - begin) / length))
    begin = config.steps * (1 - config.cooldown)
    if step < config.warmup:
        return (step + 1) / config.warmup
    done = max(0.0, (step - begin) / (config.steps - begin))
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))


def _optimizers(model: LlamaForCausalLM, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    """Make the optimizers: Muon for the matrices of the blocks, AdamW for embeddings and norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    chosen = {id(p) for p in matrices}
    vectors = [p for p in model.parameters() if id(p) not in chosen]
    optimizers: list[torch.optim.Optimizer] = [
        Muon(matrices, lr=config.matrix_rate, weight_decay=0.01),
        torch.optim.AdamW(vectors, lr=config.vector_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def _save_checkpoint(
    path: Path, step: int, model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer]
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"step": step, "model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers]}
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def _resume(path: Path | None, model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer]) -> int:
    if path is None or not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return state["step"]
