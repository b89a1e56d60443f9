"""Cost per search step, against EPO as published and GCG with a cached prefix, at equal candidates and contexts.

1. All contestants run in one process, in turn, several times; every ratio is taken within one turn; median
   and range are shown. Baselines are timed on a few candidates and one parent, and scaled: their cost is
   linear in both (no state is shared).
2. A step: gradients of all parents over all contexts (gradient_contexts = all), choice of children, scores,
   fluency, survivors. Baselines: the same number of gradients and of scored candidates, nothing else.
3. `allowed` is the ratio of the arithmetic: 2 x weights x tokens x layers, attention's products, and 2 x
   d_model x d_vocab for each position whose logits are made; ours is what the runner's meter counted. `share`
   = measured ratio / allowed.
4. `of peak`: floating point operations a second of our step over those of a plain matrix product of the MLP's
   shapes.

    OMP_NUM_THREADS=1 python -m benchmarks.search_cost                  # all cells, about an hour of one core
    OMP_NUM_THREADS=1 python -m benchmarks.search_cost --models llama --contexts 8 --repeats 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.baselines import cached_gcg, plain_epo
from benchmarks.cost_settings import Setting, load
from workbench.search import EPO, Optimizations
from workbench.search.elite_selection import CanSurvive, pareto_frontier
from workbench.search.scoring.scorer import Scorer
from workbench.search.toolkit import SearchToolkit


@dataclass(frozen=True)
class Size:
    """parents and candidates of a step; the baselines are timed on `few` candidates. halving: fraction of the contexts on which all
    children are scored first, in the halved step."""

    parents: int = 8
    candidates: int = 64
    few: int = 4
    length: int = 8
    halving: float = 0.25


def our_step(
    setting: Setting, size: Size, optimizations: Optimizations, batch_tokens: int = 8192
) -> Callable[[], None]:
    """One whole step of EPO from a fixed population, with a full archive."""
    scorer = Scorer(
        setting.runner,
        setting.objective,
        setting.contexts,
        optimizations,
        batch_tokens,
        cross_entropy_groups=1,
    )
    bench = SearchToolkit.make(scorer, seed=0)
    method = EPO(
        length=size.length,
        population=size.parents,
        children=size.candidates // size.parents,
        gradient_contexts=len(setting.contexts),
    )
    parents = bench.random_prompts(size.parents, size.length)
    archive = pareto_frontier(scorer.score(parents))

    def step() -> None:
        prepared = scorer.prepare(parents)
        children = method.propose(bench, prepared, 0)
        old, new = scorer.score_children(prepared, children, CanSurvive(method.weights, archive))
        pool = old.join(new)
        method.survivors(bench, pool, 0)
        pareto_frontier(archive.join(pool))

    return step


def plain_step(setting: Setting, size: Size) -> Callable[[], float]:
    """Seconds of a published EPO step, scaled from one parent and a few candidates."""
    prompts = _prompts(setting, size)

    def step() -> float:
        one = seconds(
            lambda: plain_epo.gradient(setting.reference, setting.target, prompts[:1], setting.texts)
        )
        few = seconds(
            lambda: plain_epo.score(
                setting.reference, setting.target, prompts[: size.few], setting.texts, batch=size.few
            )
        )
        return one * size.parents + few * size.candidates / size.few

    return step


def cached_step(setting: Setting, size: Size) -> Callable[[], float]:
    """Seconds of a GCG step with cached prefixes, scaled from one parent and some candidates."""
    prompts, caches = _prompts(setting, size), cached_gcg.prefixes(setting.reference, setting.texts)
    some = min(size.candidates, 8 * size.few if setting.slot == "after_question" else size.few)

    def step() -> float:
        one = seconds(
            lambda: cached_gcg.gradient(setting.reference, setting.target, prompts[:1], setting.texts, caches)
        )
        few = seconds(
            lambda: cached_gcg.score(
                setting.reference, setting.target, prompts[:some], setting.texts, caches, batch=some
            )
        )
        return one * size.parents + few * size.candidates / some

    return step


def measure(setting: Setting, size: Size, repeats: int) -> dict[str, object]:
    """One row of the table: every contestant in turn, after one unmeasured step of ours."""
    ours, halved = (
        our_step(setting, size, Optimizations()),
        our_step(setting, size, Optimizations(halving=size.halving)),
    )
    plain, cached = plain_step(setting, size), cached_step(setting, size)
    flops = {}
    for name, step in (("ours", ours), ("halved", halved)):
        before = setting.runner.meter.flops
        step()
        flops[name] = setting.runner.meter.flops - before
    peak = matmul_peak(setting)
    turns = [
        {"ours": seconds(ours), "plain": plain(), "cached": cached(), "halved": seconds(halved)}
        for _ in range(repeats)
    ]
    row: dict[str, object] = {"model": setting.name, "slot": setting.slot, "contexts": len(setting.contexts)}
    row |= {f"{name}_seconds": statistics.median(turn[name] for turn in turns) for name in turns[0]}
    for mine in ("ours", "halved"):
        for other, count in (("plain", plain_flops(setting, size)), ("cached", cached_flops(setting, size))):
            ratios = sorted(turn[other] / turn[mine] for turn in turns)
            allowed = count / flops[mine]
            middle = statistics.median(ratios)
            row[f"{other}/{mine}"] = {
                "median": middle,
                "low": ratios[0],
                "high": ratios[-1],
                "allowed": allowed,
                "share": middle / allowed,
            }
    row["of_peak"] = flops["ours"] / statistics.median(turn["ours"] for turn in turns) / peak
    return row


def plain_flops(setting: Setting, size: Size) -> float:
    """Arithmetic of a published EPO step: whole sequences, all layers, all logits; a gradient counts as two passes."""
    passes = size.candidates + 2 * size.parents
    return sum(
        passes * _pass_flops(setting, len(left) + size.length + len(right), 0)
        for left, right in setting.texts
    )


def cached_flops(setting: Setting, size: Size) -> float:
    """Arithmetic of a GCG step after the prefix: prompt and suffix, all layers, all logits."""
    passes = size.candidates + 2 * size.parents
    return sum(
        passes * _pass_flops(setting, size.length + len(right), len(left)) for left, right in setting.texts
    )


def _pass_flops(setting: Setting, tokens: int, after: int) -> float:
    shape = setting.runner.shape
    block = 2 * shape.block_parameters + 4 * (tokens + after) * shape.n_heads * shape.d_head
    return tokens * (shape.n_layers * block + 2 * shape.d_model * shape.d_vocab)


def matmul_peak(setting: Setting, tokens: int = 256, repeats: int = 5) -> float:
    """Operations a second of tokens x d_model times d_model x d_mlp, the best of several."""
    config = setting.reference.config
    left = torch.randn(tokens, config.hidden_size, device=setting.runner.device, dtype=setting.runner.dtype)
    right = torch.randn(config.hidden_size, config.intermediate_size, device=left.device, dtype=left.dtype)
    times = min(20, max(1, int(2e9 / (2 * tokens * right.numel()))))

    def products() -> None:
        for _ in range(times):
            left @ right

    products()
    return 2 * tokens * right.numel() * times / min(seconds(products) for _ in range(repeats))


def _prompts(setting: Setting, size: Size) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(
        10, setting.runner.shape.d_vocab, (size.candidates, size.length), generator=generator
    ).to(setting.runner.device)


def seconds(run: Callable[[], object]) -> float:
    """Seconds of processor time on the CPU (other programs do not disturb it), of wall-clock on a GPU."""
    cuda = torch.cuda.is_available()
    clock = time.perf_counter if cuda else time.process_time
    began = clock()
    run()
    if cuda:
        torch.cuda.synchronize()
    return clock() - began


def table(rows: list[dict[str, object]]) -> str:
    """Markdown: median ratio (range), in brackets what the arithmetic allows."""
    heads = (
        "model",
        "slot",
        "contexts",
        "our step, s",
        "plain EPO / ours",
        "cached GCG / ours",
        "plain / halved",
        "cached / halved",
        "of peak",
    )
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        cells = [f"{row['model']}", f"{row['slot']}", f"{row['contexts']}", f"{row['ours_seconds']:.2f}"]
        for name in ("plain/ours", "cached/ours", "plain/halved", "cached/halved"):
            r = row[name]
            cells.append(
                f"{r['median']:.1f} ({r['low']:.1f}-{r['high']:.1f}) [{r['allowed']:.1f}: {100 * r['share']:.0f} %]"
            )
        lines.append("| " + " | ".join([*cells, f"{100 * row['of_peak']:.0f} %"]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["organism", "llama", "smollm"])
    parser.add_argument("--slots", nargs="+", default=["after_question", "system"])
    parser.add_argument("--contexts", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--candidates", type=int, default=64)
    parser.add_argument("--few", type=int, default=4)
    parser.add_argument("--halving", type=float, default=0.25)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "latest" / "search_cost.json")
    arguments = parser.parse_args()
    size = Size(candidates=arguments.candidates, few=arguments.few, halving=arguments.halving)
    rows = []
    for name in arguments.models:
        loaded = load(name)
        for slot in arguments.slots:
            for n_contexts in arguments.contexts:
                rows.append(measure(loaded.setting(slot, n_contexts), size, arguments.repeats))
                print(table(rows[-1:]).splitlines()[-1] if len(rows) > 1 else table(rows), flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "benchmark": "search_cost",
        "threads": torch.get_num_threads(),
        "size": vars(size),
        "rows": rows,
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
