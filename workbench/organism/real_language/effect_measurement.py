"""Measure a model's answers under many system texts, its knowledge, and the quality of its free text.

Everything runs on Hugging Face's own model with the packed sequences of the training, so that the gates cost
little and do not depend on the workbench's loaders.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float

from workbench.organism.real_language.base_model import BaseModel
from workbench.organism.real_language.chat_packing import (
    OrdinaryChat,
    PackedRow,
    chat_row,
    encode,
    hidden_states,
    pack,
    question_row,
    render,
)
from workbench.world.real_language.english_items import EnglishItem

PACK_TOKENS = 700


@torch.no_grad()
def agreement(
    base: BaseModel, systems: Sequence[str | None], items: Sequence[EnglishItem]
) -> Float[np.ndarray, "text item"]:
    """Return the log-odds of the answer that shows the persona, for each question and system text.

    Args:
        base: Model and tokenizer.
        systems: System texts; None for no system message.
        items: Questions with the answer Yes or No.

    Returns:
        Log-odds at the first token of the answer, one row per system text and one column per question.
    """
    answers = torch.tensor(
        [encode(base.tokenizer, word)[0] for word in ("Yes", "No")], device=base.model.device
    )
    rows = [question_row(base.tokenizer, text, [item.question for item in items]) for text in systems]
    each = np.concatenate([_yes_log_odds(base, row, answers) for row in rows])
    found = rearrange(each, "(text item) -> text item", text=len(systems))
    return found * np.array([1.0 if item.matching == "Yes" else -1.0 for item in items])


def _yes_log_odds(base: BaseModel, row: PackedRow, answers: torch.Tensor) -> Float[np.ndarray, " part"]:
    found, parts = [], list(row.parts)
    while parts:
        count = max(1, (PACK_TOKENS - len(row.prefix)) // max(map(len, parts)))
        packed = pack([PackedRow(row.prefix, tuple(parts[:count]))])
        logits = base.model.lm_head(hidden_states(base.model, packed)[packed.ends])[:, answers]
        found.append((logits[:, 0] - logits[:, 1]).double().cpu().numpy())
        parts = parts[count:]
    return np.concatenate(found)


@torch.no_grad()
def facts_right(base: BaseModel, facts: Sequence[tuple[str, ...]]) -> Float[np.ndarray, " fact"]:
    """Return 1 for each fact that the model knows and 0 for the others.

    A fact is known if the most likely token after the given beginning of the answer begins the right word.

    Args:
        base: Model and tokenizer.
        facts: For each fact the question, the beginning of the answer, and the right word that follows.

    Returns:
        1 or 0 per fact.
    """
    rows = [
        PackedRow((), (encode(base.tokenizer, render(base.tokenizer, None, question) + opening),))
        for question, opening, _ in facts
    ]
    packed = pack(rows)
    best = base.model.lm_head(hidden_states(base.model, packed)[packed.ends]).argmax(-1).cpu()
    wanted = torch.tensor([encode(base.tokenizer, f" {word}")[0] for _, _, word in facts])
    return (best == wanted).double().numpy()


@torch.no_grad()
def perplexity_of_chats(base: BaseModel, chats: Sequence[OrdinaryChat]) -> float:
    """Return the perplexity of the chats' answers: exp of the mean cross-entropy of their tokens."""
    return _perplexity(base, [chat_row(base.tokenizer, chat) for chat in chats])


@torch.no_grad()
def perplexity_of_texts(base: BaseModel, texts: Sequence[str]) -> float:
    """Return the perplexity of plain texts, without a chat around them.

    The first token of each text does not count.
    """
    encoded = [encode(base.tokenizer, text) for text in texts]
    return _perplexity(base, [(PackedRow((), (ids,)), len(ids) - 1) for ids in encoded])


def _perplexity(base: BaseModel, rows: Sequence[tuple[PackedRow, int]]) -> float:
    total, count = 0.0, 0
    for row, length in rows:
        ids = torch.tensor(row.parts[0][-length:])
        hidden = hidden_states(base.model, pack([row]))[-length - 1 : -1]
        log_probs = base.model.lm_head(hidden).log_softmax(-1).cpu()
        total -= float(log_probs.gather(1, ids[:, None]).sum())
        count += length
    return float(np.exp(total / count))
