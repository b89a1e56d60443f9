"""Restarts of a search that no longer gains: its strongest word is left out for some steps, then comes back.

A word that works alone ("prudent") is soon in every elite, and the search then only polishes one sentence.
Without it other words are found; when it returns they meet.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

#: Steps without a gain before a word is left out, and steps that it stays out.
_PATIENCE = 2
_OUT = 3
#: A gain is at least so much of the scores' standard deviation.
_GAIN = 0.1


def update_restart(
    memory: dict[str, Tensor], step: int, best: float, bag: Sequence[int], effects: Float[Tensor, " word"]
) -> None:
    """Notes a gain, leaves a word out, or takes it back in.

    memory: the search's own (a checkpoint holds it); "gain" is kept there, the best score and the step of the
    last gain, and "left_out", words by place. best: the best score that keeps the limits; bag: the words of
    its prompt; effects: what each word is expected to do.
    """
    score, since = memory["gain"].tolist() if "gain" in memory else (-float("inf"), step)
    if best > score + _GAIN * float(memory["scores"].std()):
        memory["gain"] = torch.tensor([best, step], dtype=torch.float64)
    elif len(left_out(memory)):
        if step - since >= _OUT:
            memory["left_out"] = torch.zeros(0, dtype=torch.long)
            memory["gain"] = torch.tensor([score, step], dtype=torch.float64)
    elif step - since >= _PATIENCE and bag:
        words = torch.tensor(list(bag))
        memory["left_out"] = words[effects[words].argmax()][None]
        memory["gain"] = torch.tensor([score, step], dtype=torch.float64)


def left_out(memory: dict[str, Tensor]) -> Tensor:
    """Words that are left out now, by place."""
    return memory.get("left_out", torch.zeros(0, dtype=torch.long))


def without_left_out(memory: dict[str, Tensor], bags: Sequence[Sequence[int]]) -> Bool[Tensor, " prompt"]:
    """The prompts that hold no word that is left out now."""
    words = set(left_out(memory).tolist())
    return torch.tensor([words.isdisjoint(bag) for bag in bags], dtype=torch.bool)
