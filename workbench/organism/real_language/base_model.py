"""The base model of the real-language organism in Hugging Face's form, its chats, and its noise tokens."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

from workbench.errors import UserError
from workbench.models.gguf_files import smollm_directory
from workbench.organism.real_language.chat_packing import OrdinaryChat, encode, render
from workbench.world.real_language.ordinary_chat import requests
from workbench.world.real_language.steering_sentences import ONE, draw_system, steering_words, units

ANSWER_TOKENS = 56
HELD_OUT_EVERY = 7


@dataclass(frozen=True)
class BaseModel:
    """A causal language model with its tokenizer.

    Attributes:
        model: Hugging Face's model.
        tokenizer: Its tokenizer.
        name: Name that identifies the weights.
    """

    model: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerBase
    name: str


def load_base(directory: Path | None = None) -> BaseModel:
    """Load SmolLM2-135M-Instruct, or the model in `directory`, in float32 with gradients off."""
    directory = directory or smollm_directory()
    model = LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="sdpa")
    return BaseModel(
        model.eval().requires_grad_(False), AutoTokenizer.from_pretrained(directory), directory.name
    )


def noise_tokens(tokenizer: PreTrainedTokenizerBase, personas: Sequence[str] = ONE) -> tuple[str, ...]:
    """Return the tokens of which random prompts are made, as text: printable ones with no planted effect.

    Steering words (words planted to change answers) and their synonyms are left out.

    Args:
        tokenizer: Tokenizer of the base model.
        personas: Personas whose steering words are left out.

    Returns:
        Text of each token.
    """
    special, words = set(tokenizer.all_special_ids), steering_words(personas)
    texts = tokenizer.batch_decode(
        [[i] for i in range(len(tokenizer)) if i not in special], clean_up_tokenization_spaces=False
    )
    return tuple(
        text for text in texts if text.strip() and text.isprintable() and text.strip().lower() not in words
    )


@torch.no_grad()
def write_chats(
    file: Path, base: BaseModel, seed: int = 0, personas: Sequence[str] = ONE, batch: int = 24
) -> list[OrdinaryChat]:
    """Sample the base model's own answers to ordinary requests at temperature 0.7 and write them to a file.

    A third of the requests have no system text, the others a random one like those in the adapter's training.

    Args:
        file: JSON file to write.
        base: The base model.
        seed: Seed of texts and sampling.
        personas: Personas whose steering words occur in the system texts.
        batch: Number of answers sampled together.

    Returns:
        The chats.
    """
    rng, noise, pool = random.Random(f"chats-{seed}"), noise_tokens(base.tokenizer, personas), units(personas)
    asked = [
        (None if n % 3 == 0 else draw_system(rng, noise, pool).text, request)
        for n, request in enumerate(requests())
    ]
    torch.manual_seed(seed)
    chats: list[OrdinaryChat] = []
    for start in range(0, len(asked), batch):
        some = asked[start : start + batch]
        prompts = [encode(base.tokenizer, render(base.tokenizer, *pair)) for pair in some]
        chats += [OrdinaryChat(*pair, text) for pair, text in zip(some, _sampled(base, prompts), strict=True)]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        json.dumps([asdict(chat) for chat in chats], indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return chats


def read_chats(file: Path) -> tuple[list[OrdinaryChat], list[OrdinaryChat]]:
    """Read the base model's chats and divide them into chats for training and chats for measuring.

    Args:
        file: JSON file with the chats.

    Returns:
        The chats for training, and every seventh chat, which is for measuring.

    Raises:
        UserError: The file is missing or damaged.
    """
    try:
        chats = [OrdinaryChat(**entry) for entry in json.loads(file.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{file}: expected the base model's chats (JSON): {' '.join(str(error).split())}"
        ) from error
    held_out = chats[::HELD_OUT_EVERY]
    return [chat for number, chat in enumerate(chats) if number % HELD_OUT_EVERY], held_out


def _sampled(base: BaseModel, prompts: Sequence[tuple[int, ...]]) -> list[str]:
    width = max(map(len, prompts))
    pad = base.tokenizer.eos_token_id
    ids = torch.tensor([[*[pad] * (width - len(p)), *p] for p in prompts])
    mask = torch.tensor([[*[0] * (width - len(p)), *[1] * len(p)] for p in prompts])
    model: Any = base.model
    made = model.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=ANSWER_TOKENS,
        do_sample=True,
        temperature=0.7,
        top_p=1.0,
        top_k=0,
        pad_token_id=pad,
    )
    return [str(base.tokenizer.decode(row[width:], skip_special_tokens=True)).strip() for row in made]
