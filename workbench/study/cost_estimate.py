"""What a study costs, from its file and the model's config alone: token-layers, FLOPs, seconds and memory of every stage.

1. Questions are counted in the data file, or (where it is not here) taken from the published one's size. Tokens of a question: its
   characters through the model's own tokenizer where that is here, else by 4 a token, and 40 for the template.
2. Each stage is counted as the code runs it (REFERENCES' cost model): q tokens a question, n of the prompt, t after it, L layers,
   D of them below the objective; a swap re-runs half the prompt on its parent's cache. A token-layer costs 2 x the block's weights
   and its attention to the tokens on its left; a gradient as much again.
3. Seconds = FLOPs / (peak x fraction of the peak that is really had) + runs of one block x the time to launch its kernels + the time
   to read the weights that a run needs. GPU peaks are the makers' dense figures and their fraction an assumption; launching a block's
   kernels took 3 ms on an H200 (docs/performance.md), however few tokens the run had. The CPU's peak is that of matrix products on
   one core of this machine, measured when a plan is made (docs/models.md has planned and measured seconds of real models).
4. Memory: models/memory_estimate.py, the largest batch of the study. Where a stage does not fit into a GPU, the notes say which
   `search.batch_tokens` does, and where not even the weights fit, so.

The plan is an estimate: `tests/study/test_cost_estimate.py` holds its FLOPs against the meter's on real runs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from workbench.attribution.attribute import CIRCUIT_CONTEXTS
from workbench.conditions import CONDITION_KINDS, STUDY_CONDITIONS, SearchRecipe
from workbench.conditions.neutral_text import NEUTRAL_SENTENCES
from workbench.directions import DIRECTION_METHODS, default_methods
from workbench.directions.layer_scan import HELD_OUT_ROWS
from workbench.errors import UserError
from workbench.html_text import ShowsTable
from workbench.models.chat_template import render_chat
from workbench.models.loading import choose_dtype
from workbench.models.memory_estimate import mapped_file, memory_needed, process_memory, second_embedding
from workbench.models.model_sizes import ModelSizes, model_sizes_of, tokenizer_of
from workbench.personas import load_persona
from workbench.search import SentenceSearch
from workbench.search.scoring.batch_size import LOGITS_PER_TOKEN
from workbench.study.off_target_measures import PROSE
from workbench.study.stages.search import make_method
from workbench.study.study_settings import Study

#: Forward passes a context of the ledger next to removal.
LEDGER = 45
#: The stage of memory_estimate that a gradient needs.
GRADIENT = "gradient of an objective"
#: Tokens of a system text that directions are found under, or of a written prompt.
SYSTEM_TEXT = 12
#: Token-layers, FLOPs, runs of one block, weights read.
Part = tuple[float, float, float, float]
#: Rows of published files and mean characters of their questions, for plans made where the files are not.
_PUBLISHED = {"sycophancy.json": (1000, 730), "hallucination.json": (1000, 420), "myopic-reward.jsonl": (1000, 170), "TruthfulQA.csv": (817, 60)}


@dataclass(frozen=True)
class MachineSpeed:
    """A machine that costs are estimated for.

    peak: dense FLOPs a second at the dtype used there; share: of it that is assumed to be had; memory: bytes; launch: seconds that starting
    the kernels of one block takes; bandwidth: bytes of weights a second.
    """

    name: str
    peak: float
    share: float
    memory: float
    dtype: str
    launch: float = 0.0
    bandwidth: float = 1e12

    @property
    def speed(self) -> float:
        """FLOPs a second."""
        return self.peak * self.share

    @property
    def on_cpu(self) -> bool:
        """Whether weights and program share one memory, and kernels start at no cost worth counting."""
        return not self.launch


#: H100 and RTX 4090 after their makers' data sheets (dense, 16 bits); the CPU: one core, measured.
MACHINES = (
    MachineSpeed("80 GB GPU (H100)", 989e12, 0.35, 80e9, "bfloat16", 3e-3, 3.35e12),
    MachineSpeed("24 GB GPU (RTX 4090)", 165e12, 0.35, 24e9, "bfloat16", 3e-3, 1.0e12),
    MachineSpeed("CPU (one core)", 7e10, 0.85, 64e9, "float32", 0.0, 8e9),
)


def machines(dtype: str | None = None, on_cpu: str = "float32") -> tuple[MachineSpeed, ...]:
    """The machines of a plan.

    MACHINES with this machine's own core at the dtype used there (`on_cpu`), and one dtype for all where it is given.
    """
    *gpus, cpu = MACHINES
    cpu = replace(cpu, dtype=dtype or on_cpu, peak=core_speed(dtype or on_cpu))
    return (*(replace(gpu, dtype=dtype or gpu.dtype) for gpu in gpus), cpu)


@cache
def core_speed(dtype: str = "float32") -> float:
    """FLOPs a second of matrix products on one core of this machine: the best of five tries of 50 ms of processor time."""
    threads, kind = torch.get_num_threads(), choose_dtype(dtype)
    torch.set_num_threads(1)
    try:
        left, right = torch.randn(256, 1024, dtype=kind), torch.randn(1024, 2048, dtype=kind)
        torch.mm(left, right)
        return max(_rate(left, right) for _ in range(5))
    finally:
        torch.set_num_threads(threads)


def _rate(left: torch.Tensor, right: torch.Tensor) -> float:
    done, start = 0, time.process_time()
    while time.process_time() - start < 0.05:
        torch.mm(left, right)
        done += 1
    return 2 * left.shape[0] * left.shape[1] * right.shape[1] * done / (time.process_time() - start)


@dataclass(frozen=True)
class StageCost:
    """Estimated cost of one stage.

    token_layers: tokens run x blocks run, forward and backward. flops: of these and of unembedding. memory: what is computed there.
    block_runs: how often one block is run, whatever the batch (a way back counts twice). weights_read: numbers of weights that these runs
    and those of the unembedding read from memory.
    """

    name: str
    token_layers: float
    flops: float
    memory: str
    block_runs: float = 0.0
    weights_read: float = 0.0

    def seconds(self, machine: MachineSpeed) -> float:
        """Arithmetic, launches and the reading of weights, one after the other: short runs are bound by the last two."""
        read = self.weights_read * choose_dtype(machine.dtype).itemsize / machine.bandwidth
        return self.flops / machine.speed + self.block_runs * machine.launch + read


@dataclass(frozen=True, repr=False)
class CostEstimate(ShowsTable):
    """Estimated cost of a study, stage by stage.

    stages: in their order. question, suffix, prompt: tokens. facts: sizes of the model. notes: what was assumed, and what fits where.
    machines: that times and memory are told for.
    """

    study: Study
    facts: ModelSizes
    stages: tuple[StageCost, ...]
    question: float
    notes: tuple[str, ...]
    machines: tuple[MachineSpeed, ...] = MACHINES

    @property
    def flops(self) -> float:
        """Of the whole study."""
        return sum(stage.flops for stage in self.stages)

    def bytes(self, stage: StageCost, dtype: str, batch_tokens: int | None = None, on_cpu: bool = False) -> int:
        """Peak memory of a stage, weights included. A gradient is taken a quarter of a batch at a time."""
        length, share = int(self.question) + 16, 4 if stage.memory == GRADIENT else 1
        sequences = max(1, (batch_tokens or self.study.search.batch_tokens) // share // length)
        shape, model = self.facts.shape, self.study.model
        held = self.facts.parameters + second_embedding(shape, self.facts.architecture, model.backend)
        size = choose_dtype(dtype).itemsize
        file = mapped_file(self.facts.file, self.facts.parameters, size) if on_cpu else 0
        process = process_memory(shape.d_vocab) if on_cpu else 0
        return memory_needed(shape, held, size, sequences, length, process, file).rows()[stage.memory]

    def fitting(self, machine: MachineSpeed) -> str | None:
        """What to change so that the study fits into a machine's memory; None where it does as it is."""
        peak = lambda tokens: max(self.bytes(stage, machine.dtype, tokens, machine.on_cpu) for stage in self.stages)  # noqa: E731
        now = self.study.search.batch_tokens
        if peak(now) <= machine.memory:
            return None
        halves = [now >> n for n in range(1, 12) if now >> n >= 64]
        fitting = next((tokens for tokens in halves if peak(tokens) <= machine.memory), None)
        if fitting:
            longest = int(self.question) + 16
            return (
                f"{machine.name}, {machine.dtype}: {peak(now) / 1e9:.1f} GB at search.batch_tokens {now}; "
                f"fits with {fitting} ({peak(fitting) / 1e9:.1f} GB): "
                f"{max(1, fitting // longest)} questions of {longest} tokens at a time, any number of contexts and candidates"
            )
        weights = self.facts.parameters * choose_dtype(machine.dtype).itemsize
        what = f"the weights alone take {weights / 1e9:.1f} GB" if weights > machine.memory else f"one question takes {peak(64) / 1e9:.1f} GB"
        advice = "4-bit weights are not supported: a smaller model, bfloat16, or device balanced"
        return f"{machine.name}, {machine.dtype}: does not fit, {what}; {advice}"

    @property
    def table(self) -> pd.DataFrame:
        """One row per stage and one for all: TFLOPs, and for each machine seconds and GB (empty seconds: it does not fit)."""
        rows = [self._row(stage.name, [stage]) for stage in self.stages]
        return pd.DataFrame([*rows, self._row("all", list(self.stages))])

    @property
    def short(self) -> pd.DataFrame:
        """The table as text for a narrow screen: TFLOPs, and for each machine time and memory in one column."""
        table = self.table
        found = pd.DataFrame({"stage": table["stage"], "TFLOPs": table["tflops"].map("{:,.4g}".format)})
        for machine in self.machines:
            times = table[f"{machine.name} s"].map(lambda s: "does not fit" if pd.isna(s) else duration(s))
            found[machine.name] = times + "\n" + table[f"{machine.name} GB"].map("{:.1f} GB".format)
        return found

    def _row(self, name: str, stages: list[StageCost]) -> dict[str, Any]:
        row: dict[str, Any] = {"stage": name, "token_layers": sum(s.token_layers for s in stages), "tflops": sum(s.flops for s in stages) / 1e12}
        for machine in self.machines:
            loading = [StageCost("load", 0, 0, "load")] if len(stages) > 1 else []
            needed = max(self.bytes(stage, machine.dtype, on_cpu=machine.on_cpu) for stage in (*stages, *loading))
            row[f"{machine.name} s"] = sum(stage.seconds(machine) for stage in stages) if needed <= machine.memory else None
            row[f"{machine.name} GB"] = needed / 1e9
        return row

    def shown_table(self) -> tuple[str, pd.DataFrame]:
        """The caption and the rows."""
        return f"Plan of {self.study.name!r}: {self.facts.parameters / 1e9:.2f} billion weights ({self.facts.source})", self.table


def duration(seconds: float) -> str:
    """Seconds in words, in the unit that suits them."""
    return f"{seconds:.2g} s" if seconds < 60 else f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def plan(study: Study, dtype: str | None = None) -> CostEstimate:
    """The plan of a study; neither weights nor the network are touched. UserError where the model's sizes are not to be had.

    dtype: of the weights on every machine; None: bfloat16 on GPUs, the study's own on the CPU.
    """
    choose_dtype(dtype or study.model.dtype)
    facts = model_sizes_of(study.model.name, study.model.revision)
    data = _Data.of(study)
    found = CostEstimate(study, facts, tuple(_Counts(study, facts, data).stages()), data.tokens, data.notes, machines(dtype, study.model.dtype))
    fitting = [words for machine in found.machines if (words := found.fitting(machine))]
    if study.directions.layers is None and any(stage.name.startswith("search ") for stage in found.stages):
        layers = facts.shape.n_layers
        where = f"block {layers // 2} of {layers} assumed"
        fitting.append(f"searches end at the direction's layer, which the run chooses: {where}; a search costs in proportion")
    return replace(found, notes=(*data.notes, *fitting))


@dataclass(frozen=True)
class _Data:
    """Sizes of a study's data.

    items: of the whole file. tokens: of a rendered question. after_prompt: tokens between prompt and answer. orders: option orders asked.
    answers: tokens whose log-probabilities score both answers (a letter: the one decision token). asked: tokens of a question with a
    prompt, the prompt left out.
    """

    items: int
    tokens: float
    after_prompt: float
    orders: int
    notes: tuple[str, ...]
    answers: float = 1.0
    asked: float = 0.0

    @classmethod
    def of(cls, study: Study) -> _Data:
        notes, said = [], 20.0
        path = study.data.path
        if path is not None and not Path(path).is_file():
            if Path(path).name not in _PUBLISHED:
                raise UserError(f"{path}: no such data file, and no published one of that name whose size is known")
            items, characters = _PUBLISHED[Path(path).name]
            notes.append(f"{path} is not here: {items} questions of {characters} characters assumed, as published")
            tokens, metric = characters / 4 + 40, study.metric or "letters"
            after_system, asked = tokens - 8, tokens
        else:
            persona = load_persona(study.persona, path, study.data.world)
            items, metric = len(persona.items), study.metric or persona.metric
            sample = [i.question + (f" (A) {i.matching} (B) {i.not_matching}" if metric == "letters" else "") for i in persona.items[::7]]
            tokens, after_system, asked = _tokens(study, sample, notes)
            said = sum(len(item.matching) + len(item.not_matching) for item in persona.items[::7]) / len(sample)
        after_prompt = 6.0 if study.slot != "system" else after_system
        orders = 2 if metric == "letters" and study.protocol.orders == "both" else 1
        score = 1.0 if metric == "letters" else max(1.0, said / 4)
        return cls(items, tokens, after_prompt, orders, tuple(notes), score, asked if study.slot == "system" else tokens)


def _tokens(study: Study, texts: list[str], notes: list[str]) -> tuple[float, float, float]:
    """Mean numbers of tokens of questions and templates.

    Of a question with its template, of what the template puts after a system prompt, and of a question with one, the
    prompt left out.
    """
    try:
        tokenizer = tokenizer_of(study.model.name)
    except UserError:
        notes.append("the model's tokenizer is not here: 4 characters a token assumed, and 40 tokens for the template")
        tokens = sum(map(len, texts)) / len(texts) / 4 + 40
        return tokens, tokens - 8, tokens
    rendered = [render_chat(tokenizer, [{"role": "user", "content": text}]) for text in texts]
    tokens = sum(len(ids) for ids in tokenizer(rendered, add_special_tokens=False)["input_ids"]) / len(rendered)
    before, instead = _around_system(tokenizer)
    return tokens, tokens - before, tokens - before + instead


def _around_system(tokenizer: Any) -> tuple[int, int]:
    """Tokens before and after the prompt in the system slot.

    Tokens of a bare question that do not follow a system prompt (all but the end that both renderings share), and those that are
    before the question where there is one, the prompt itself left out: less where the template has a system text of its own.
    """
    user = [{"role": "user", "content": "x"}]
    try:
        texts = [render_chat(tokenizer, chat) for chat in (user, [{"role": "system", "content": "y"}, *user])]
    except UserError:
        return 8, 8  # a template without a system role
    bare, prompted = (ids[::-1] for ids in tokenizer(texts, add_special_tokens=False)["input_ids"])
    shared = next((i for i, (a, b) in enumerate(zip(bare, prompted, strict=False)) if a != b), min(len(bare), len(prompted)))
    return len(bare) - shared, max(0, len(prompted) - shared - 1)


@dataclass(frozen=True)
class _Counts:
    """The stages' token-layers and FLOPs."""

    study: Study
    facts: ModelSizes
    data: _Data

    def stages(self) -> list[StageCost]:
        """In the order in which they run; loading has no FLOPs worth counting."""
        found = [self._directions()]
        if self._latents:
            found.append(self._run("latents", 384, self.data.tokens, self.facts.shape.n_layers, "collect activations"))
        for recipe, names in self._recipes():
            found += [self._search(name, recipe) for name in names]
        return [*found, self._comparison(len(found)), self._attribution()]

    def _recipes(self) -> list[tuple[SearchRecipe, tuple[str, ...]]]:
        """How each condition of the study searches, and the names of its searches."""
        entries = [STUDY_CONDITIONS[name] for name in self.study.conditions]
        return [(e.search, e.searches(self.study)) for e in entries if e.search and (self._latents or not e.search.needs_sae)]

    @property
    def _latents(self) -> bool:
        """Whether there is an SAE, as far as the study says."""
        return self.study.sae != "none" and not (self.study.sae == "auto" and self.study.model.name != "organism")

    def _cost(self, tokens: float, layers: float, keys: float, unembedded: float = 0.0, backward: bool = False, batches: float | None = None) -> Part:
        """Token-layers and FLOPs, as the runner's meter counts them, runs of a block, and numbers of weights that these read.

        batches: in which the tokens are run; None: as many as `search.batch_tokens` makes of them, a quarter as long with gradients.
        """
        shape, times = self.facts.shape, 2 if backward else 1
        block = times * 2 * shape.block_parameters + (2 * times - 1) * 4 * keys * shape.n_heads * shape.d_head
        flops = tokens * layers * block + times * 2 * unembedded * shape.d_model * shape.d_vocab
        most = self.study.search.batch_tokens / (4 if backward else 1)
        runs = (batches or math.ceil(tokens / most)) * (3 if backward else 1) * layers
        calls = math.ceil(unembedded * shape.d_vocab / (LOGITS_PER_TOKEN * self.study.search.batch_tokens))
        read = runs * shape.block_parameters + times * calls * shape.d_model * shape.d_vocab
        return times * tokens * layers, flops, runs, read

    def _stage(self, name: str, parts: Sequence[Part], memory: str) -> StageCost:
        """The sum of the parts."""
        layers, flops, runs, read = (sum(part[i] for part in parts) for i in range(4))
        return StageCost(name, layers, flops, memory, runs, read)

    def _run(self, name: str, rows: float, tokens: float, layers: float, memory: str) -> StageCost:
        return self._stage(name, [self._cost(rows * tokens, layers, tokens, rows)], memory)

    def _directions(self) -> StageCost:
        s, shape, q = self.study.directions, self.facts.shape, self.data.asked + SYSTEM_TEXT
        top = max(s.layers) + 1 if s.layers else shape.n_layers
        kinds = {DIRECTION_METHODS[m].labels for m in s.methods or default_methods()}
        full = s.rows * len({"choice", *(k for k in kinds if k == "choice_within")}) + (s.texts + 1) * s.contexts
        pairs = (s.rows + min(s.rows, HELD_OUT_ROWS)) * len(kinds & {"answer", "response"})
        parts = [self._cost(full * (q + self.data.answers - 1), shape.n_layers, q, full * self.data.answers), self._cost(pairs * q, top, q)]
        return self._stage("directions", parts, "collect activations")

    def _search(self, name: str, recipe: SearchRecipe) -> StageCost:
        """Steps x (gradients of the parents, the children's objective, the fluency of those that can win)."""
        study, s, shape = self.study, self.study.search, self.facts.shape
        method = make_method(study, recipe.method or s.method)
        n, parents = method.length, method.population
        alone = study.protocol.search_behind == "nothing" and not recipe.reads_answer
        contexts, t = (1, 0.0) if alone else (s.contexts, self.data.after_prompt)
        depth = shape.n_layers if recipe.reads_answer else self._depth()
        scored = contexts * (s.halving + (1 - s.halving) / 2) if 0 < s.halving < 1 else contexts
        children, keys = parents * method.children, self.data.tokens + n
        forked = study.slot == "system" and not alone
        each = n / 2 + scored * t if forked else scored * (n / 2 + t)
        own = n + contexts * t if forked else contexts * (n + t)
        parts = [self._cost((children * each + parents * own), depth, keys), self._cost(parents * n, shape.n_layers - depth, keys, parents * n)]
        parts.append(self._cost(children / 2 * n / 2, shape.n_layers - depth, keys, children / 2 * n / 2))
        if isinstance(method, SentenceSearch):
            parts = self._sentence_step(method, depth, min(contexts, method.step_contexts), t)
        elif method.uses_gradient:
            active = min(contexts, getattr(method, "gradient_contexts", contexts))
            parts.append(self._cost(parents * (n + active * t if forked else active * (n + t)), depth, keys, backward=True))
            parts.append(self._cost(parents * n, shape.n_layers, keys, parents * n, backward=True))
        steps = self._steps(sum(p[0] for p in parts), sum(p[1] for p in parts))
        whole = contexts * (n + (self.data.tokens if not alone else 0))  # neutral prompts are read without shared prefixes
        once = self._cost(s.neutral * whole, depth, keys, s.neutral * n)
        every = [(steps * a, steps * b, steps * c, steps * d) for a, b, c, d in parts]
        takes = method.gradient if isinstance(method, SentenceSearch) else method.uses_gradient
        return self._stage(f"search {name}", [*every, once], GRADIENT if takes else "score candidates after a cached prefix")

    def _sentence_step(self, method: SentenceSearch, depth: float, contexts: float, after_prompt: float) -> list[Part]:
        """Candidates read to half depth, the likeliest run on, some written token by token, and the best scored with their questions."""
        n, layers = method.typical_length, self.facts.shape.n_layers
        read, likely = (method.edited + method.filled + method.joined) * n + 2 * method.near_reads, 3 * method.children * n
        written = method.written / method.write_every * n
        return [
            self._cost(read, layers / 2, n),
            self._cost(likely, layers / 2, n, likely),
            self._cost(written, layers, n, written),
            self._cost(method.children * contexts * (n + after_prompt), depth, n + after_prompt),
        ]

    def _steps(self, token_layers: float, flops: float) -> float:
        """Steps that the budget allows, by the cost of one; a model call is a question run through all blocks."""
        budget, call = self.study.search.budget, self.data.tokens * self.facts.shape.n_layers
        limits = [
            budget.steps,
            budget.model_calls and budget.model_calls * call / token_layers,
            budget.flops and budget.flops / flops,
            budget.seconds and budget.seconds * MACHINES[0].speed / flops,
        ]
        return min((limit for limit in limits if limit), default=60.0 * MACHINES[0].speed / flops)

    def _depth(self) -> float:
        layers = self.study.directions.layers
        return (sorted(layers)[len(layers) // 2] + 1) if layers else self.facts.shape.n_layers / 2

    def _comparison(self, stages_before: int) -> StageCost:
        """Selection: 8 candidates a frontier, 4 manual prompts, 7 strengths (each with its guard); then every condition on test."""
        study, q = self.study, self.data.asked + max(SYSTEM_TEXT, make_method(self.study, self.study.search.method).length)
        select, test = self._split(2, study.data.selection_items), self._split(3, study.data.test_items)
        frontiers = max(0, stages_before - 1)
        steering = sum(CONDITION_KINDS[STUDY_CONDITIONS[c].kind].group == "inside" for c in study.conditions)
        rows = select * (8 * frontiers + 4 * ("manual" in study.conditions)) + 7 * steering * (select + min(32, select) + 60)
        several = {"random_direction": study.random_directions, "neutral_text": len(NEUTRAL_SENTENCES)}
        several |= dict.fromkeys(("random_tokens", "random_text"), study.random_prompts)
        conditions = 1 + sum(several.get(name, 1) for name in study.conditions)
        asked, answers = rows + conditions * (test + study.collateral.items), self.data.answers
        prose = conditions * sum(map(len, PROSE)) / 4
        layers = self.facts.shape.n_layers
        parts = [self._cost(asked * (q + answers - 1), layers, q, asked * answers), self._cost(prose, layers, 40, prose)]
        return self._stage("comparison", parts, "forced-choice answers")

    def _split(self, index: int, limit: int | None) -> int:
        items = round(self.data.items * self.study.data.fractions[index])
        return self.data.orders * (items if limit is None else min(items, limit))

    def _attribution(self) -> StageCost:
        """Every token removed once, a gradient for each target, pairs, mediation and doses (LEDGER passes, counted on real runs).

        The circuit (passes as `attribution.circuit` says); cards from texts.
        """
        n, a = make_method(self.study, self.study.search.method).length, self.study.attribution
        tokens, layers = self.data.asked + n, self.facts.shape.n_layers
        removal = self._cost(a.contexts * (n + 2 + LEDGER) * tokens, layers, tokens, a.contexts * (n + 2 + LEDGER))
        gradient = self._cost(a.contexts * tokens * (2 + self.study.latents * self._latents), layers, tokens, backward=True)
        passes = 2 * (a.circuit + 66) if a.circuit else 0
        some = min(a.contexts, CIRCUIT_CONTEXTS)
        circuit = self._cost(some * passes * tokens, layers, tokens, some * passes)
        cards = self._cost(a.texts * tokens if self._latents and a.cards else 0, layers, tokens)
        parts = removal, gradient, circuit, cards
        takes = bool(a.circuit or set(a.estimators) - {"removal"} or self._latents)
        return self._stage("attribution", parts, GRADIENT if takes else "forced-choice answers")
