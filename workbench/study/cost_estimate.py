"""What a study costs, from its file and the model's config alone: token-layers, FLOPs, seconds and memory of every stage.

1. Questions are counted in the data file, or (where it is not here) taken from the published one's size. Tokens of a question: its
   characters through the model's own tokenizer where that is here, else by 4 a token, and 40 for the template.
2. Each stage is counted as the code runs it (REFERENCES' cost model): q tokens a question, n of the prompt, t behind it, L layers,
   D of them below the objective; a swap re-runs half the prompt on its parent's cache. A token-layer costs 2 x the block's weights
   and its attention to the tokens on its left; a gradient as much again.
3. Seconds = FLOPs / (peak x share of the peak that is really had). Peaks are the makers' dense figures; the shares are assumptions,
   the CPU's is measured (SmolLM2-135M, one thread, float32). No GPU figure has been measured.
4. Memory: models/memory_estimate.py, the largest batch of the study.

The plan is an estimate: `tests/study/test_cost_estimate.py` holds its FLOPs against the meter's on real runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import TemplateError

from workbench.attribution.attribute import CIRCUIT_CONTEXTS
from workbench.conditions import CONDITION_KINDS, STUDY_CONDITIONS, SearchRecipe
from workbench.directions import DIRECTION_METHODS, default_methods
from workbench.errors import UserError
from workbench.html_text import html_table
from workbench.models.memory_estimate import memory_needed
from workbench.models.model_sizes import ModelSizes, model_sizes_of, tokenizer_of
from workbench.personas import load_persona
from workbench.search import SentenceSearch
from workbench.study.stages.search import make_method
from workbench.study.study_settings import Study

#: Forward passes a context of the ledger beside removal.
LEDGER = 45
_BYTES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2}
#: Rows of published files and mean characters of their questions, for plans made where the files are not.
_PUBLISHED = {"sycophancy.json": (1000, 730), "hallucination.json": (1000, 420), "myopic-reward.jsonl": (1000, 170), "TruthfulQA.csv": (817, 60)}


@dataclass(frozen=True)
class MachineSpeed:
    """peak: dense FLOPs a second at the dtype used there; share: of it that is assumed to be had; memory: bytes."""

    name: str
    peak: float
    share: float
    memory: float
    dtype: str

    @property
    def speed(self) -> float:
        """FLOPs a second."""
        return self.peak * self.share


#: H100 and RTX 4090 after their makers' data sheets (dense, 16 bits); the CPU: one core, measured.
MACHINES = (
    MachineSpeed("80 GB GPU (H100)", 989e12, 0.35, 80e9, "bfloat16"),
    MachineSpeed("24 GB GPU (RTX 4090)", 165e12, 0.35, 24e9, "bfloat16"),
    MachineSpeed("CPU (one core)", 7e10, 1.0, 64e9, "float32"),
)


@dataclass(frozen=True)
class StageCost:
    """token_layers: tokens run x blocks run, forward and backward. flops: of these and of unembedding. memory: what is computed there."""

    name: str
    token_layers: float
    flops: float
    memory: str


@dataclass(frozen=True)
class CostEstimate:
    """stages: in their order. question, suffix, prompt: tokens. facts: of the model. notes: what was assumed."""

    study: Study
    facts: ModelSizes
    stages: tuple[StageCost, ...]
    question: float
    notes: tuple[str, ...]

    @property
    def flops(self) -> float:
        """Of the whole study."""
        return sum(stage.flops for stage in self.stages)

    def bytes(self, stage: StageCost, dtype: str) -> int:
        """Peak memory of a stage, weights included. A gradient is taken a quarter of a batch at a time."""
        length, share = int(self.question) + 16, 4 if stage.memory.startswith("gradient") else 1
        sequences = max(1, self.study.search.batch_tokens // share // length)
        return memory_needed(self.facts.shape, self.facts.parameters, _BYTES[dtype], sequences, length).rows()[stage.memory]

    @property
    def table(self) -> pd.DataFrame:
        """One row a stage and one for all: TFLOPs, and for each machine seconds and GB (empty seconds: it does not fit)."""
        rows = [self._row(stage.name, stage.token_layers, stage.flops, [stage]) for stage in self.stages]
        return pd.DataFrame([*rows, self._row("all", sum(s.token_layers for s in self.stages), self.flops, list(self.stages))])

    @property
    def short(self) -> pd.DataFrame:
        """The table as text for a narrow screen: TFLOPs, and for each machine time and memory in one column."""
        table = self.table
        found = pd.DataFrame({"stage": table["stage"], "TFLOPs": table["tflops"].map("{:,.4g}".format)})
        for machine in MACHINES:
            times = table[f"{machine.name} s"].map(lambda s: "does not fit" if pd.isna(s) else duration(s))
            found[machine.name] = times + "\n" + table[f"{machine.name} GB"].map("{:.1f} GB".format)
        return found

    def _row(self, name: str, token_layers: float, flops: float, stages: list[StageCost]) -> dict[str, Any]:
        row: dict[str, Any] = {"stage": name, "token_layers": token_layers, "tflops": flops / 1e12}
        for machine in MACHINES:
            needed = max(self.bytes(stage, machine.dtype) for stage in stages)
            row[f"{machine.name} s"] = flops / machine.speed if needed <= machine.memory else None
            row[f"{machine.name} GB"] = needed / 1e9
        return row

    def _repr_html_(self) -> str:
        return html_table(self.table, f"Plan of {self.study.name!r}: {self.facts.parameters / 1e9:.2f} billion weights ({self.facts.source})")


def duration(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 60 else f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def plan(study: Study) -> CostEstimate:
    """The plan of a study; neither weights nor the network are touched. UserError where the model's sizes are not to be had."""
    facts = model_sizes_of(study.model.name, study.model.revision)
    data = _Data.of(study)
    return CostEstimate(study, facts, tuple(_Counts(study, facts, data).stages()), data.tokens, data.notes)


@dataclass(frozen=True)
class _Data:
    """items: of the whole file. tokens: of a rendered question. behind: tokens between prompt and answer. orders: option orders asked."""

    items: int
    tokens: float
    behind: float
    orders: int
    notes: tuple[str, ...]

    @classmethod
    def of(cls, study: Study) -> _Data:
        notes = []
        path = study.data.path
        if path is not None and not Path(path).is_file():
            if Path(path).name not in _PUBLISHED:
                raise UserError(f"{path}: no such data file, and no published one of that name whose size is known")
            items, characters = _PUBLISHED[Path(path).name]
            notes.append(f"{path} is not here: {items} questions of {characters} characters assumed, as published")
            tokens, metric = characters / 4 + 40, study.metric or "letters"
            after_system = tokens - 8
        else:
            persona = load_persona(study.persona, path, study.data.world)
            items, metric = len(persona.items), study.metric or persona.metric
            sample = [i.question + (f" (A) {i.matching} (B) {i.not_matching}" if metric == "letters" else "") for i in persona.items[::7]]
            tokens, after_system = _tokens(study, sample, notes)
        behind = 6.0 if study.slot != "system" else after_system
        orders = 2 if metric == "letters" and study.protocol.orders == "both" else 1
        return cls(items, tokens, behind, orders, tuple(notes))


def _tokens(study: Study, texts: list[str], notes: list[str]) -> tuple[float, float]:
    """Mean tokens of a question with its template, and of what the template puts behind a system prompt."""
    try:
        tokenizer = tokenizer_of(study.model.name)
    except UserError:
        notes.append("the model's tokenizer is not here: 4 characters a token assumed, and 40 tokens for the template")
        tokens = sum(map(len, texts)) / len(texts) / 4 + 40
        return tokens, tokens - 8
    if getattr(tokenizer, "chat_template", None):
        chats = ([{"role": "user", "content": text}] for text in texts)
        texts = [str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)) for chat in chats]
    tokens = sum(len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]) / len(texts)
    return tokens, tokens - _before_system(tokenizer)


def _before_system(tokenizer: Any) -> int:
    """Tokens of a bare question that do not stand behind a system prompt: all but the end that both renderings share."""
    user = [{"role": "user", "content": "x"}]
    try:
        both = (tokenizer.apply_chat_template(chat, add_generation_prompt=True) for chat in (user, [{"role": "system", "content": "y"}, *user]))
        bare, prompted = (chat["input_ids"] if isinstance(chat, Mapping) else chat for chat in both)
    except (TemplateError, ValueError):
        return 8  # no template, or none with a system role
    shared = next((i for i, (a, b) in enumerate(zip(bare[::-1], prompted[::-1], strict=False)) if a != b), min(len(bare), len(prompted)))
    return len(bare) - shared


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
        """Whether there is an autoencoder, as far as the study says."""
        return self.study.sae != "none" and not (self.study.sae == "auto" and self.study.model.name != "organism")

    def _cost(self, tokens: float, layers: float, keys: float, unembedded: float = 0.0, backward: bool = False) -> tuple[float, float]:
        """Token-layers and FLOPs, as the runner's meter counts them."""
        shape, times = self.facts.shape, 2 if backward else 1
        block = times * 2 * shape.block_parameters + (2 * times - 1) * 4 * keys * shape.n_heads * shape.d_head
        return times * tokens * layers, tokens * layers * block + times * 2 * unembedded * shape.d_model * shape.d_vocab

    def _run(self, name: str, rows: float, tokens: float, layers: float, memory: str) -> StageCost:
        return StageCost(name, *self._cost(rows * tokens, layers, tokens, rows), memory)

    def _directions(self) -> StageCost:
        s, shape, q = self.study.directions, self.facts.shape, self.data.tokens
        top = max(s.layers) + 1 if s.layers else shape.n_layers
        kinds = {DIRECTION_METHODS[m].labels for m in s.methods or default_methods()}
        full = s.rows * len({"choice", *(k for k in kinds if k == "choice_within")}) + (s.texts + 1) * s.contexts
        pairs = (s.rows + 256) * len(kinds & {"answer", "response"})
        parts = [self._cost(full * q, shape.n_layers, q, full), self._cost(pairs * q, top, q)]
        return StageCost("directions", sum(p[0] for p in parts), sum(p[1] for p in parts), "collect activations")

    def _search(self, name: str, recipe: SearchRecipe) -> StageCost:
        """Steps x (gradients of the parents, the children's objective, the fluency of those that can win)."""
        study, s, shape = self.study, self.study.search, self.facts.shape
        method = make_method(study, recipe.method or s.method)
        n, parents = method.length, method.population
        alone = study.protocol.search_behind == "nothing" and not recipe.reads_answer
        contexts, t = (1, 0.0) if alone else (s.contexts, self.data.behind)
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
        steps = s.budget.steps or self._steps(sum(p[1] for p in parts))
        whole = contexts * (n + (self.data.tokens if not alone else 0))  # neutral prompts are read without shared prefixes
        once = self._cost(s.neutral * whole, depth, keys, s.neutral * n)
        return StageCost(f"search {name}", *(steps * sum(p[i] for p in parts) + once[i] for i in (0, 1)), "gradient of an objective")

    def _sentence_step(self, method: SentenceSearch, depth: float, contexts: float, behind: float) -> list[tuple[float, float]]:
        """Candidates read to half depth, the likeliest run on, some written token by token, and the best scored with their questions."""
        n, layers = method.typical_length, self.facts.shape.n_layers
        read, likely = (method.edited + method.filled + method.joined) * n, 3 * method.children * n
        written = method.written / method.write_every * n
        return [
            self._cost(read, layers / 2, n),
            self._cost(likely, layers / 2, n, likely),
            self._cost(written, layers, n, written),
            self._cost(method.children * contexts * (n + behind), depth, n + behind),
        ]

    def _steps(self, flops: float) -> float:
        budget = self.study.search.budget
        return budget.flops / flops if budget.flops else (budget.seconds or 60.0) * MACHINES[0].speed / flops

    def _depth(self) -> float:
        layers = self.study.directions.layers
        return (sorted(layers)[len(layers) // 2] + 1) if layers else self.facts.shape.n_layers / 2

    def _comparison(self, stages_before: int) -> StageCost:
        """Selection: 8 candidates a frontier, 4 manual prompts, 7 strengths (each with its guard); then every condition on test."""
        study, q = self.study, self.data.tokens + make_method(self.study, self.study.search.method).length
        select, test = self._split(2, study.data.selection_items), self._split(3, study.data.test_items)
        frontiers = max(0, stages_before - 1)
        steering = sum(CONDITION_KINDS[STUDY_CONDITIONS[c].kind].group == "inside" for c in study.conditions)
        rows = select * (8 * frontiers + 4 * ("manual" in study.conditions)) + 7 * steering * (select + min(32, select) + 60)
        conditions = 1 + len(study.conditions) + study.random_directions + 2 * study.random_prompts
        return self._run("comparison", rows + conditions * (test + 40), q, self.facts.shape.n_layers, "forced-choice answers")

    def _split(self, index: int, limit: int | None) -> int:
        items = round(self.data.items * self.study.data.fractions[index])
        return self.data.orders * (items if limit is None else min(items, limit))

    def _attribution(self) -> StageCost:
        """Every token removed once, a gradient for each target, pairs, mediation and doses (LEDGER passes, counted on real runs); the circuit
        (passes as `attribution.circuit` says); cards from texts."""
        n, a = make_method(self.study, self.study.search.method).length, self.study.attribution
        tokens, layers = self.data.tokens + n, self.facts.shape.n_layers
        removal = self._cost(a.contexts * (n + 2 + LEDGER) * tokens, layers, tokens, a.contexts * (n + 2 + LEDGER))
        gradient = self._cost(a.contexts * tokens * (2 + self.study.latents * self._latents), layers, tokens, backward=True)
        passes = 2 * (a.circuit + 66) if a.circuit else 0
        some = min(a.contexts, CIRCUIT_CONTEXTS)
        circuit = self._cost(some * passes * tokens, layers, tokens, some * passes)
        cards = self._cost(a.texts * tokens if self._latents and a.cards else 0, layers, tokens)
        parts = removal, gradient, circuit, cards
        return StageCost("attribution", sum(p[0] for p in parts), sum(p[1] for p in parts), "gradient of an objective")
