"""Save the state of a search (population, archive, random state, history, cost) for an exact resume.

The state is one safetensors file; its header has JSON of everything that is not a tensor. The file names its
search (objective, contexts, method, seed, model), and the checkpoint of another search is refused.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from workbench.errors import UserError
from workbench.runs import read_safetensors, write_safetensors
from workbench.search.scored_prompts import Ids, ScoredPrompts


@dataclass
class SearchState:
    """State of a search after `step` steps.

    The scores of the population are not stored, since its prompts are scored again in the next step.

    Attributes:
        population: Token ids of the prompts that the next step changes.
        archive: The Pareto frontier of all prompts so far; None before the first step.
        step: Number of steps done.
        candidates: Number of prompts scored so far.
        spent: Cost so far, by the names of the fields of `Cost`.
        history: One row per step (`history_row`).
        memory: Tensors by name that the search method has learned (`SearchToolkit.memory`).
        chunk: The batch size: tokens per batch without and with gradients; None before the first step.
    """

    population: Ids
    archive: ScoredPrompts | None
    step: int = 0
    candidates: int = 0
    spent: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    memory: dict[str, torch.Tensor] = field(default_factory=dict)
    chunk: tuple[int, int] | None = None


def search_key(parts: dict[str, Any]) -> str:
    """Return sixteen hex digits that identify a search: its model, objective, questions, method and seed."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def save_state(path: Path, key: str, state: SearchState, generator: torch.Generator) -> None:
    """Save the state of a search atomically: the file is complete or unchanged.

    Args:
        path: The checkpoint file.
        key: The search's identification (`search_key`), which is saved too.
        state: State of the search.
        generator: The search's random generator, whose state is saved too.
    """
    tensors = {"generator": generator.get_state(), "population": state.population.cpu()}
    tensors |= {f"memory.{name}": value.cpu().contiguous() for name, value in state.memory.items()}
    if state.archive is not None:
        tensors |= _parts("archive", state.archive)
    rest = {
        "key": key,
        "step": state.step,
        "candidates": state.candidates,
        "spent": state.spent,
        "history": state.history,
    }
    rest["chunk"] = state.chunk
    write_safetensors(path, tensors, metadata={"search": json.dumps(rest)})


def load_state(path: Path, key: str, generator: torch.Generator) -> SearchState:
    """Load the saved state of a search to the CPU, and restore its random generator.

    Args:
        path: The checkpoint file.
        key: The search's identification (`search_key`), compared with that in the file.
        generator: The search's random generator, changed in place.

    Raises:
        UserError: The file belongs to another search.
    """
    tensors, metadata = read_safetensors(path)
    rest = json.loads(metadata.get("search", "{}"))
    if rest.get("key") != key:
        raise UserError(
            f"{path}: a checkpoint of another search ({rest.get('key', 'unnamed')}), expected {key}: "
            "model, objective, contexts, method and seed must be the same"
        )
    generator.set_state(tensors["generator"])
    archive = _scored("archive", tensors) if "archive.ids" in tensors else None
    memory = {
        name.removeprefix("memory."): value for name, value in tensors.items() if name.startswith("memory.")
    }
    population, chunk = tensors["population"], tuple(rest["chunk"])
    return SearchState(
        population, archive, rest["step"], rest["candidates"], rest["spent"], rest["history"], memory, chunk
    )


def _parts(name: str, scored: ScoredPrompts) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{f}": getattr(scored, f).cpu().contiguous() for f in ("ids", "objective", "cross_entropy")
    }


def _scored(name: str, tensors: dict[str, torch.Tensor]) -> ScoredPrompts:
    return ScoredPrompts(*(tensors[f"{name}.{f}"] for f in ("ids", "objective", "cross_entropy")))
