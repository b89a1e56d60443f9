"""The GPU benchmark on the CPU: what fails costs its cell only, the checks pass on equal devices, captured blocks give the same scores."""

from __future__ import annotations

import json
import time

import pytest
import torch

from benchmarks import gpu, gpu_blocks, gpu_checks, gpu_speed
from benchmarks.gpu_lab import Lab, setting_of
from benchmarks.search_cost import Size
from tests.support.tiny_checkpoints import tiny_checkpoint
from workbench.search import Optimizations


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A tiny Llama on the CPU in float32."""
    model = tiny_checkpoint("llama", tmp_path_factory.mktemp("tiny"), max_position_embeddings=1024)
    size = Size(parents=2, candidates=16, few=4)
    return Lab("cpu", str(model), "float32", ("after_question",), (1, 2), size, repeats=1, small=True)


def raising():
    raise ValueError("no such kernel")


def test_a_cell_that_fails_or_takes_too_long_is_noted_and_the_others_go_on(tmp_path, capsys):
    journal = gpu.Journal(tmp_path / "gpu.json", {"benchmark": "gpu"}, limit=60, cell_limit=0.3)

    def cells():
        yield "fails", raising
        yield "too long", lambda: time.sleep(5)
        yield "works", lambda: {"seconds": 1.0}
        raise ValueError("the rest cannot be made ready")

    journal.part("one", cells)
    journal.limit = 0
    journal.part("two", lambda: iter([("late", raising)]))
    found = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert found["one"][0]["error"] == "ValueError: no such kernel" and "raising" in "".join(
        found["one"][0]["traceback"]
    )
    assert found["one"][1]["error"].startswith("TooLong") and found["one"][1]["took"] < 2
    assert found["one"][2]["seconds"] == 1.0 and found["one"][3]["cell"] == "the part itself"
    assert "skipped" in found["two"][0] and "works: took" in capsys.readouterr().out


def test_the_same_device_twice_agrees(lab):
    rows = {label: run() for label, run in gpu_checks.agree(lab)}
    assert len(rows) == 7
    for label, row in rows.items():
        if "float32" in label and "bfloat16" not in label:
            assert (
                row.get("objective, deviations", 0) < 1e-4
                and row.get("shared", 1)
                and row.get("same frontier", True)
            ), label
    assert 0 < rows["after_question: scores, bfloat16 against float32"]["objective, deviations"] < 0.5


def test_a_full_device_halves_the_chunk_and_leaves_the_scores(lab):
    loaded = lab.loaded("cpu", "float32")
    parents = torch.randint(10, 300, (4, 8), generator=torch.Generator().manual_seed(0))
    children = gpu_checks.children_of(parents, 64)
    assert (
        (children.ids != parents[children.parent]).sum(1) <= 1
    ).all() and children.position.bincount().tolist() == [8] * 8
    setting = setting_of(loaded, "after_question", 2, lab)
    with (
        gpu_checks.short_of_memory(setting.runner, "cpu", 0, tokens=128),
        pytest.raises(torch.OutOfMemoryError),
    ):
        setting.runner.run(torch.zeros(1, 65, 32), 0, 1)
    assert setting.runner.run(torch.zeros(1, 65, 32), 0, 1)[0].shape == (1, 65, 32)


def test_operations_are_counted_forward_and_backward():
    left, right = torch.ones(3, 5), torch.ones(5, 7, requires_grad=True)
    with gpu_speed.Operations() as counter:
        torch.autograd.grad((left @ right).sum(), right)
    assert counter.total == 2 * (2 * 3 * 5 * 7)


def test_counted_metered_and_planned_operations_are_near(lab):
    row = gpu_speed.operations(setting_of(lab.loaded("cpu", "float32"), "after_question", 2, lab), lab.size)
    assert 0.7 < row["metered/counted"] < 1.1 and 0.5 < row["planned/counted"] < 1.5


def test_captured_blocks_filled_up_with_rows_give_the_same_scores(lab, monkeypatch):
    """The buffers, the filling up and the reader's hook, with a graph that runs the blocks again instead of replaying them."""

    def again(run, pool):
        out, longer = run()

        def replay():
            fresh, fresh_longer = run()
            out.copy_(fresh)
            for side in ("shared", "own") if longer else ():
                for pair, fresh_pair in zip(
                    getattr(longer, side) or (), getattr(fresh_longer, side) or (), strict=True
                ):
                    for t, f in zip(pair, fresh_pair, strict=True):
                        t.copy_(f)

        return replay, (out, longer)

    monkeypatch.setattr(gpu_blocks, "capture", again)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    setting = setting_of(lab.loaded("cpu", "float32"), "after_question", 2, lab)
    expected, found = [], []
    for scores in (expected, found):
        with gpu_blocks.graphs(setting.runner) if scores is found else gpu_blocks.eagerly(setting.runner):
            scorer = gpu_checks._scorer(setting, Optimizations())
            assert [len(group.prefixes) for group in scorer.groups] == [2]
            for seed in range(2):
                parents = torch.randint(10, 300, (4, 8), generator=torch.Generator().manual_seed(seed))
                scores += scorer.score_children(
                    scorer.prepare(parents), gpu_checks.children_of(parents, 40, parents.flip(0, 1))
                )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.objective, other.objective)
        torch.testing.assert_close(one.cross_entropy, other.cross_entropy)
