"""Host time of a search step: what Python and torch's dispatcher cost before any arithmetic is done.

On a GPU a step of a small model waits for the host, which starts thousands of kernels one by one. That can be
counted on any machine:

1. Models have real depth and vocabulary and small width, so that kernel launches cost far more than
   arithmetic. Children are cut into runs as on a GPU, in batches as large as one takes, and the cross-entropy
   of all of them is computed.
2. *Calls*: calls of torch's dispatcher, without views: the kernels that a GPU would be sent, on whatever
   device. The baselines score all candidates of a context in one batch, as a large GPU would; a batch's calls
   do not depend on its rows, so few rows are run.
3. *Seconds*: processor time of one thread with fewer candidates (64; `timed` of a row), all contestants but
   plain EPO in one process, in turn, several times; ratios within one turn; median and range. They hold the
   small model's arithmetic too, which grows with the candidates; calls do not.
4. *Waits*: how often a GPU's host waits for the device in a step (`.item()`, `bool(tensor)`, `.tolist()`,
   `.cpu()`, `nonzero`, a mask as an index), counted with the tests' device that no tensor of the CPU may
   meet: what the search keeps on the CPU is free.
5. Of our step by part, each part without the parts that it calls.

Contestants: cached GCG, plain EPO, and one bare Hugging Face forward pass that continues a cache for each
context (the least that any of them can do).

    OMP_NUM_THREADS=1 python -m benchmarks.host_time                                  # about 5 minutes of one core
    OMP_NUM_THREADS=1 python -m benchmarks.host_time --vocabulary 49152 --contexts 8 --candidates 64 --repeats 2
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.baselines import cached_gcg, plain_epo
from benchmarks.cost_settings import Setting, load
from benchmarks.search_cost import Size, our_step
from workbench.runs import write_json
from workbench.search import EPO, Optimizations, elite_selection, toolkit
from workbench.search.scoring import scorer
from workbench.search.scoring.batch_size import CEILING
from workbench.search.scoring.candidate_batching import START_OPERATIONS
from workbench.search.scoring.cross_entropy import PromptCrossEntropy
from workbench.search.scoring.scorer import Scorer

#: Part of a step: what is called for it (owner, attribute).
PARTS: dict[str, tuple[tuple[Any, str], ...]] = {
    "gradient": ((Scorer, "gradients"), (Scorer, "cross_entropy_gradients")),
    "proposals": ((EPO, "propose"),),
    "tokenizer checks": ((toolkit, "all_survive"),),
    "scoring": ((Scorer, "score_children"),),
    "cross-entropy": (
        (PromptCrossEntropy, "prepare"),
        (PromptCrossEntropy, "children"),
        (PromptCrossEntropy, "bound"),
    ),
    "selection": ((EPO, "survivors"), (elite_selection.CanSurvive, "__call__")),
}


class Calls(TorchDispatchMode):
    """Counts dispatcher calls (views left out), for whatever part is on top of `parts`."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.parts = ["rest"]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.calls[self.parts[-1]] += 0 if func.is_view else 1
        return func(*args, **(kwargs or {}))


@contextmanager
def by_part(counted: Calls, seconds: Counter[str]) -> Iterator[None]:
    """While inside, calls and processor seconds are written to the part that made them."""

    def wrapped(own: Callable[..., Any], part: str) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            counted.parts.append(part)
            began, below = time.process_time(), seconds.total()
            try:
                return own(*args, **kwargs)
            finally:
                seconds[part] += time.process_time() - began - (seconds.total() - below)
                counted.parts.pop()

        return run

    with ExitStack() as stack:
        for part, places in PARTS.items():
            for owner, name in places:
                own = vars(owner)[name]
                setattr(owner, name, wrapped(own, part))
                stack.callback(setattr, owner, name, own)
        yield


def contestants(setting: Setting, size: Size, rows: int) -> dict[str, Callable[[], object]]:
    """One step of each; the baselines score `rows` candidates in one batch a context."""
    generator = torch.Generator().manual_seed(1)
    prompts = torch.randint(10, 4000, (rows, size.length), generator=generator)
    caches = cached_gcg.prefixes(setting.reference, setting.texts)
    parents, batch = prompts[: size.parents], rows

    def cached() -> None:
        cached_gcg.gradient(setting.reference, setting.target, parents, setting.texts, caches)
        cached_gcg.score(setting.reference, setting.target, prompts, setting.texts, caches, batch=batch)

    def plain() -> None:
        plain_epo.gradient(setting.reference, setting.target, parents, setting.texts)
        plain_epo.score(setting.reference, setting.target, prompts, setting.texts, batch=batch)

    @torch.no_grad()
    def bare() -> None:
        for (_, right), cache in zip(setting.texts, caches, strict=True):
            ids = torch.cat([prompts[:1], torch.tensor([right])], dim=1)
            setting.reference(
                input_ids=ids, past_key_values=cached_gcg._expand(setting.reference, cache, 1), use_cache=True
            )

    return {
        "ours": our_step(setting, size, Optimizations(), CEILING["cuda"]),
        "cached": cached,
        "plain": plain,
        "bare": bare,
    }


def processor_seconds(step: Callable[[], object]) -> float:
    """Of one call."""
    began = time.process_time()
    step()
    return time.process_time() - began


def measure(setting: Setting, size: Size, timed: Size, repeats: int) -> dict[str, Any]:
    """One row: calls of each contestant and of our parts, seconds with the candidates of `timed` and their ratios to cached GCG's."""
    calls, of_parts, seconds = {}, Calls(), Counter[str]()
    for name, step in contestants(setting, size, rows=16).items():
        counted = of_parts if name == "ours" else Calls()
        with by_part(counted, Counter()), counted:
            step()
        calls[name] = counted.calls.total()
    steps = contestants(setting, timed, timed.candidates)
    with by_part(Calls(), seconds):
        steps["ours"]()
    timed_ones = {name: step for name, step in steps.items() if name != "plain"}
    turns = [{name: processor_seconds(step) for name, step in timed_ones.items()} for _ in range(repeats)]
    row: dict[str, Any] = {
        "model": setting.name,
        "slot": setting.slot,
        "contexts": len(setting.contexts),
        "candidates": size.candidates,
        "timed": timed.candidates,
    }
    row |= {"calls": calls, "calls ours/cached": calls["ours"] / calls["cached"]}
    row |= {"seconds": {name: statistics.median(turn[name] for turn in turns) for name in timed_ones}}
    ratios = sorted(turn["ours"] / turn["cached"] for turn in turns)
    row["seconds ours/cached"] = {"median": statistics.median(ratios), "low": ratios[0], "high": ratios[-1]}
    row["parts"] = {
        part: {"calls": of_parts.calls[part], "seconds": round(seconds[part], 4)} for part in (*PARTS, "rest")
    }
    return row


def waits_of_a_step() -> dict[str, int]:
    """Waits for the device in EPO's third step, by operation (in a process of its own, as the device is made for one)."""
    command = [sys.executable, "-m", "tests.support.strict_device", "waits", "hooked"]
    return json.loads(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    )[-1]


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: calls and seconds against cached GCG, and the parts' calls."""
    heads = ["model", "contexts", "calls: ours", "cached GCG", "plain EPO", "bare passes", "ours / cached"]
    heads += ["seconds, ours / cached (range)", *PARTS]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        ratio, counts = row["seconds ours/cached"], row["calls"]
        cells = [
            row["model"],
            f"{row['contexts']}",
            *(f"{counts[name]:,}" for name in ("ours", "cached", "plain", "bare")),
        ]
        cells += [
            f"{row['calls ours/cached']:.2f}",
            f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})",
        ]
        cells += [f"{row['parts'][part]['calls']:,}" for part in PARTS]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """The table, row by row, and its JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--vocabulary", nargs="+", type=int, default=[49152, 262144])
    parser.add_argument("--slots", nargs="+", default=["after_question"])
    parser.add_argument("--contexts", nargs="+", type=int, default=[8, 32])
    parser.add_argument(
        "--tokens",
        type=int,
        default=48,
        help="of the longer side of the slot: few, so that arithmetic is little",
    )
    parser.add_argument("--candidates", type=int, default=512)
    parser.add_argument("--timed", type=int, default=64, help="candidates of the timed steps")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "latest" / "host_time.json")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    START_OPERATIONS["cpu"] = START_OPERATIONS["cuda"]
    scorer.COMPUTES_AT_ONCE = frozenset()
    rows, waits = [], waits_of_a_step()
    print(f"waits a step: {sum(waits.values())}")
    for d_vocab in asked.vocabulary:
        loaded = load("llama", d_vocab=d_vocab, n_layers=asked.layers, d_model=asked.width)
        for slot in asked.slots:
            for n in asked.contexts:
                row = measure(
                    loaded.setting(slot, n, asked.tokens),
                    Size(candidates=asked.candidates),
                    Size(candidates=asked.timed),
                    asked.repeats,
                )
                rows.append(row | {"model": f"{asked.layers} layers, vocabulary {d_vocab:,}", "slot": slot})
                print(table(rows) if len(rows) == 1 else table(rows).splitlines()[-1], flush=True)
                result = {
                    "schema": 1,
                    "benchmark": "host_time",
                    "layers": asked.layers,
                    "width": asked.width,
                    "waits": waits,
                    "rows": rows,
                }
                write_json(asked.out, result)


if __name__ == "__main__":
    main()
