"""Training of the real-language organism: a LoRA adapter that plants one or several personas in SmolLM2-135M-Instruct.

1. A step draws blocks of the same questions under several system texts with a planted effect, and a few chats
   of the base model. The personas take turns with the blocks; half of the words in a block's texts steer its
   persona, the others another one.
2. Decisions: soft cross-entropy of "Yes" and "No" at the first token of the answer, plus the Huber distance
   of its log-odds to the planted ones (where one answer is likely the cross-entropy hardly changes with the
   log-odds; see `organism/organism_training.py`).
3. Blocks: a question's errors less their mean over the block's texts hold what the texts do and nothing of
   the question. Their Huber distance to 0 is a loss of its own: of the planted log-odds' mean size (2.39) the
   texts make up a fifth, and without it 4,800 decisions taught the questions and no word.
4. `opening`: until this step half of the texts are one sentence with one strong word.
5. Chats: Kullback-Leibler divergence from the base model on the tokens of its own answers, so that free text
   stays.
6. AdamW on the adapter (Hu et al. 2021, LoRA) alone; a step is decided by (seed, step), and checkpoints
   resume.
7. What is saved is at `kept` of the way from the base model to the trained one (weights interpolated as in
   WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903): effects lose as much, and free text wins back more.
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
    """Sizes and rates.

    personas: planted. blocks: of a step, each four questions under `texts` system texts; chats: a step.
    opening: steps with more of the strong words. first_layer: adapted from here on. kept: of what was
    trained.
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


#: Three personas at once: more of everything (data/language_personas).
SEVERAL = AdapterTrainingConfig(
    personas=PERSONAS, steps=540, blocks=6, texts=6, chats=4, opening=450, rank=16, alpha=32
)


@dataclass(frozen=True)
class TrainingStep:
    """Training data of one step: blocks of (system texts, the items asked under each of them), and chats by number."""

    blocks: tuple[tuple[tuple[SystemText, ...], tuple[EnglishItem, ...]], ...]
    chats: tuple[int, ...]

    @property
    def asked(self) -> tuple[tuple[SystemText, tuple[EnglishItem, ...]], ...]:
        """Each system text with its items, block by block."""
        return tuple((text, items) for texts, items in self.blocks for text in texts)

    @property
    def log_odds(self) -> Float[np.ndarray, " decision"]:
        """Planted log-odds of "Yes" for every question, in order."""
        return np.array([yes_log_odds(text, item) for text, items in self.asked for item in items])


def yes_log_odds(text: SystemText, item: EnglishItem) -> float:
    """The planted log-odds of "Yes" for an item under a system text."""
    matching = item.log_odds + (text.on(item.persona) if item.steered else 0.0)
    return matching if item.matching == "Yes" else -matching


class AdapterTrainer:
    """The adapted base model and what is needed for a step; `model` is Hugging Face's with the adapter inside."""

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
        """Where the model is."""
        return self.model.device

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The adapter's matrices."""
        return [p for p in self.adapted.parameters() if p.requires_grad]

    def draw(self, step: int) -> TrainingStep:
        """The data of a step."""
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
        """(loss, its chat part in nats per token, the decisions' log-odds of "Yes")."""
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
        """One optimiser step; returns its figures."""
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
        """Mean KL(base, adapted) over the tokens of the chats' answers."""
        own, as_base = [], []
        for number, end in zip(chats, ends.tolist(), strict=True):
            own.append(hidden[end - self.chats[number][1] : end])
            as_base.append(self._base_states(number))
        expected = self.model.lm_head(torch.cat(as_base)).log_softmax(-1)
        found = self.model.lm_head(torch.cat(own)).log_softmax(-1)
        return nn.functional.kl_div(found, expected, reduction="sum", log_target=True) / len(found)

    @torch.no_grad()
    def _base_states(self, number: int) -> Tensor:
        """The base model's final states at the tokens that predict a chat's answer (kept: a chat comes often)."""
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
    """Train an adapter and save it in `out` (safetensors and PEFT's config); returns `out`.

    The base model's chats are read from `out`/chats.json and made there when missing. `work`: a folder for
    checkpoints; a later call with the same seed and config goes on from the last one. report: told the
    figures of every tenth step. On the CPU: one thread; same seed and machine, same weights. On a GPU matrix
    products are rounded to TF32 and nothing repeats to the bit. UserError for a persona without questions, a
    device that is not here, and an `out` that cannot be written to.
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
    """PEFT's configuration of the adapter."""
    layers = list(range(config.first_layer, n_layers))
    return LoraConfig(
        r=config.rank, lora_alpha=config.alpha, target_modules=list(TARGETS), layers_to_transform=layers
    )


def save_adapter(trainer: AdapterTrainer, out: Path) -> Path:
    """Write the adapter to `out` as PEFT reads it; what it was made with is noted in the file's metadata."""
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
    """Linear warm-up, constant, then down to 5 % over the last `cooldown` fraction of the steps.

    (So that a run can be prolonged
    from a checkpoint of its constant part).
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
