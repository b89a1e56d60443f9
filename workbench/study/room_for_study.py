"""Check that a study's plan fits into a GPU's free memory, before weights are read or a directory is made.

The plan is compared as the code runs it. A search halves its batches when memory runs out
(`search/scoring/batch_size.py`), so it counts with its smallest batch; the other stages do not, so they count
with the study's `search.batch_tokens`. Models on a CPU or spread over several GPUs are not checked. The weights
of an SAE and of a judge count if their number is known without loading them (`other_weights.py`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch

from workbench.errors import UserError
from workbench.models.device_room import USABLE
from workbench.models.loading import choose_device
from workbench.models.memory_in_use import free_memory
from workbench.models.model_directory import spreads
from workbench.study.cost_estimate import counted
from workbench.study.machine_speeds import MACHINES
from workbench.study.study_settings import Study


def refuse_without_room(study: Study, done: Collection[str] = (), model: Any = None) -> None:
    """Raise UserError if the study's plan does not fit into the free memory of its GPU.

    Args:
        study: Settings of the study.
        done: Names of the stages that are finished already, and need no memory.
        model: The study's model if it is loaded already: its weights are part of the plan.

    Raises:
        UserError: The device is not available, or its memory does not suffice; the message says what would
            fit.
    """
    device = choose_device(study.model.device)
    if spreads(device) or not str(device).startswith("cuda"):
        return
    free = free_memory(torch.device(str(device)))
    if free is None:
        return
    held = sum(p.numel() * p.element_size() for p in model.parameters()) if model is not None else 0
    refuse_plan(study, free + held, f"{device} with {free / 1e9:.1f} GB free", done)


def refuse_plan(study: Study, memory: float, place: str, done: Collection[str] = ()) -> None:
    """Raise UserError if the study's plan does not fit into `memory` bytes.

    Args:
        study: Settings of the study.
        memory: Bytes of memory; a fraction of it (`USABLE`) may be planned.
        place: The device and its memory, in words.
        done: Names of the stages that are finished already.

    Raises:
        UserError: The memory does not suffice; the message says what would fit.
    """
    machine = replace(MACHINES[0], name=place, memory=USABLE * memory, dtype=study.model.dtype)
    if words := counted(study, done).fitting(machine, shrinking=True):
        raise UserError(f"{study.model.name}: the plan needs too much memory: {words}")
