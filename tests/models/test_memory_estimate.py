"""The planned memory: its parts by hand, and against what torch allocates on a deep model with a wide MLP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.tiny_checkpoints import tiny_checkpoint
from workbench.models import Runner, load_model, runner_for
from workbench.models.memory_estimate import (
    LargestBatch,
    MemoryEstimate,
    mapped_file,
    memory_needed,
    process_memory,
)
from workbench.models.memory_in_use import peak_memory
from workbench.models.runner import ModelShape

ROWS, LENGTH = 8, 32
FAMILIES = ("llama", "qwen2", "gemma3")


def test_memory_by_hand() -> None:
    """Llama-3.1-8B: 16.06 GB of weights in bfloat16, 131,072 bytes of keys and values a token."""
    shape = ModelShape(
        n_layers=32,
        d_model=4096,
        n_heads=32,
        n_kv_heads=8,
        d_head=128,
        d_vocab=128_256,
        n_ctx=131_072,
        block_parameters=2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14_336,
        tied=False,
    )
    memory = memory_needed(shape, 8_030_261_248, 2, LargestBatch(4, 100, 1, cached=50))
    assert memory.weights == 16_060_522_496
    assert memory.kv_per_token == 131_072
    assert memory.logits_per_position == 128_256 * 6
    assert (
        memory.forward
        == 2 * 400 * (5 * 4096 + 2 * 1024 + 2 * 14_336)
        == memory.after_cache - 2 * 400 * 4 * 1024
    )
    assert memory.gradient == 2 * 100 * (
        32 * (3 * 14_336 + 4 * 4096 + 2 * 1024 + 32 * 100) + 2 * 14_336 + 4 * 4096
    )
    rows = memory.rows()
    assert rows["collect activations"] == memory.weights + memory.forward
    assert (
        rows["score candidates after a cached prefix"]
        == memory.weights + memory.after_cache + 50 * 131_072 + 4 * 128_256 * 6
    )
    assert (
        rows["gradient of an objective"] == memory.weights + memory.gradient + 50 * 131_072 + 4 * 128_256 * 6
    )
    assert (
        mapped_file(16_060_600_000, 8_030_261_248, 2) == 0
        and mapped_file(32_121_100_000, 8_030_261_248, 2) == 32_121_100_000
    )
    mapped = memory_needed(shape, 8_030_261_248, 2, process=10**9, file=32_121_100_000).rows()
    assert (
        mapped["load"] == memory.weights + 10**9 + 32_121_100_000
        and mapped["collect activations"] < mapped["load"]
    )
    assert process_memory(100_000) == 730_000_000 and process_memory(100_000, "cuda") == 0


def test_long_rows_after_a_cache_are_planned_with_their_scores() -> None:
    """32 heads x 4,000 keys x 3 tensors a token are more than the MLP."""
    shape = ModelShape(
        n_layers=2,
        d_model=4096,
        n_heads=32,
        n_kv_heads=8,
        d_head=128,
        d_vocab=1000,
        n_ctx=8192,
        block_parameters=10**8,
        tied=True,
    )
    memory = memory_needed(shape, 0, 2, LargestBatch(1, 4000))
    assert memory.after_cache == 2 * 4000 * (3 * 4096 + 3 * 4096 + 8 * 1024 + 3 * 32 * 4000) > memory.forward


@pytest.fixture(scope="module", params=FAMILIES)
def wide(request, tmp_path_factory) -> Runner:
    """16 blocks of width 64 with an MLP of 512, two key heads for four query heads."""
    sizes = {
        "num_hidden_layers": 16,
        "hidden_size": 64,
        "intermediate_size": 512,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
    }
    sizes |= {"sliding_window": 256} if request.param == "gemma3" else {}
    directory: Path = tiny_checkpoint(request.param, tmp_path_factory.mktemp("wide") / request.param, **sizes)
    return runner_for(load_model(directory, backend="hooked"))


def _planned(runner: Runner, **batch: float) -> MemoryEstimate:
    return memory_needed(
        runner.shape, 0, 4, LargestBatch(ROWS, **{"length": LENGTH, "gradient_sequences": ROWS, **batch})
    )


def _peak(run: Callable[[], object]) -> int:
    run()
    with peak_memory(torch.device("cpu")) as peak:
        run()
    assert peak.bytes is not None
    return peak.bytes


def _ids(rows: int) -> Tensor:
    return torch.randint(4, 330, (rows, LENGTH), generator=torch.Generator().manual_seed(rows))


def test_a_pass_takes_what_is_planned(wide: Runner) -> None:
    def run() -> None:
        with torch.no_grad():
            wide.run(wide.embed(_ids(ROWS)), 0, wide.shape.n_layers)

    assert _peak(run) == pytest.approx(_planned(wide).forward, rel=0.15)


def test_rows_after_caches_of_their_own_take_what_is_planned(wide: Runner) -> None:
    """The caches of both halves are kept, no fork of them."""
    half = LENGTH // 2

    def run() -> None:
        with torch.no_grad():
            _, kv = wide.run(wide.embed(_ids(ROWS)[:, :half]), 0, wide.shape.n_layers, keep=True)
            assert kv is not None
            wide.run(
                wide.embed(_ids(2 * ROWS)[:, half:], half),
                0,
                wide.shape.n_layers,
                kv.fork(torch.arange(2 * ROWS) // 2),
            )

    needed = _planned(wide)
    assert _peak(run) == pytest.approx(needed.after_cache + ROWS * half * needed.kv_per_token, rel=0.15)


@pytest.mark.parametrize("cached", [False, True], ids=["alone", "after a cache"])
def test_a_gradient_takes_what_is_planned(wide: Runner, cached: bool) -> None:
    top = wide.shape.n_layers
    with torch.no_grad():
        kv = wide.run(wide.embed(_ids(1)), 0, top, keep=True)[1] if cached else None

    def run() -> None:
        leaf = wide.embed(_ids(ROWS), LENGTH if cached else 0).detach().requires_grad_(True)
        out, _ = wide.run(leaf, 0, top, None if kv is None else kv.fork(torch.zeros(ROWS, dtype=torch.long)))
        torch.autograd.grad(out[:, -1].sum(), leaf)

    batch = {"length": 2 * LENGTH, "gradient_sequences": ROWS / 2, "cached": 0.0} if cached else {}
    planned = _planned(wide, **batch).gradient
    assert _peak(run) == pytest.approx(planned, rel=0.15)
