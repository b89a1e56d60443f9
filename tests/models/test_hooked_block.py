"""Blocks whose attention copies nothing: TransformerLens's own block is the oracle, hooks and gradients included."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from tests.support.tiny_families import TinyFamilies
from workbench.errors import UserError
from workbench.models import Runner
from workbench.models import bridge_runner as bridge
from workbench.models import hooked_runner as hooked
from workbench.models.hooked_block import RunPlaces, is_plain, mlp_out, run_block
from workbench.models.memory_in_use import peak_memory

PLAIN = ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "mistral", "gpt2")
HALF = 9


def _behind_a_shared_prefix(
    runner: Runner, ids: Tensor
) -> tuple[Tensor, Tensor, Tensor, hooked.HookedKeyValueCache]:
    """Outputs of three rows after one prefix, of forked and cropped rows after them, and the gradient to the rows' embeddings."""
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
def test_outputs_and_gradients_are_those_of_transformer_lens(
    families: TinyFamilies, ids: Tensor, family: str, monkeypatch
) -> None:
    runner = families.runner(family, "hooked", "float64")
    assert all(is_plain(block) for block in runner.model.blocks)
    ours = _behind_a_shared_prefix(runner, ids)
    monkeypatch.setattr(hooked, "is_plain", lambda block: False)
    theirs = _behind_a_shared_prefix(runner, ids)
    for one, two in zip(ours[:3], theirs[:3], strict=True):
        torch.testing.assert_close(one, two, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_the_mlp_without_gradients_has_the_bits_of_transformer_lens(
    families: TinyFamilies, ids: Tensor, family: str, dtype: str
) -> None:
    """In place, with the norm after it where there is one; a hook inside sees what TransformerLens gives it, and is obeyed."""
    runner = families.runner(family, "hooked", dtype)
    block, seen = runner.model.blocks[1], {}
    with torch.no_grad():
        resid = block.ln2(runner.embed(ids))
        expected = block.apply_mlp(resid)
        assert torch.equal(mlp_out(block, resid), expected)
        look = [
            ("blocks.1.mlp.hook_post", lambda activation, hook: seen.update(post=activation.clone())),
            ("blocks.1.hook_mlp_out", lambda a, hook: -a),
        ]
        with runner.model.hooks(fwd_hooks=look):
            assert torch.equal(mlp_out(block, resid), -expected)
        assert seen["post"].shape == (*ids.shape, runner.model.cfg.d_mlp)


def test_a_pass_without_gradients_holds_two_tensors_of_the_mlps_width(
    families: TinyFamilies, ids: Tensor
) -> None:
    """A wide MLP alone: its two tensors of d_mlp numbers a token, and its output; TransformerLens holds four."""
    runner = families.runner("llama", "hooked", "float32")
    mlp, d_model, wide = runner.model.blocks[0].mlp, runner.shape.d_model, 4096
    shapes = {"W_gate": (d_model, wide), "W_in": (d_model, wide), "W_out": (wide, d_model), "b_in": (wide,)}
    block, x = copy.deepcopy(runner.model.blocks[0]), torch.randn(3, 20, d_model)
    for name, shape in shapes.items():
        setattr(
            block.mlp,
            name,
            torch.nn.Parameter(
                torch.randn(shape[::-1]).permute(*range(len(shape))[::-1]), requires_grad=False
            ),
        )
    with torch.no_grad(), peak_memory(torch.device("cpu")) as ours:
        mlp_out(block, x)
    with torch.no_grad(), peak_memory(torch.device("cpu")) as theirs:
        block.apply_mlp(x)
    number = 4 * 60 * wide
    assert ours.bytes is not None and theirs.bytes is not None and mlp.W_gate.shape != block.mlp.W_gate.shape
    assert 2 * number <= ours.bytes < 2.2 * number and theirs.bytes > 3.9 * number


def test_a_forked_cache_is_gathered_block_by_block(families: TinyFamilies, ids: Tensor) -> None:
    """Forks of forks hold the rows of the first cache, by reference; what a block is given is what gathering all at once gave."""
    runner = families.runner("llama", "hooked", "float32")
    with torch.no_grad():
        _, kv = runner.run(runner.embed(ids), 0, 2, keep=True)
    assert isinstance(kv, hooked.HookedKeyValueCache) and kv.own is not None
    once = kv.fork(torch.tensor([2, 0, 1, 2]))
    twice = once.fork(torch.tensor([3, 3, 1])).crop(7)
    for layer in range(2):
        for whole, part in zip(kv.own[layer], twice.left_of(layer)[1] or (), strict=True):
            torch.testing.assert_close(part, whole[:, [2, 2, 0], :, :7], atol=0, rtol=0)
    assert once.own is kv.own and (twice.batch, twice.length, twice.fork(torch.tensor([0])).batch) == (
        3,
        7,
        1,
    )


def test_a_shared_prefix_stays_one_row(families: TinyFamilies, ids: Tensor) -> None:
    *_, longer = _behind_a_shared_prefix(families.runner("llama", "hooked", "float32"), ids)
    assert (
        longer.shared and longer.own and [longer.shared[0][0].shape[1], longer.own[0][0].shape[1]] == [1, 3]
    )
    assert (longer.length, longer.batch) == (20, 3)


@pytest.mark.parametrize("backend", ["hooked", "bridge"])
@pytest.mark.parametrize("family", PLAIN)
def test_prefixes_of_unequal_length_run_as_a_stack(families: TinyFamilies, family: str, backend: str) -> None:
    """Two rows after each of three prefixes: outputs, the backward pass, forks, crops and picks are those of each prefix alone."""
    runner, generator = families.runner(family, backend, "float64"), torch.Generator().manual_seed(2)
    top, lengths = runner.shape.n_layers, (5, 9, 6)
    draw = lambda *shape: torch.randint(4, 330, shape, generator=generator)  # noqa: E731
    prefixes, rows = [draw(1, n) for n in lengths], draw(2, 7)
    with torch.no_grad():
        caches = [runner.run(runner.embed(ids), 0, top, keep=True)[1] for ids in prefixes]
    stacked = runner.batch_caches(caches)
    assert stacked is not None and (stacked.owners, stacked.batch, stacked.length) == (3, 3, 9)
    leaf = torch.cat([runner.embed(rows, n) for n in lengths]).detach().requires_grad_(True)
    out, longer = runner.run(leaf, 0, top, stacked.fork(torch.arange(3).repeat_interleave(2)), keep=True)
    gradient = torch.autograd.grad(out[:, -1].square().sum(), leaf)[0]
    index, picked = torch.tensor([1, 0, 1]), [2, 0]
    with torch.no_grad():
        of_each = torch.cat([index, 2 + index, 4 + index])
        ends = torch.cat([runner.embed(rows[index, 4:], n + 4) for n in lengths])
        children, _ = runner.run(ends, 0, top, longer.fork(of_each).crop(9 + 4))
        some, _ = runner.run(
            torch.cat([ends[6:], ends[:3]]),
            0,
            top,
            longer.pick(picked, 3).fork(torch.cat([index, 2 + index])).crop(6 + 4),
        )
        at = runner.run_at(ends, 0, top, torch.tensor([0, 1, 2] * 3), longer.fork(of_each).crop(9 + 4))
    for number, (n, cache) in enumerate(zip(lengths, caches, strict=True)):
        alone = runner.embed(rows, n).detach().requires_grad_(True)
        whole, own = runner.run(alone, 0, top, cache.fork(torch.zeros(2, dtype=torch.long)), keep=True)
        close = (
            {"atol": 1e-8, "rtol": 1e-8} if backend == "hooked" else {"atol": 1e-3, "rtol": 1e-3}
        )  # Hugging Face's norms are float32
        torch.testing.assert_close(out[2 * number : 2 * number + 2], whole, **close)
        torch.testing.assert_close(
            gradient[2 * number : 2 * number + 2],
            torch.autograd.grad(whole[:, -1].square().sum(), alone)[0],
            **close,
        )
        child, _ = runner.run(runner.embed(rows[index, 4:], n + 4), 0, top, own.fork(index).crop(n + 4))
        torch.testing.assert_close(children[3 * number : 3 * number + 3], child, **close)
        torch.testing.assert_close(
            at[3 * number : 3 * number + 3, 0], child[torch.arange(3), torch.arange(3)], **close
        )
        if number in picked:
            first = 3 * picked.index(number)
            torch.testing.assert_close(some[first : first + 3], child, **close)


def test_a_bridge_whose_batch_is_not_exact_runs_contexts_one_at_a_time(
    families: TinyFamilies, ids: Tensor, monkeypatch
) -> None:
    """A mask that is lost shows at the first batch, which is compared with each prefix alone."""
    runner = bridge.BridgeRunner(families.runner("llama", "bridge", "float32").model)
    caches = [runner.run(runner.embed(ids[:1, :n]), 0, 1, keep=True)[1] for n in (3, 5)]
    noted = runner._note_arguments
    monkeypatch.setattr(
        runner,
        "_note_arguments",
        lambda length, offset, like, padding: noted(length, offset, like, tuple(0 for _ in padding)),
    )
    before = dict(vars(runner.meter))
    assert runner.batch_caches(caches) is None
    assert vars(runner.meter) == before
    assert bridge.BridgeRunner(runner.model).batch_caches(caches) is not None


def test_a_look_into_attention_behind_a_stack_is_refused_in_words(
    families: TinyFamilies, ids: Tensor
) -> None:
    runner = families.runner("llama", "hooked", "float32")
    stacked = runner.batch_caches([runner.run(runner.embed(ids[:1, :n]), 0, 1, keep=True)[1] for n in (3, 5)])
    look = [("blocks.0.attn.hook_pattern", lambda activation, hook: None)]
    with runner.model.hooks(fwd_hooks=look), pytest.raises(UserError, match="batched_caches off"):
        runner.run(runner.embed(ids[:2, :4]), 0, 1, stacked)


@pytest.mark.parametrize("family", ["gemma2", "gemma3", "mistral"])
def test_keys_beyond_the_window_are_not_multiplied(families: TinyFamilies, ids: Tensor, family: str) -> None:
    """After a prefix of 9 tokens, with a window of 6, the first of 4 queries reaches 5 keys of the prefix: NaN further left changes nothing."""
    runner = families.runner(family, "hooked", "float32")
    block = runner.model.blocks[0]
    assert (block.attn.attn_type, block.cfg.window_size) == ("local", 6)
    with torch.no_grad():
        resid = runner.embed(ids[:1])
        _, (keys, values) = run_block(block, resid[:, :9], RunPlaces((1, 9), 1, 0, 0, None))
        expected, _ = run_block(block, resid[:, 9:13], RunPlaces((1, 4), 1, 9, 0, None), (keys, values))
        for t in (keys, values):
            t[..., :4, :] = torch.nan
        out, _ = run_block(block, resid[:, 9:13], RunPlaces((1, 4), 1, 9, 0, None), (keys, values))
    torch.testing.assert_close(out, expected, rtol=0, atol=0)


def test_all_hooks_fire_and_a_look_at_the_pattern_takes_the_other_way(
    families: TinyFamilies, ids: Tensor
) -> None:
    runner = families.runner("llama", "hooked", "float32")
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
