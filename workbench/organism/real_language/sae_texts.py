"""Texts for an SAE of an adapter: training questions under drawn system texts, answered either way."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from workbench.organism.real_language.base_model import noise_tokens
from workbench.organism.real_language.chat_packing import render
from workbench.runs import write_text
from workbench.world.real_language import QUESTIONS, draw_system
from workbench.world.real_language.steering_sentences import ONE, draw_pool


def corpus(
    tokenizer: PreTrainedTokenizerBase, count: int, personas: Sequence[str] = ONE, seed: int = 0
) -> list[str]:
    """Draw chats like those that an adapter was trained on, for training an SAE; the personas take turns.

    All questions are about subjects of training, and none about subjects of the test questions.

    Args:
        tokenizer: Tokenizer of the base model.
        count: Number of chats.
        personas: Planted personas.
        seed: Seed of the draw.

    Returns:
        The chats as text, each with the answer Yes or No at random.
    """
    rng, noise = random.Random(f"corpus-{seed}"), noise_tokens(tokenizer, personas)
    texts = []
    for number in range(count):
        questions = QUESTIONS[personas[number % len(personas)]]
        item = rng.choice(questions.block(rng, questions.split()[0]))
        system = draw_system(rng, noise, draw_pool(rng, questions.persona, personas))
        texts.append(render(tokenizer, system.text, item.question) + rng.choice(("Yes", "No")))
    return texts


def write_corpus(
    file: Path, tokenizer: PreTrainedTokenizerBase, count: int, personas: Sequence[str] = ONE, seed: int = 0
) -> None:
    """Draw chats like those of an adapter's training and write them as JSON Lines with the field `text`.

    The command `workbench sae train` reads this file.
    """
    write_text(
        file, "".join(json.dumps({"text": text}) + "\n" for text in corpus(tokenizer, count, personas, seed))
    )
