"""Two ways to run the blocks: one kernel after the other, and replayed as CUDA graphs.

1. A step runs the blocks on batches of many shapes: rows (children of one changed position, another number in
   every step), positions (the prompt's rest after the change and the suffix), keys to the left (a prefix, or
   a batch of prefixes padded to one length, and the parents').
2. `CUDA graphs`: a whole stretch of blocks without gradients is captured once for each shape, rows (of each
   prefix) filled up to a multiple of 16 so that shapes do come back; inputs are copied in, results copied out
   (the next replay overwrites them).

A block that somebody reads (the objective's site): our graphs fire its last hook afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.cost_settings import Setting
from benchmarks.gpu_lab import Cells, Lab, Row, deviations, median_seconds, setting_of, timed
from benchmarks.search_cost import our_step
from workbench.models import Runner
from workbench.models import hooked_runner as hooked
from workbench.models.hooked_block import Pair, RunPlaces
from workbench.models.hooked_runner import HookedKeyValueCache
from workbench.search import Optimizations, Scorer
from workbench.search.scoring.batch_size import CEILING
from workbench.search.toolkit import SearchToolkit

MULTIPLE = 16


def ways(lab: Lab) -> Cells:
    """Shapes of a step, and its seconds by the way in which blocks are run."""
    n = 2 if lab.small else 8
    loaded = lab.loaded()
    setting = setting_of(loaded, "after_question", n, lab)
    prompts = SearchToolkit.make(
        Scorer(setting.runner, setting.objective, setting.contexts), seed=0
    ).random_prompts(32, lab.size.length)
    expected = Scorer(setting.runner, setting.objective, setting.contexts).score(prompts)
    yield "shapes", partial(shapes, setting, lab)
    for name, way in WAYS.items():
        yield name, partial(by_way, setting, lab, way, prompts, expected)


def shapes(setting: Setting, lab: Lab) -> Row:
    """Distinct shapes that `run_block` is given in one step and in three, as they are and with filled-up rows."""
    seen: list[set[tuple[Any, ...]]] = []
    eager, step = hooked.run_block, _step(setting, lab)

    def noting(
        block: Any, resid: Tensor, places: RunPlaces, shared: Pair | None = None, own: Pair | None = None
    ) -> tuple[Tensor, Pair]:
        seen[-1].add((resid.requires_grad, places.owners, places.rows, places.n, places.shared, places.own))
        return eager(block, resid, places, shared, own)

    with replaced(hooked, "run_block", noting):
        for _ in range(3):
            seen.append(set())
            step()
    filled = [
        {(grad, owners, _up(rows, owners), *rest) for grad, owners, rows, *rest in found} for found in seen
    ]
    counts = {
        "a step": seen[:1],
        "three steps": seen,
        "a step, filled up": filled[:1],
        "three, filled up": filled,
    }
    return {name: len(set.union(*found)) for name, found in counts.items()}


def by_way(setting: Setting, lab: Lab, way: Callable[[Runner], Any], prompts: Tensor, expected: Any) -> Row:
    """Difference from the eager scores, seconds of the first step and of the next three (capturing), then of a step."""
    with way(setting.runner) as made:
        found = Scorer(setting.runner, setting.objective, setting.contexts).score(prompts)
        step = _step(setting, lab)
        first, warm = timed(step, lab.device), [timed(step, lab.device) for _ in range(3)]
        times = median_seconds(step, lab.device, max(3, lab.repeats))
        captured = len(made) if made is not None else None
    return {
        "objective, deviations": deviations(found.objective, expected.objective),
        "fluency, nats": float((found.cross_entropy - expected.cross_entropy).abs().max()),
        "first step": first,
        "warming up": warm,
        **times,
        "captured": captured,
    }


def _step(setting: Setting, lab: Lab) -> Callable[[], None]:
    return our_step(setting, lab.size, Optimizations(), CEILING[setting.runner.device.type])


@contextmanager
def replaced(owner: Any, name: str, by: Any) -> Iterator[None]:
    """While inside, the owner's attribute is this."""
    own = owner.__dict__.get(name)
    setattr(owner, name, by)
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)


@contextmanager
def eagerly(runner: Runner) -> Iterator[None]:
    """As the workbench runs them."""
    yield


@contextmanager
def graphs(runner: Runner) -> Iterator[dict[Any, Any]]:
    """Stretches of blocks as CUDA graphs of our own; gives the captured ones by shape."""
    eager, made = runner.run, {}
    pool = torch.cuda.graph_pool_handle()

    def run(
        resid: Tensor, start: int, stop: int, kv: HookedKeyValueCache | None = None, keep: bool = False
    ) -> tuple[Tensor, HookedKeyValueCache | None]:
        if torch.is_grad_enabled() or stop == start:
            return eager(resid, start, stop, kv, keep)
        owners = kv.owners if kv else 1
        left = (kv.shared_length, kv.own_length, kv.padding is not None) if kv else ()
        key = (start, stop, owners, _up(len(resid), owners), resid.shape[1], left, keep)
        if key not in made:
            made[key] = Captured(eager, resid, start, stop, kv, keep, pool)
        out, longer = made[key](resid, kv)
        return runner.model.blocks[stop - 1].hook_resid_post(out), longer

    with replaced(runner, "run", run):
        yield made


WAYS: dict[str, Callable[[Runner], Any]] = {"eager": eagerly, "CUDA graphs": graphs, "eager again": eagerly}


class Captured:
    """A stretch of blocks at one shape: buffers of its own for what comes in, a graph, and what the graph leaves."""

    def __init__(
        self,
        eager: Callable[..., Any],
        resid: Tensor,
        start: int,
        stop: int,
        kv: HookedKeyValueCache | None,
        keep: bool,
        pool: Any,
    ) -> None:
        self.owners, self.blocks = kv.owners if kv else 1, stop - start
        rows = _up(len(resid), self.owners)
        self.resid, self.kv = _filled(resid, rows, self.owners), None
        if kv is not None:
            shared = (
                None
                if kv.shared is None
                else tuple((k.clone(), v.clone()) for k, v in kv.shared[: self.blocks])
            )
            own = (
                None
                if kv.own is None
                else tuple((self._own(k, rows), self._own(v, rows)) for k, v in kv.own[: self.blocks])
            )
            self.kv = replace(
                kv,
                shared=shared,
                own=own,
                rows=rows,
                padding=None if kv.padding is None else kv.padding.clone(),
            )
        self.replay, (self.out, self.longer) = capture(
            lambda: eager(self.resid, start, stop, self.kv, keep), pool
        )

    def __call__(
        self, resid: Tensor, kv: HookedKeyValueCache | None
    ) -> tuple[Tensor, HookedKeyValueCache | None]:
        """As `Runner.run`."""
        n = len(resid)
        self._into(self.resid, resid)
        if kv is not None and self.kv is not None:
            for mine, given in ((self.kv.shared, kv.shared), (self.kv.own, kv.own)):
                for (keys, values), (k, v) in zip(mine or (), (given or ())[: self.blocks], strict=True):
                    keys[:, : k.shape[1]].copy_(k)
                    values[:, : v.shape[1]].copy_(v)
            if kv.padding is not None and self.kv.padding is not None:
                self.kv.padding.copy_(kv.padding)
        self.replay()
        return _first(self.out, n, self.owners), self._longer(n)

    def _own(self, x: Tensor, rows: int) -> Tensor:
        """Zero rows after those of each owner."""
        return torch.cat([x, x.new_zeros(self.owners, rows // self.owners - x.shape[1], *x.shape[2:])], dim=1)

    def _into(self, mine: Tensor, given: Tensor) -> None:
        """Copied to each owner's first rows."""
        each = len(given) // self.owners
        mine.unflatten(0, (self.owners, -1))[:, :each].copy_(given.unflatten(0, (self.owners, each)))

    def _longer(self, n: int) -> HookedKeyValueCache | None:
        if self.longer is None:
            return None
        cut = lambda x: x[:, : n // self.owners].clone()  # noqa: E731
        own = None if self.longer.own is None else tuple((cut(k), cut(v)) for k, v in self.longer.own)
        shared = (
            None
            if self.longer.shared is None
            else tuple((k.clone(), v.clone()) for k, v in self.longer.shared)
        )
        one = shared is None and n == 1  # a prefix, filled up
        return replace(self.longer, shared=own if one else shared, own=None if one else own, rows=n)


def capture(run: Callable[[], Any], pool: Any) -> tuple[Callable[[], None], Any]:
    """What replays the run, and what it gave: the same tensors after every replay. It is run twice on another stream first, as CUDA wants it."""
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph, pool=pool):
        out = run()
    return graph.replay, out


def _up(rows: int, owners: int) -> int:
    """Rows with those of each owner filled up."""
    return -(-rows // (owners * MULTIPLE)) * MULTIPLE * owners


def _filled(x: Tensor, rows: int, owners: int) -> Tensor:
    """Zero rows after those of each owner, up to so many in all."""
    each = x.unflatten(0, (owners, -1))
    return torch.cat(
        [each, each.new_zeros(owners, rows // owners - each.shape[1], *x.shape[1:])], dim=1
    ).flatten(0, 1)


def _first(x: Tensor, n: int, owners: int) -> Tensor:
    """Copies of each owner's first rows, n in all."""
    return x.unflatten(0, (owners, -1))[:, : n // owners].clone().flatten(0, 1)
