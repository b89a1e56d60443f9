"""Restart a search that no longer gains: exclude its strongest word for some steps.

A word that works alone ("prudent") is soon in every elite, and the search then only polishes one sentence.
While the word is excluded, other words are found; when it returns, they are combined.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

#: Steps without a gain before a word is excluded, and steps for which it is excluded.
_PATIENCE = 2
_OUT = 3
#: Least gain, as a fraction of the scores' standard deviation.
_GAIN = 0.1


def update_restart(
    memory: dict[str, Tensor], step: int, best: float, bag: Sequence[int], effects: Float[Tensor, " word"]
) -> None:
    """Exclude a search's strongest word if the best score did not improve for some steps.

    The word is allowed again some steps later. The result is stored in the search's memory.

    Args:
        memory: The search's learned tensors, which checkpoints save. It has "gain" (the best score, and the
            step of the last improvement) and "left_out" (indices of the excluded words).
        step: Number of the step.
        best: The best score of all prompts within the search's limits.
        bag: Indices of the words of that prompt, among the candidate words.
        effects: Learned effect of each candidate word on the score.
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
    """Return the indices of the candidate words that the search excludes at present.

    Args:
        memory: The search's learned tensors by name; "left_out" has the indices.
    """
    return memory.get("left_out", torch.zeros(0, dtype=torch.long))


def without_left_out(memory: dict[str, Tensor], bags: Sequence[Sequence[int]]) -> Bool[Tensor, " prompt"]:
    """Return a mask of the prompts without any word that the search excludes at present.

    Args:
        memory: The search's learned tensors by name; "left_out" has the indices of the excluded words.
        bags: For each prompt, the indices of its words among the candidate words.
    """
    words = set(left_out(memory).tolist())
    return torch.tensor([words.isdisjoint(bag) for bag in bags], dtype=torch.bool)
