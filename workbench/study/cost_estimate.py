"""Estimate what a study costs from its file and the model's config: FLOPs, seconds and memory of every stage.

1. Numbers and lengths of questions: `data_sizes.py`. Each stage is counted as the code runs it:
   `stage_costs.py`.
2. Seconds = FLOPs / (peak x achieved fraction of the peak) + runs of one block x kernel-launch time per block
   + time to read the weights (`machine_speeds.py`; docs/models.md has planned and measured seconds of real
   models).
3. Memory: the largest batch of the stage (models/memory_estimate.py). If a stage does not fit on a GPU, the
   notes give a `search.batch_tokens` that does, or say that the weights alone do not fit.

The plan is an estimate: `tests/study/test_cost_estimate.py` compares its FLOPs with the meter's on real runs.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch

from workbench.html_text import ShowsTable
from workbench.models.loading import choose_dtype
from workbench.models.memory_estimate import mapped_file, memory_needed, process_memory, second_embedding
from workbench.models.memory_in_use import machine_memory
from workbench.models.model_sizes import ModelSizes, model_sizes_of
from workbench.search.scoring.batch_size import SMALLEST
from workbench.study.data_sizes import DataSizes
from workbench.study.machine_speeds import MACHINES, MachineSpeed, machines
from workbench.study.other_weights import OtherWeights, other_weights
from workbench.study.search_division import Division
from workbench.study.stage_costs import StageCost, StageCounts
from workbench.study.study_settings import Study


@dataclass(frozen=True, repr=False)
class CostEstimate(ShowsTable):
    """Estimated cost of a study, stage by stage.

    Attributes:
        study: Settings of the study.
        facts: Sizes of the model, such as parameters and layers.
        stages: Costs of the study's stages (such as directions, searches, comparison) in their order.
        question: Length of a question with its template, in tokens.
        notes: Assumptions, and what fits on which machine.
        machines: Machines for which time and memory are estimated.
        others: Weights apart from the model's, such as those of an SAE.
    """

    study: Study
    facts: ModelSizes
    stages: tuple[StageCost, ...]
    question: float
    notes: tuple[str, ...]
    machines: tuple[MachineSpeed, ...] = MACHINES
    others: tuple[OtherWeights, ...] = ()

    @property
    def flops(self) -> float:
        """Estimated FLOPs of the whole study, summed over its stages."""
        return sum(stage.flops for stage in self.stages)

    def bytes(
        self, stage: StageCost, dtype: str, batch_tokens: int | None = None, on_cpu: bool = False
    ) -> int:
        """Estimate the peak memory of one stage of the study in bytes, weights included.

        Args:
            stage: The stage, such as a search.
            dtype: Data type of the weights.
            batch_tokens: Largest number of tokens in a batch; None for the study's setting. Passes with
                gradients use a quarter of this.
            on_cpu: Whether the model runs on the CPU, where weights and process share the memory.
        """
        batch = stage.tokens.batch(batch_tokens or self.study.search.batch_tokens)
        shape, model = self.facts.shape, self.study.model
        held = self.facts.parameters + second_embedding(shape, self.facts.architecture, model.backend)
        size = choose_dtype(dtype).itemsize
        file = mapped_file(self.facts.file, self.facts.parameters, size) if on_cpu else 0
        process = process_memory(shape.d_vocab) if on_cpu else 0
        needed = memory_needed(shape, held, size, batch, process, file).rows()[stage.memory]
        return needed + sum(other.bytes(dtype) for other in self.others if self._in_memory(other, stage))

    def _in_memory(self, other: OtherWeights, stage: StageCost) -> bool:
        """Return whether weights apart from the model's are in memory at a stage; none are while the model loads."""
        names = [entry.name for entry in self.stages]
        if stage.name not in names:
            return False
        first = names.index(other.from_stage) if other.from_stage in names else 0
        return names.index(stage.name) >= first

    def peak(self, dtype: str, tokens: int, on_cpu: bool = False, shrinking: bool = False) -> int:
        """Estimate the peak memory of the whole study in bytes, weights included.

        Args:
            dtype: Data type of the weights.
            tokens: Largest number of tokens in a batch.
            on_cpu: Whether the model runs on the CPU.
            shrinking: Whether searches count with their smallest batch, to which they shrink when memory runs
                out.
        """
        sizes = {
            stage: SMALLEST if shrinking and stage.name.startswith("search ") else tokens
            for stage in self.stages
        }
        load = self.facts.parameters * choose_dtype(dtype).itemsize
        return max([load, *(self.bytes(stage, dtype, size, on_cpu) for stage, size in sizes.items())])

    def fitting(self, machine: MachineSpeed, shrinking: bool = False) -> str | None:
        """Describe what to change so that the study fits into a machine's memory; None if it fits.

        Args:
            machine: The machine.
            shrinking: Whether searches count with their smallest batch, as for `peak`.
        """

        def peak(tokens: int, dtype: str = machine.dtype) -> int:
            return self.peak(dtype, tokens, machine.on_cpu, shrinking)

        now = self.study.search.batch_tokens
        if peak(now) <= machine.memory:
            return None
        smaller = [now >> n for n in range(1, 12) if now >> n >= 64]
        fitting = next((tokens for tokens in smaller if peak(tokens) <= machine.memory), None)
        if fitting:
            longest = int(self.question) + 16
            return (
                f"{machine.name}, {machine.dtype}: {peak(now) / 1e9:.1f} GB at search.batch_tokens {now}; "
                f"fits with {fitting} ({peak(fitting) / 1e9:.1f} GB): "
                f"{max(1, fitting // longest)} questions of {longest} tokens at a time, any number of contexts and candidates"
            )
        weights = self.facts.parameters * choose_dtype(machine.dtype).itemsize
        what = (
            f"the weights alone take {weights / 1e9:.1f} GB"
            if weights > machine.memory
            else f"one question takes {peak(64) / 1e9:.1f} GB"
        )
        halves = choose_dtype(machine.dtype).itemsize > 2
        sizes = [(n, peak(n, "bfloat16")) for n in (now, *smaller) if halves]
        advice = next(
            (
                f"bfloat16 fits with search.batch_tokens {n} ({size / 1e9:.1f} GB)"
                for n, size in sizes
                if size <= machine.memory
            ),
            "a smaller model, or device balanced",
        )
        return f"{machine.name}, {machine.dtype}: does not fit, {what}; 4-bit weights are not supported: {advice}"

    @property
    def table(self) -> pd.DataFrame:
        """Table of costs with one row per stage of the study and one for the whole study.

        The columns are stage, token_layers (tokens times transformer blocks), tflops (10^12 FLOPs), and for
        each machine seconds and GB of memory. Seconds are empty if the stage does not fit into the memory.
        """
        rows = [self._row(stage.name, [stage]) for stage in self.stages]
        return pd.DataFrame([*rows, self._row("all", list(self.stages))])

    @property
    def short(self) -> pd.DataFrame:
        """The table of costs as text for a narrow screen, with one column per machine for time and memory."""
        table = self.table
        found = pd.DataFrame({"stage": table["stage"], "TFLOPs": table["tflops"].map("{:,.4g}".format)})
        for machine in self.machines:
            times = table[f"{machine.name} s"].map(lambda s: "does not fit" if pd.isna(s) else duration(s))
            found[machine.name] = times + "\n" + table[f"{machine.name} GB"].map("{:.1f} GB".format)
        return found

    def _row(self, name: str, stages: list[StageCost]) -> dict[str, Any]:
        row: dict[str, Any] = {
            "stage": name,
            "token_layers": sum(s.token_layers for s in stages),
            "tflops": sum(s.flops for s in stages) / 1e12,
        }
        for machine in self.machines:
            loading = [StageCost("load", 0, 0, "load")] if len(stages) > 1 else []
            needed = max(
                self.bytes(stage, machine.dtype, on_cpu=machine.on_cpu) for stage in (*stages, *loading)
            )
            row[f"{machine.name} s"] = (
                sum(stage.seconds(machine) for stage in stages) if needed <= machine.memory else None
            )
            row[f"{machine.name} GB"] = needed / 1e9
        return row

    def shown_table(self) -> tuple[str, pd.DataFrame]:
        """Return a caption with the size of the model, and the table."""
        return (
            f"Plan of {self.study.name!r}: {self.facts.parameters / 1e9:.2f} billion weights ({self.facts.source})",
            self.table,
        )


def search_bytes(study: Study) -> int:
    """Estimate the peak memory of a process that runs a study's searches on a CPU, in bytes.

    Args:
        study: Settings of the study.

    Raises:
        UserError: The model's sizes cannot be determined.
    """
    found = counted(study)
    searches = [stage for stage in found.stages if stage.name.startswith("search ")]
    return max(found.bytes(stage, study.model.dtype, on_cpu=True) for stage in searches)


def counted(study: Study, done: Collection[str] = ()) -> CostEstimate:
    """Count a study's stages, without notes and without measuring this machine's speed.

    Args:
        study: Settings of the study.
        done: Names of the stages that are finished and left out.

    Raises:
        UserError: The model's sizes cannot be determined.
    """
    facts, data = model_sizes_of(study.model.name, study.model.revision), DataSizes.of(study)
    stages = tuple(stage for stage in StageCounts(study, facts, data).stages() if stage.name not in done)
    others = other_weights(study, facts.shape.d_model)
    return CostEstimate(study, facts, stages, data.tokens, data.notes, others=others)


def duration(seconds: float) -> str:
    """Format a number of seconds in a suitable unit, as seconds, minutes or hours."""
    return (
        f"{seconds:.2g} s"
        if seconds < 60
        else f"{seconds / 60:.1f} min"
        if seconds < 3600
        else f"{seconds / 3600:.1f} h"
    )


def plan(study: Study, dtype: str | None = None) -> CostEstimate:
    """Estimate time and memory that a study needs, without loading weights or using the network.

    Args:
        study: Settings of the study.
        dtype: Data type of the weights on every machine; None for bfloat16 on GPUs and the study's setting on
            the CPU.

    Raises:
        UserError: The model's sizes cannot be determined.
    """
    choose_dtype(dtype or study.model.dtype)
    found = replace(counted(study), machines=machines(dtype, study.model.dtype))
    facts = found.facts
    fitting = [words for machine in found.machines if (words := found.fitting(machine))]
    if study.directions.layers is None and any(stage.name.startswith("search ") for stage in found.stages):
        layers = facts.shape.n_layers
        where = f"block {layers // 2} of {layers} assumed"
        fitting.append(
            f"searches end at the direction's layer, which the run chooses: {where}; a search costs in proportion"
        )
    uncounted = [
        f"the memory of the {other.name} is not counted: its size is not known before it is here"
        for other in found.others
        if other.numbers is None
    ]
    return replace(found, notes=(*found.notes, *uncounted, *fitting, *_searches_together(found)))


def _searches_together(found: CostEstimate) -> list[str]:
    """Return a note on the memory of searches that run at the same time on this machine's CPU."""
    study, memory = found.study, machine_memory()
    searches = [stage for stage in found.stages if stage.name.startswith("search ")]
    if study.model.device != "cpu" or study.search.budget.seconds is not None or not (searches and memory):
        return []
    need = max(found.bytes(stage, study.model.dtype, on_cpu=True) for stage in searches)
    n = Division.of(torch.get_num_threads(), len(searches), need, memory).processes
    return [f"{n} searches run at a time on this machine's CPU: {n * need / 1e9:.1f} GB"] if n > 1 else []
