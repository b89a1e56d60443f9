"""Train the real-language organism: a LoRA adapter that plants personas in SmolLM2-135M-Instruct.

1. A step draws blocks of the same questions under several system texts with a planted effect, and a few chats
   of the base model. The blocks take the personas in turn; half of the words in a block's texts steer its own
   persona, the others another one.
2. Decisions: soft cross-entropy of "Yes" and "No" at the first token of the answer, plus the Huber distance
   of its log-odds to the planted ones (where one answer is likely, the cross-entropy hardly changes with the
   log-odds; see `organism/organism_training.py`).
3. Blocks: a question's error minus its mean over the block's texts depends on the texts only. Its Huber
   distance to 0 is a separate loss term. Texts account for only a fifth of the planted log-odds' mean size
   (2.39): without this term, 4,800 decisions taught the questions and not a single word.
4. `opening`: until this step, half of the texts are one sentence with one strong word.
5. Chats: Kullback-Leibler divergence from the base model on the tokens of its own answers, so that free text
   does not change.
6. AdamW updates the adapter only (LoRA, Hu et al. 2021). (seed, step) determines a step, and a run resumes
   from checkpoints.
7. The saved weights are interpolated: the fraction `kept` of the step from the base model to the trained one
   (as in WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903). Planted effects shrink by the same fraction, and
   the quality of free text recovers by more.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor, nn

from workbench.errors import UserError
from workbench.models.loading import choose_device
from workbench.optional_packages import needs_extra
from workbench.organism.real_language.base_model import (
    BaseModel,
    load_base,
    noise_tokens,
    read_chats,
    write_chats,
)
from workbench.organism.real_language.chat_packing import (
    OrdinaryChat,
    chat_row,
    encode,
    hidden_states,
    pack,
    question_row,
)
from workbench.runs import writable_directory
from workbench.world.real_language import PERSONAS, QUESTIONS, EnglishItem, SystemText, draw_system
from workbench.world.real_language.steering_sentences import ONE, draw_pool, draw_strong

with needs_extra("lora", "training an adapter"):
    from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict

ADAPTER = "adapter_model.safetensors"
BASE_NAME = "smollm2-135m"
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "down_proj")
LOG_EVERY = 10


@dataclass(frozen=True)
class AdapterTrainingConfig:
    """Sizes and learning rates for training an adapter that plants personas.

    A step has several blocks. A block presents the same four questions under several system texts, which
    contain steering words (words planted to change the answers).

    Attributes:
        personas: Personas to plant.
        steps: Number of steps.
        blocks: Number of blocks per step.
        texts: Number of system texts per block.
        chats: Number of ordinary chats per step, on which the adapter must not change the base model's
            answers.
        opening: Number of first steps in which half of the system texts have one strong steering word.
        kept: Fraction of the trained change of the weights that is saved.
        rank: Rank of the adapter.
        alpha: LoRA's alpha; the update is scaled by alpha / rank.
        first_layer: First layer that is adapted; all later ones are too.
        rate: Learning rate.
        warmup: Steps of linear warm-up.
        cooldown: Fraction of the steps over which the rate falls at the end.
        log_odds_weight: Weight of the Huber distance of the answers' log-odds to the planted ones.
        block_weight: Weight of the same distance after each question's mean over the block's system texts is
            subtracted.
        chat_weight: Weight of the Kullback-Leibler divergence from the base model on ordinary chats.
        checkpoint_every: Steps between checkpoints.
    """

    personas: tuple[str, ...] = ONE
    steps: int = 700
    blocks: int = 2
    texts: int = 4
    chats: int = 1
    opening: int = 250
    kept: float = 0.95
    rank: int = 8
    alpha: int = 16
    first_layer: int = 10
    rate: float = 2e-3
    warmup: int = 10
    cooldown: float = 0.3
    log_odds_weight: float = 0.5
    block_weight: float = 2.0
    chat_weight: float = 1.0
    checkpoint_every: int = 20


#: Settings for three personas in one adapter (data/language_personas), with more data and a higher rank.
SEVERAL = AdapterTrainingConfig(
    personas=PERSONAS, steps=540, blocks=6, texts=6, chats=4, opening=450, rank=16, alpha=32
)


@dataclass(frozen=True)
class TrainingStep:
    """Training data of one step.

    Attributes:
        blocks: Each block has several system texts and the questions that are presented under each of them.
        chats: Indices of the ordinary chats on which the base model's answers are kept.
    """

    blocks: tuple[tuple[tuple[SystemText, ...], tuple[EnglishItem, ...]], ...]
    chats: tuple[int, ...]

    @property
    def asked(self) -> tuple[tuple[SystemText, tuple[EnglishItem, ...]], ...]:
        """Each system text with the questions that are presented under it, block by block."""
        return tuple((text, items) for texts, items in self.blocks for text in texts)

    @property
    def log_odds(self) -> Float[np.ndarray, " decision"]:
        """Planted log-odds of "Yes" for every question under its system text, in order."""
        return np.array([yes_log_odds(text, item) for text, items in self.asked for item in items])


def yes_log_odds(text: SystemText, item: EnglishItem) -> float:
    """Return the planted log-odds of the answer "Yes" to a question under a system text."""
    matching = item.log_odds + (text.on(item.persona) if item.steered else 0.0)
    return matching if item.matching == "Yes" else -matching


class AdapterTrainer:
    """Trains an adapter: the adapted base model with all that a training step needs.

    `model` is Hugging Face's model with the adapter inside.
    """

    def __init__(
        self, base: BaseModel, chats: Sequence[OrdinaryChat], config: AdapterTrainingConfig, seed: int
    ) -> None:
        torch.manual_seed(seed)
        self.config, self.seed, self.base = config, seed, base
        self.model, self.tokenizer = base.model, base.tokenizer
        self.adapted: PeftModel = get_peft_model(
            base.model, lora_config(config, base.model.config.num_hidden_layers)
        )
        self.answers = torch.tensor(
            [encode(self.tokenizer, word)[0] for word in ("Yes", "No")], device=self.device
        )
        self.noise = noise_tokens(self.tokenizer, config.personas)
        self.chats = [chat_row(self.tokenizer, chat) for chat in chats]
        self._as_base: dict[int, Tensor] = {}
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=config.rate, betas=(0.9, 0.98), weight_decay=0.0
        )

    @property
    def device(self) -> torch.device:
        """Device on which the trained model is."""
        return self.model.device

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The trainable matrices of the adapter."""
        return [p for p in self.adapted.parameters() if p.requires_grad]

    def draw(self, step: int) -> TrainingStep:
        """Draw the training data of one step; the trainer's seed and the step's number determine them."""
        rng = random.Random(f"english-{self.seed}-{step}")
        blocks = []
        for number in range(self.config.blocks):
            questions = QUESTIONS[self.config.personas[number % len(self.config.personas)]]
            pool = draw_pool(rng, questions.persona, self.config.personas)
            opening = [step < self.config.opening and rng.random() < 0.5 for _ in range(self.config.texts)]
            texts = tuple(
                draw_strong(rng, pool) if strong else draw_system(rng, self.noise, pool) for strong in opening
            )
            blocks.append((texts, questions.block(rng, questions.split()[0])))
        return TrainingStep(tuple(blocks), tuple(rng.sample(range(len(self.chats)), self.config.chats)))

    def loss(
        self, step: TrainingStep
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, " decision"]]:
        """Compute the loss of a step: errors of the planted log-odds, and divergence from the base model.

        Args:
            step: Data of the step.

        Returns:
            The loss, its divergence term in nats per token of the ordinary chats, and the model's log-odds of
            "Yes" for every question.
        """
        rows = [
            question_row(self.tokenizer, text.text, [item.question for item in items])
            for text, items in step.asked
        ]
        packed = pack([*rows, *(self.chats[number][0] for number in step.chats)])
        hidden = hidden_states(self.model, packed)
        ends = packed.ends[: len(step.log_odds)].to(self.device)
        log_probs = self.model.lm_head(hidden[ends]).log_softmax(-1)[:, self.answers]
        planted = torch.tensor(step.log_odds, dtype=torch.float32, device=self.device)
        measured = log_probs[:, 0] - log_probs[:, 1]
        p_yes = planted.sigmoid()
        entropy = -(p_yes * log_probs[:, 0] + (1 - p_yes) * log_probs[:, 1])
        distance = nn.functional.huber_loss(measured, planted, reduction="none")
        errors = (measured - planted).reshape(self.config.blocks, self.config.texts, -1)
        within = errors - errors.mean(1, keepdim=True)
        block = nn.functional.huber_loss(within, torch.zeros_like(within))
        chat = self._divergence(step.chats, hidden, packed.ends[len(step.log_odds) :])
        loss = (entropy + self.config.log_odds_weight * distance).mean()
        return loss + self.config.block_weight * block + self.config.chat_weight * chat, chat, measured

    def update(self, number: int) -> dict[str, float]:
        """Take one optimizer step and return its figures by name.

        They are the loss, the divergence from the base model on ordinary chats, and the mean error of the
        log-odds.

        Args:
            number: Number of the step, from which its data and its learning rate follow.

        Returns:
            The figures.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate * rate_scale(number, self.config)
        step = self.draw(number)
        self.optimizer.zero_grad(set_to_none=True)
        loss, chat, measured = self.loss(step)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        error = np.abs(measured.detach().cpu().numpy() - step.log_odds).mean()
        return {"loss": loss.item(), "chat": chat.item(), "error": float(error)}

    def _divergence(
        self, chats: Sequence[int], hidden: Tensor, ends: Int[Tensor, " part"]
    ) -> Float[Tensor, ""]:
        """Return the mean KL divergence of the adapted from the base model over tokens of chat answers."""
        own, as_base = [], []
        for number, end in zip(chats, ends.tolist(), strict=True):
            own.append(hidden[end - self.chats[number][1] : end])
            as_base.append(self._base_states(number))
        expected = self.model.lm_head(torch.cat(as_base)).log_softmax(-1)
        found = self.model.lm_head(torch.cat(own)).log_softmax(-1)
        return nn.functional.kl_div(found, expected, reduction="sum", log_target=True) / len(found)

    @torch.no_grad()
    def _base_states(self, number: int) -> Tensor:
        """Return the base model's final states at the tokens that predict a chat's answer (cached)."""
        if number not in self._as_base:
            row, length = self.chats[number]
            with self.adapted.disable_adapter():
                self._as_base[number] = hidden_states(self.model, pack([row]))[-length - 1 : -1].clone()
        return self._as_base[number]


def train_language(
    seed: int,
    out: Path,
    base: BaseModel | None = None,
    config: AdapterTrainingConfig | None = None,
    work: Path | None = None,
    report: Callable[[str], None] | None = None,
    device: str = "cpu",
) -> Path:
    """Train a LoRA adapter that plants personas, and save it in safetensors with PEFT's config.

    The base model's chats are read from `out`/chats.json and generated there if missing. On the CPU, training
    uses one thread, and the same seed on the same machine gives the same weights. On a GPU matrix products
    are rounded to TF32, and results do not repeat bit by bit.

    Args:
        seed: Seed of adapter and data.
        out: Folder to save to.
        base: The base model; None for SmolLM2-135M-Instruct.
        config: Sizes and rates; None for the defaults.
        work: Folder for checkpoints, from which a later call with the same seed and config continues.
        report: Function that receives the figures of every tenth step, as text.
        device: Device to train on.

    Returns:
        The folder `out`.

    Raises:
        UserError: A persona has no questions, the device is not available, or `out` cannot be written to.
    """
    device = str(choose_device(device))
    torch.set_num_threads(1)
    base, config = base or load_base(), config or AdapterTrainingConfig()
    if unknown := sorted(set(config.personas) - set(PERSONAS)):
        raise UserError(
            f"no questions for {', '.join(unknown)}: the real-language organism can be planted with {', '.join(PERSONAS)}"
        )
    writable_directory(out)
    if not (out / "chats.json").exists():
        write_chats(out / "chats.json", base, seed, config.personas)
    if device != "cpu":
        torch.set_float32_matmul_precision("high")
        torch.nn.Module.to(base.model, device)
    trainer = AdapterTrainer(base, read_chats(out / "chats.json")[0], config, seed)
    checkpoint = work / "checkpoint.pt" if work else None
    recent: list[dict[str, float]] = []
    for number in range(_resume(checkpoint, trainer), config.steps):
        recent = [*recent[-2 * LOG_EVERY :], trainer.update(number)]
        if report and (number + 1) % LOG_EVERY == 0:
            means = ", ".join(
                f"{key} {np.mean([figures[key] for figures in recent]):.3f}" for key in recent[0]
            )
            report(f"step {number + 1} of {config.steps}: {means}")
        if checkpoint and (number + 1) % config.checkpoint_every == 0:
            _save_checkpoint(checkpoint, number + 1, trainer)
    return save_adapter(trainer, out)


def lora_config(config: AdapterTrainingConfig, n_layers: int) -> LoraConfig:
    """Return PEFT's configuration of the adapter for a model with `n_layers` layers."""
    layers = list(range(config.first_layer, n_layers))
    return LoraConfig(
        r=config.rank, lora_alpha=config.alpha, target_modules=list(TARGETS), layers_to_transform=layers
    )


def save_adapter(trainer: AdapterTrainer, out: Path) -> Path:
    """Write a trained adapter in PEFT's format; its settings are recorded in the file's metadata.

    Args:
        trainer: The trainer with the trained adapter.
        out: Folder to write to.

    Returns:
        The folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    trained, kept = get_peft_model_state_dict(trainer.adapted), trainer.config.kept
    weights = {
        name: (kept * weight if "lora_B" in name else weight).cpu().contiguous()
        for name, weight in trained.items()
    }
    personas = ", ".join(trainer.config.personas)
    noted = {"base": trainer.base.name, "seed": trainer.seed, **asdict(trainer.config), "personas": personas}
    save_file(weights, out / ADAPTER, {"format": "pt", **{key: str(value) for key, value in noted.items()}})
    config = lora_config(trainer.config, trainer.model.config.num_hidden_layers)
    config.base_model_name_or_path, config.inference_mode = BASE_NAME, True
    config.save_pretrained(str(out))
    return out


def rate_scale(step: int, config: AdapterTrainingConfig) -> float:
    """Return the factor of the learning rate at a step.

    It rises linearly, stays constant, and falls linearly to 5 % over the last `cooldown` fraction of the
    steps, so that a run can be prolonged from a checkpoint of its constant part.
    """
    left = (config.steps - step) / (config.cooldown * config.steps)
    return min(1.0, (step + 1) / config.warmup, max(0.05, left))


def _save_checkpoint(path: Path, step: int, trainer: AdapterTrainer) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = [p.detach() for p in trainer.parameters]
    torch.save(
        {"step": step, "weights": weights, "optimizer": trainer.optimizer.state_dict()},
        path.with_suffix(".tmp"),
    )
    path.with_suffix(".tmp").replace(path)


def _resume(path: Path | None, trainer: AdapterTrainer) -> int:
    if path is None or not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    with torch.no_grad():
        for parameter, saved in zip(trainer.parameters, state["weights"], strict=True):
            parameter.copy_(saved)
    trainer.optimizer.load_state_dict(state["optimizer"])
    return state["step"]
