"""Blocks whose attention copies nothing: TransformerLens's own block is the oracle, hooks and gradients included."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.models.conftest import Bench
from workbench.models import Runner, hooked
from workbench.models.hooked_block import is_plain

PLAIN = ("llama", "qwen2", "qwen3", "gpt2")
HALF = 9


def _behind_a_shared_prefix(runner: Runner, ids: Tensor) -> tuple[Tensor, Tensor, Tensor, hooked.HookedKV]:
    """Outputs of three rows behind one prefix, of forked and cropped rows behind them, and the gradient to the rows' embeddings."""
    top = runner.shape.n_layers
    with torch.no_grad():
        _, prefix = runner.run(runner.embed(ids[:1, :HALF]), 0, top, keep=True)
    forked = prefix.fork(torch.zeros(3, dtype=torch.long))
    leaf = runner.embed(ids[:, HALF:], HALF).detach().requires_grad_(True)
    out, longer = runner.run(leaf, 0, top, forked, keep=True)
    gradient = torch.autograd.grad(out[:, -1].square().sum(), leaf)[0]
    with torch.no_grad():
        index = torch.tensor([2, 0, 0, 1])
        child = longer.fork(index).crop(HALF + 3)
        again, _ = runner.run(runner.embed(ids[index, HALF + 3 :], HALF + 3), 0, top, child)
    return out.detach(), again, gradient, longer


@pytest.mark.parametrize("family", PLAIN)
def test_outputs_and_gradients_are_those_of_transformer_lens(bench: Bench, ids: Tensor, family: str, monkeypatch) -> None:
    runner = bench.runner(family, "hooked", "float64")
    assert all(is_plain(block) for block in runner.model.blocks)
    ours = _behind_a_shared_prefix(runner, ids)
    monkeypatch.setattr(hooked, "is_plain", lambda block: False)
    theirs = _behind_a_shared_prefix(runner, ids)
    for one, two in zip(ours[:3], theirs[:3], strict=True):
        torch.testing.assert_close(one, two, atol=1e-8, rtol=1e-8)


def test_a_shared_prefix_stays_one_row(bench: Bench, ids: Tensor) -> None:
    *_, longer = _behind_a_shared_prefix(bench.runner("llama", "hooked", "float32"), ids)
    assert [len(piece[0][0]) for piece in longer.pieces] == [1, 3]
    assert (longer.length, longer.batch) == (20, 3)


def test_soft_caps_and_windows_keep_transformer_lens_code(bench: Bench) -> None:
    assert not any(is_plain(block) for block in bench.runner("gemma2", "hooked", "float32").model.blocks)
    assert not any(is_plain(block) for block in bench.runner("mistral", "hooked", "float32").model.blocks)


def test_all_hooks_fire_and_a_look_at_the_pattern_takes_the_other_way(bench: Bench, ids: Tensor) -> None:
    runner = bench.runner("llama", "hooked", "float32")
    seen: dict[str, Tensor] = {}

    def keep(activation: Tensor, hook) -> None:
        seen[hook.name] = activation.detach()

    inner = [f"attn.hook_{part}" for part in "qkvz"]
    names = [f"blocks.1.{name}" for name in ("hook_resid_pre", *inner, "hook_attn_out", "hook_resid_mid")]
    names += ["blocks.1.hook_mlp_out", "blocks.1.hook_resid_post"]
    with torch.no_grad(), runner.model.hooks(fwd_hooks=[(name, keep) for name in names]):
        assert is_plain(runner.model.blocks[1])
        plain, _ = runner.run(runner.embed(ids), 0, 2)
    assert set(seen) == set(names)
    inside = "blocks.1.attn.hook_pattern"
    with torch.no_grad(), runner.model.hooks(fwd_hooks=[(inside, keep), ("blocks.1.attn.hook_z", keep)]):
        assert not is_plain(runner.model.blocks[1])
        z = seen["blocks.1.attn.hook_z"]
        looked, _ = runner.run(runner.embed(ids), 0, 2)
    assert seen[inside].shape == (3, 4, 20, 20)
    torch.testing.assert_close(looked, plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(seen["blocks.1.attn.hook_z"], z, atol=1e-5, rtol=1e-5)
    with torch.no_grad(), runner.edit("blocks.1.attn.hook_z", torch.zeros_like):
        edited, _ = runner.run(runner.embed(ids), 0, 2)
    assert float((edited - plain).abs().max()) > 1e-2
