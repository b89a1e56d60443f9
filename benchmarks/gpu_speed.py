"""The parts that time: cost, llama8b, collection, growth."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks import collection as collecting
from benchmarks.baselines import cached_gcg, plain_epo
from benchmarks.cost_settings import Loaded, Setting
from benchmarks.gpu_lab import (
    LLAMA8B,
    SMALL,
    Cells,
    Lab,
    Row,
    deviations,
    median_seconds,
    products_a_second,
    random_llama,
    setting_of,
    timed,
)
from benchmarks.search_cost import Size, cached_flops, our_step, plain_flops, table
from workbench.budget import Budget
from workbench.conditions import SearchRecipe
from workbench.models import load_model, runner_for
from workbench.models.memory_in_use import peak_memory
from workbench.models.model_sizes import ModelSizes
from workbench.models.runner import ModelShape
from workbench.search import EPO, Optimizations, Scorer
from workbench.search.elite_selection import CanSurvive, pareto_frontier
from workbench.search.scoring.batch_size import CEILING
from workbench.search.scoring.measured_batch_size import set_batch_size
from workbench.search.toolkit import SearchToolkit
from workbench.study.data_sizes import DataSizes
from workbench.study.stage_costs import StageCounts
from workbench.study.study_settings import SearchSettings, Study

# ---- cost -----------------------------------------------------------------------------------------------------------


def cost(lab: Lab) -> Cells:
    """Our step against the baselines, in turn; and where our seconds go."""
    loaded = lab.loaded(reference=True)
    for slot in lab.slots:
        for n in lab.contexts:
            setting = setting_of(loaded, slot, n, lab)
            yield f"{slot}, {n} contexts", lambda s=setting: contest(s, lab.size, lab)
            yield f"{slot}, {n} contexts: seconds by stage", lambda s=setting: stages(s, lab.size, lab)


def contest(setting: Setting, size: Size, lab: Lab, tokens: int | None = None) -> Row:
    """A row of `search_cost`'s table. Baselines: gradients of all parents in one batch, `few` candidates in one, scaled to all of them
    (one parent or a handful would not fill a GPU). tokens: of our chunk, else the device's ceiling, as a
    search takes it."""
    tokens = tokens or CEILING[setting.runner.device.type]
    ours = {
        name: our_step(setting, size, optimizations, tokens)
        for name, optimizations in (
            ("ours", Optimizations()),
            ("halved", Optimizations(halving=size.halving)),
        )
    }
    flops = {name: _counted(setting, step) for name, step in ours.items()}
    runs: dict[str, Callable[[], float]] = {
        name: lambda step=step: timed(step, lab.device) for name, step in ours.items()
    }
    runs |= {"plain": plain(setting, size, lab), "cached": cached(setting, size, lab)}
    for run in runs.values():
        run()
    turns = [{name: run() for name, run in runs.items()} for _ in range(lab.repeats)]
    row: Row = {
        "model": setting.name,
        "slot": setting.slot,
        "contexts": len(setting.contexts),
        "tokens": tokens,
    }
    row |= {f"{name}_seconds": statistics.median(turn[name] for turn in turns) for name in runs}
    for mine in ours:
        for other, count in (("plain", plain_flops(setting, size)), ("cached", cached_flops(setting, size))):
            row[f"{other}/{mine}"] = _ratio([turn[other] / turn[mine] for turn in turns], count / flops[mine])
    rate = flops["ours"] / row["ours_seconds"]  # type: ignore[operator]
    peak = products_a_second(
        setting.runner, setting.reference.config.intermediate_size, min(tokens, 8192), lab.device
    )
    row |= {
        "candidates_a_second": size.candidates / row["ours_seconds"],
        "flops_a_second": rate,
        "peak": peak,
        "of_peak": rate / peak,
    }  # type: ignore[operator]
    return row | {"table": table([row])}


def _ratio(ratios: list[float], allowed: float) -> dict[str, float]:
    middle = statistics.median(ratios)
    return {
        "median": middle,
        "low": min(ratios),
        "high": max(ratios),
        "allowed": allowed,
        "share": middle / allowed,
    }


def _counted(setting: Setting, step: Callable[[], object]) -> float:
    """Operations of a step by the runner's meter."""
    before = setting.runner.meter.flops
    step()
    return setting.runner.meter.flops - before


def plain(setting: Setting, size: Size, lab: Lab) -> Callable[[], float]:
    """Seconds of a published EPO step, its candidates scaled from `few`."""
    prompts, model, target, texts = _prompts(setting, size), setting.reference, setting.target, setting.texts

    def step() -> float:
        gradients = timed(
            lambda: plain_epo.gradient(model, target, prompts[: size.parents], texts), lab.device
        )
        few = timed(
            lambda: plain_epo.score(model, target, prompts[: size.few], texts, batch=size.few), lab.device
        )
        return gradients + few * size.candidates / size.few

    return step


def cached(setting: Setting, size: Size, lab: Lab) -> Callable[[], float]:
    """Seconds of a GCG step with cached prefixes, its candidates scaled from some in the system slot."""
    prompts, model, target, texts = _prompts(setting, size), setting.reference, setting.target, setting.texts
    caches = cached_gcg.prefixes(model, texts)
    some = min(size.candidates, 8 * size.few if setting.slot == "after_question" else size.few)

    def step() -> float:
        gradients = timed(
            lambda: cached_gcg.gradient(model, target, prompts[: size.parents], texts, caches), lab.device
        )
        few = timed(
            lambda: cached_gcg.score(model, target, prompts[:some], texts, caches, batch=some), lab.device
        )
        return gradients + few * size.candidates / some

    return step


def _prompts(setting: Setting, size: Size) -> torch.Tensor:
    drawn = torch.randint(
        10,
        setting.runner.shape.d_vocab,
        (size.candidates, size.length),
        generator=torch.Generator().manual_seed(1),
    )
    return drawn.to(setting.runner.device)


def stages(setting: Setting, size: Size, lab: Lab, tokens: int | None = None) -> Row:
    """Seconds of the parts of our step, each until the device is done (the second of two runs): `drawing` is the host's choice of children with
    its gradients taken off."""
    scorer = Scorer(
        setting.runner,
        setting.objective,
        setting.contexts,
        Optimizations(),
        tokens or CEILING[setting.runner.device.type],
        cross_entropy_groups=1,
    )
    bench, n = SearchToolkit.make(scorer, seed=0), len(setting.contexts)
    method = EPO(
        length=size.length,
        population=size.parents,
        children=size.candidates // size.parents,
        gradient_contexts=n,
    )
    parents = bench.random_prompts(size.parents, size.length)
    archive, kept = pareto_frontier(scorer.score(parents)), {}
    work: dict[str, Callable[[], Any]] = {
        "prepare": lambda: scorer.prepare(parents),
        "gradients": lambda: (scorer.gradients(parents, n), scorer.cross_entropy_gradients(parents)),
        "propose": lambda: method.propose(bench, kept["prepare"], 0),
        "children": lambda: scorer.score_children(
            kept["prepare"], kept["propose"], CanSurvive(method.weights, archive)
        ),
        "survivors": lambda: method.survivors(bench, kept["children"][0].join(kept["children"][1]), 0),
        "frontier": lambda: pareto_frontier(archive.join(kept["children"][0].join(kept["children"][1]))),
    }
    found: dict[str, float] = {}
    for _ in range(2):
        for name, run in work.items():
            found[name] = timed(lambda name=name, run=run: kept.update({name: run()}), lab.device)
    return {**found, "drawing": found["propose"] - found["gradients"]}


# ---- a model of Llama-3.1-8B's shape --------------------------------------------------------------------------------


def llama8b(lab: Lab) -> Cells:
    """Made on the device, saved, loaded through `load_model`; steps, memory, counted and planned operations, collection."""
    lab.forget()
    kept: dict[str, Loaded] = {}
    sizes, length = (SMALL | {"d_vocab": 60_000, "tied": False}, 8) if lab.small else (LLAMA8B, 16)
    size, lab = (
        replace(lab.size, length=length, few=max(4, lab.size.few // 8)),
        replace(lab, repeats=min(2, lab.repeats)),
    )
    yield "made, saved and loaded", lambda: _load(lab, sizes, kept)
    if "model" not in kept:
        return
    for n in lab.contexts:
        setting = setting_of(kept["model"], "after_question", n, lab)
        yield f"{n} contexts", lambda s=setting: _step(s, size, lab)
    yield (
        "operations",
        lambda: operations(setting_of(kept["model"], "after_question", lab.contexts[0], lab), size),
    )
    yield "collection", lambda: _collection(kept["model"], lab, 128)
    kept.clear()


def _load(lab: Lab, sizes: dict[str, Any], kept: dict[str, Loaded]) -> Row:
    found: dict[str, Any] = {}
    dtype, before = getattr(torch, lab.dtype), _held(lab)
    directory = lab.directory()
    made = timed(
        lambda: found.update(reference=random_llama(directory, lab.tokenizer, lab.device, dtype, **sizes)[1]),
        lab.device,
    )
    with peak_memory(torch.device(lab.device)) if lab.device.startswith("cuda") else _nothing() as peak:
        loading = timed(
            lambda: found.update(model=load_model(directory, lab.device, lab.dtype, backend="hooked")),
            lab.device,
        )
    runner, reference = runner_for(found["model"]), found["reference"]
    kept["model"] = Loaded("llama8b", runner, reference)
    ids = torch.randint(10, 10_000, (2, 24), generator=torch.Generator().manual_seed(0)).to(runner.device)
    with torch.no_grad():
        ours, theirs = (
            runner.logits(runner.run(runner.embed(ids), 0, runner.shape.n_layers)[0]),
            reference(input_ids=ids).logits,
        )
    return {
        "parameters": sum(p.numel() for p in reference.parameters()),
        "made and saved, s": made,
        "loaded, s": loading,
        "peak of loading": peak.bytes,
        "held by both": _held(lab) - before,
        "logits, deviations": deviations(ours, theirs),
        "same greedy tokens": float((ours.argmax(-1) == theirs.argmax(-1)).float().mean()),
    }


def _nothing() -> Any:
    return peak_memory(torch.device("meta"))


def _held(lab: Lab) -> int:
    return torch.cuda.memory_allocated() if lab.device.startswith("cuda") else 0


def _step(setting: Setting, size: Size, lab: Lab) -> Row:
    """Plan, then the contest with the planned chunk, then the peak of our step."""
    scorer = Scorer(setting.runner, setting.objective, setting.contexts, cross_entropy_groups=1)
    plan = set_batch_size(scorer, size.length, size.parents, size.candidates)
    tokens = scorer.chunk.tokens
    del scorer
    step = our_step(setting, size, Optimizations(), tokens)
    step()
    with peak_memory(setting.runner.device) as peak:
        step()
    rows, unit = (
        max(size.parents, size.candidates // size.length),
        size.length + max(len(c.suffix_ids) for c in setting.contexts),
    )
    batch = (
        plan.forward.at(min(tokens, rows * unit)) if plan else None
    )  # after the question a batch is the children of one position
    found: Row = {
        "planned for a full chunk": plan.peak if plan else None,
        "planned for these batches": batch,
        "measured": peak.bytes,
    }
    return found | contest(setting, size, lab, tokens) | {"stages": stages(setting, size, lab, tokens)}


def operations(setting: Setting, size: Size) -> Row:
    """Operations of one step: counted by torch as they run, by the runner's meter, and as `workbench plan` has them."""
    step = our_step(setting, size, Optimizations())
    with Operations() as counter:
        metered = _counted(setting, step)
    counted = counter.total
    planned = planned_operations(setting, size)
    return {
        "counted": counted,
        "metered": metered,
        "planned": planned,
        "metered/counted": metered / counted,
        "planned/counted": planned / counted,
    }


class Operations(TorchDispatchMode):
    """Counts by torch's own formulas what is run inside, forward and backward (its FlopCounterMode, which also watches modules, refuses
    gradients with respect to a leaf)."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def planned_operations(setting: Setting, size: Size) -> float:
    """What `workbench plan` expects of one step on these contexts (of two steps less of one: what is done once cancels)."""
    shape: ModelShape = setting.runner.shape
    texts, n = setting.texts, len(setting.contexts)
    data = DataSizes(
        n,
        float(np.mean([len(a) + len(b) for a, b in texts])),
        float(np.mean([len(b) for _, b in texts])),
        1,
        (),
    )
    options = {
        "length": size.length,
        "population": size.parents,
        "children": size.candidates // size.parents,
        "gradient_contexts": n,
    }
    study = Study(slot=setting.slot, search=SearchSettings(method="epo", options=options, contexts=n))
    counts = StageCounts(study, ModelSizes(shape, 0, ""), data)
    one, two = (
        replace(
            counts,
            study=study.model_copy(
                update={"search": study.search.model_copy(update={"budget": Budget(steps=k)})}
            ),
        )
        for k in (1, 2)
    )
    recipe = SearchRecipe(dict)
    return two._search("resga", recipe).flops - one._search("resga", recipe).flops


# ---- collection, growth ---------------------------------------------------------------------------------------------


def collection(lab: Lab) -> Cells:
    """Tokens a second of `collect` against a bare forward pass to the same layer, in turn."""
    loaded = lab.loaded(reference=True)
    for batch in (8,) if lab.small else (16, 64):
        yield f"batches of {batch} x 128", lambda b=batch: _collection(loaded, lab, b)


def _collection(loaded: Loaded, lab: Lab, batch: int) -> Row:
    n, tokens = (16, 32) if lab.small else (1024, 128)
    return collecting.measure(loaded, n, tokens, min(batch, n), 1 if lab.small else 5)


def growth(lab: Lab) -> Cells:
    """Exponents of a step's seconds in candidates and in contexts."""
    loaded, factors = lab.loaded(), {"candidates": (32, 64), "contexts": (1, 2)}
    if not lab.small:
        factors = {"candidates": (256, 512, 1024, 2048), "contexts": (4, 8, 16, 32)}
    for factor, values in factors.items():
        yield factor, lambda f=factor, v=values: exponent(loaded, lab, f, v)


def exponent(loaded: Loaded, lab: Lab, factor: str, values: tuple[int, ...]) -> Row:
    """Seconds at each value, the other factor held, and the slope of their logarithms."""
    times = []
    for value in values:
        point = {"candidates": lab.size.candidates, "contexts": 2 if lab.small else 8, factor: value}
        setting = setting_of(loaded, "after_question", point["contexts"], lab)
        step = our_step(
            setting,
            replace(lab.size, candidates=point["candidates"]),
            Optimizations(),
            CEILING[setting.runner.device.type],
        )
        step()
        times.append(median_seconds(step, lab.device, lab.repeats)["seconds"])
    return {
        "values": values,
        "seconds": times,
        "exponent": float(np.polyfit(np.log(values), np.log(times), 1)[0]),
    }
