"""Three ways to run the blocks: one kernel after the other, through torch.compile, and replayed as CUDA graphs.

1. A step runs the blocks on batches of many shapes: rows (children of one changed position, another number in every step), positions (the
   prompt's rest after the change and the suffix), pieces of keys to the left (a prefix, or a batch of prefixes padded to one length).
2. `CUDA graphs`: a whole stretch of blocks without gradients is captured once for each shape, rows (of each prefix) filled up to a multiple
   of 16 so that shapes do come back; inputs are copied in, results copied out (the next replay overwrites them).
3. `compiled`: `run_block` with symbolic shapes, shared by all blocks: a few graphs whatever the shapes. One graph a shape would be
   made again in every step, as the rows never come back. Gradients are taken as they are (four more graphs, slow to make).
4. `compiled, CUDA graphs`: torch.compile's own (`reduce-overhead`), with the same filling up.

A block that somebody reads (the objective's site) is run as it is by the compiled ways; our graphs fire its last hook afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.utils import counters

from benchmarks.cost_settings import Setting
from benchmarks.gpu_lab import Cells, Lab, Row, deviations, median_seconds, setting_of, timed
from benchmarks.search_cost import our_step
from workbench.models import Runner
from workbench.models import hooked_runner as hooked
from workbench.models.hooked_block import Hidden, Pair
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
    prompts = SearchToolkit.make(Scorer(setting.runner, setting.objective, setting.contexts), seed=0).random_prompts(32, lab.size.length)
    expected = Scorer(setting.runner, setting.objective, setting.contexts).score(prompts)
    yield "shapes", partial(shapes, setting, lab)
    for name, way in WAYS.items():
        yield name, partial(by_way, setting, lab, way, prompts, expected)


def shapes(setting: Setting, lab: Lab) -> Row:
    """Distinct shapes that `run_block` is given in one step and in three, as they are and with filled-up rows."""
    seen: list[set[tuple[Any, ...]]] = []
    eager, step = hooked.run_block, _step(setting, lab)

    def noting(block: Any, resid: Tensor, left: Sequence[Pair], hidden: Hidden = None) -> tuple[Tensor, Pair]:
        seen[-1].add((resid.requires_grad, *resid.shape[:2], tuple((len(k), k.shape[1]) for k, _ in left)))
        return eager(block, resid, left, hidden)

    with replaced(hooked, "run_block", noting):
        for _ in range(3):
            seen.append(set())
            step()
    filled = [
        {(grad, _up(rows, left[0][0] if left else 1), pos, tuple(length for _, length in left)) for grad, rows, pos, left in found} for found in seen
    ]
    counts = {"a step": seen[:1], "three steps": seen, "a step, filled up": filled[:1], "three, filled up": filled}
    return {name: len(set.union(*found)) for name, found in counts.items()}


def by_way(setting: Setting, lab: Lab, way: Callable[[Runner], Any], prompts: Tensor, expected: Any) -> Row:
    """Difference from the eager scores, seconds of the first step and of the next three (compiling, capturing), then of a step."""
    torch._dynamo.reset()
    counters.clear()
    with way(setting.runner) as made:
        found = Scorer(setting.runner, setting.objective, setting.contexts).score(prompts)
        step = _step(setting, lab)
        first, warm = timed(step, lab.device), [timed(step, lab.device) for _ in range(3)]
        times = median_seconds(step, lab.device, max(3, lab.repeats))
        captured = len(made) if made is not None else None
    return {
        "objective, deviations": deviations(found.objective, expected.objective),
        "fluency, nats": float((found.cross_entropy - expected.cross_entropy).abs().max()),
        "first step": first, "warming up": warm, **times, "graphs compiled": counters["stats"]["unique_graphs"], "captured": captured,
    }  # fmt: skip


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
def compiled(runner: Runner) -> Iterator[None]:
    """Through torch.compile with symbolic shapes."""
    eager = hooked.run_block
    fast = torch.compile(eager)

    def run(block: Any, resid: Tensor, left: Sequence[Pair], hidden: Hidden = None) -> tuple[Tensor, Pair]:
        return (eager if _as_it_is(block, left) else fast)(block, *_marked(resid, left), hidden)

    with _many_graphs(), replaced(hooked, "run_block", run):
        yield


@contextmanager
def compiled_graphs(runner: Runner) -> Iterator[None]:
    """Through torch.compile with its own CUDA graphs, without gradients; what a graph gives is copied before the next one runs."""
    eager = hooked.run_block
    fast = torch.compile(eager, mode="reduce-overhead")

    def run(block: Any, resid: Tensor, left: Sequence[Pair], hidden: Hidden = None) -> tuple[Tensor, Pair]:
        if _as_it_is(block, left):
            return eager(block, resid, left, hidden)
        torch.compiler.cudagraph_mark_step_begin()
        owners, n = len(left[0][0]), len(resid)
        rows = _up(n, owners)
        filled = [(_filled(k, rows, owners), _filled(v, rows, owners)) if len(k) > owners else (k, v) for k, v in left]
        out, (keys, values) = fast(block, *_marked(_filled(resid, rows, owners), filled), hidden)
        return _first(out, n, owners), (_first(keys, n, owners), _first(values, n, owners))

    with _many_graphs(), replaced(hooked, "run_block", run):
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
        left = tuple((len(piece[0][0]) == owners, piece[0][0].shape[1]) for piece in kv.pieces) if kv else ()
        key = (start, stop, owners, _up(len(resid), owners), resid.shape[1], left, kv is not None and kv.hidden is not None, keep)
        if key not in made:
            made[key] = Captured(eager, resid, start, stop, kv, keep, pool)
        out, longer = made[key](resid, kv)
        return runner.model.blocks[stop - 1].hook_resid_post(out), longer

    with replaced(runner, "run", run):
        yield made


WAYS: dict[str, Callable[[Runner], Any]] = {
    "eager": eagerly,
    "CUDA graphs": graphs,
    "eager again": eagerly,
    "compiled": compiled,
    "compiled, CUDA graphs": compiled_graphs,
}


class Captured:
    """A stretch of blocks at one shape: buffers of its own for what comes in, a graph, and what the graph leaves."""

    def __init__(
        self, eager: Callable[..., Any], resid: Tensor, start: int, stop: int, kv: HookedKeyValueCache | None, keep: bool, pool: Any
    ) -> None:
        self.owners, self.blocks = kv.owners if kv else 1, stop - start
        rows = _up(len(resid), self.owners)
        self.resid, self.kv = _filled(resid, rows, self.owners), None
        if kv is not None:
            pieces = tuple(tuple((self._own(k, rows), self._own(v, rows)) for k, v in piece[: self.blocks]) for piece in kv.pieces)
            self.kv = replace(kv, pieces=pieces, rows=rows, hidden=None if kv.hidden is None else kv.hidden.clone())
        self.replay, (self.out, self.longer) = capture(lambda: eager(self.resid, start, stop, self.kv, keep), pool)

    def __call__(self, resid: Tensor, kv: HookedKeyValueCache | None) -> tuple[Tensor, HookedKeyValueCache | None]:
        """As `Runner.run`."""
        n = len(resid)
        self._into(self.resid, resid)
        if kv is not None and self.kv is not None:
            theirs = [t for piece in kv.pieces for pair in piece[: self.blocks] for t in pair]
            own = [t for piece in self.kv.pieces for pair in piece for t in pair]
            for mine, given in zip(own, theirs, strict=True):
                self._into(mine, given)
            if kv.hidden is not None and self.kv.hidden is not None:
                self.kv.hidden.copy_(kv.hidden)
        self.replay()
        return _first(self.out, n, self.owners), self._longer(n)

    def _own(self, x: Tensor, rows: int) -> Tensor:
        return x.clone() if len(x) == self.owners else _filled(x, rows, self.owners)

    def _into(self, mine: Tensor, given: Tensor) -> None:
        """Copied to each owner's first rows."""
        each = len(given) // self.owners
        mine.unflatten(0, (self.owners, -1))[:, :each].copy_(given.unflatten(0, (self.owners, each)))

    def _longer(self, n: int) -> HookedKeyValueCache | None:
        if self.longer is None:
            return None
        cut = [tuple((self._cut(k, n), self._cut(v, n)) for k, v in piece) for piece in self.longer.pieces]
        return replace(self.longer, pieces=tuple(cut), rows=n)

    def _cut(self, x: Tensor, n: int) -> Tensor:
        return x.clone() if len(x) == self.owners else _first(x, n, self.owners)


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
    return torch.cat([each, each.new_zeros(owners, rows // owners - each.shape[1], *x.shape[1:])], dim=1).flatten(0, 1)


def _first(x: Tensor, n: int, owners: int) -> Tensor:
    """Copies of each owner's first rows, n in all."""
    return x.unflatten(0, (owners, -1))[:, : n // owners].clone().flatten(0, 1)


def _marked(resid: Tensor, left: Sequence[Pair]) -> tuple[Tensor, list[Pair]]:
    """Rows and positions marked as what varies (with `dynamic=True` heads and their size would be symbols too, and compiling takes minutes)."""
    for x in (resid, *(t for pair in left for t in pair)):
        for axis in (0, 1) if len(x) > 1 else (1,):
            torch._dynamo.maybe_mark_dynamic(x, axis)
    return resid, list(left)


def _as_it_is(block: Any, left: Sequence[Pair]) -> bool:
    """Whether compiling is left out: with gradients, for a prefix (run once), and where somebody reads what leaves the block."""
    return torch.is_grad_enabled() or not left or bool(block.hook_resid_post.fwd_hooks)


@contextmanager
def _many_graphs() -> Iterator[None]:
    """Room for a graph for each kind of call (rows one or many, pieces one or two), and for a recording of each shape and block."""
    import torch._inductor.config as inductor

    limit = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"
    inductor.triton.cudagraph_unexpected_rerecord_limit = 100_000
    inductor.triton.cudagraph_dynamic_shape_warn_limit = None
    with torch._dynamo.config.patch({limit: 64}):
        yield
