"""Both backends against Hugging Face, against themselves in parts, and against finite differences, for every family."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import Int
from torch import Tensor

from tests.support.tiny_checkpoints import FAMILIES
from tests.support.tiny_families import TinyFamilies
from workbench.errors import UserError
from workbench.models import HOOKS, KeyValueCache, Runner, Site, runner_for
from workbench.models import bridge_runner as bridge
from workbench.models.loading import load_model

BACKENDS = ("hooked", "bridge")
every_model = pytest.mark.parametrize(("family", "backend"), [(f, b) for f in FAMILIES for b in BACKENDS])
two_families = pytest.mark.parametrize("family", ("gemma3", "gpt2"))
either_backend = pytest.mark.parametrize("backend", BACKENDS)


@torch.no_grad()
def _logits(runner: Runner, ids: Tensor) -> Tensor:
    resid, _ = runner.run(runner.embed(ids), 0, runner.shape.n_layers)
    return runner.logits(resid)


@torch.no_grad()
def _prefix(
    runner: Runner, ids: Tensor, start: int = 0, stop: int | None = None
) -> tuple[Tensor, KeyValueCache]:
    resid, _ = runner.run(runner.embed(ids), 0, start)
    return runner.run(resid, start, runner.shape.n_layers if stop is None else stop, keep=True)


@every_model
def test_logits_are_hugging_faces(
    families: TinyFamilies, ids: Tensor, family: str, backend: str, record_property
) -> None:
    want = families.logits(family, ids)
    got = _logits(families.runner(family, backend, "float32"), ids)
    difference = float((got - want).abs().max())
    record_property("max_difference", difference)
    assert got.dtype == torch.float32
    assert float(want.abs().max()) > 1, "weights too small to tell anything"
    assert difference < 5e-5


@every_model
def test_residuals_are_hugging_faces_hidden_states(
    families: TinyFamilies, ids: Tensor, family: str, backend: str
) -> None:
    runner = families.runner(family, backend, "float32")
    with torch.no_grad():
        states = families.reference(family, torch.float32)(
            input_ids=ids, output_hidden_states=True
        ).hidden_states
    positions = torch.tensor([19, 3, 11])
    sites = [Site(layer, "resid_pre") for layer in range(4)]
    found = runner.read(ids, sites, positions)
    for site in sites:
        torch.testing.assert_close(
            found[site], states[site.layer][torch.arange(3), positions], atol=2e-5, rtol=2e-5
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_every_hook_means_the_same_in_both_backends(families: TinyFamilies, ids: Tensor, family: str) -> None:
    sites = [Site(layer, hook) for layer in range(4) for hook in HOOKS]
    positions = torch.tensor([19, 3, 11])
    found = [families.runner(family, backend, "float32").read(ids, sites, positions) for backend in BACKENDS]
    torch.testing.assert_close(found[0], found[1], atol=2e-5, rtol=2e-5)


@every_model
def test_blocks_in_parts_give_the_whole(
    families: TinyFamilies, ids: Tensor, family: str, backend: str
) -> None:
    runner = families.runner(family, backend, "float32")
    whole = _logits(runner, ids)
    for cut in range(runner.shape.n_layers + 1):
        with torch.no_grad():
            middle, _ = runner.run(runner.embed(ids), 0, cut)
            end, _ = runner.run(middle, cut, runner.shape.n_layers)
            torch.testing.assert_close(runner.logits(end), whole, atol=1e-5, rtol=1e-5)


@every_model
@pytest.mark.parametrize("length", (1, 5, 13))
def test_a_cached_prefix_changes_nothing(
    families: TinyFamilies, ids: Tensor, family: str, backend: str, length: int
) -> None:
    """Prefixes shorter and longer than the sliding window of 6; the rest in two pieces."""
    runner = families.runner(family, backend, "float32")
    whole = _logits(runner, ids)
    _, kv = _prefix(runner, ids[:, :length])
    pieces, top = [], runner.shape.n_layers
    for piece in (ids[:, length : length + 4], ids[:, length + 4 :]):
        with torch.no_grad():
            resid, kv = runner.run(runner.embed(piece, offset=kv.length), 0, top, kv, keep=True)
            pieces.append(runner.logits(resid))
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole[:, length:], atol=2e-5, rtol=2e-5)
    assert kv.length == ids.shape[1]


@every_model
def test_caches_from_a_middle_block_on(
    families: TinyFamilies, ids: Tensor, family: str, backend: str
) -> None:
    """The upper half of the model with a cache of its own; a cache of four blocks also serves the lowest of them."""
    runner = families.runner(family, backend, "float32")
    whole = _logits(runner, ids)
    resid, low = _prefix(runner, ids[:, :9], stop=2)
    with torch.no_grad():
        _, high = runner.run(resid, 2, 4, keep=True)
        middle, _ = runner.run(runner.embed(ids[:, 9:], offset=9), 0, 2, low)
        end, _ = runner.run(middle, 2, 4, high)
        torch.testing.assert_close(runner.logits(end), whole[:, 9:], atol=2e-5, rtol=2e-5)
        _, all_blocks = _prefix(runner, ids[:, :9])
        again, _ = runner.run(runner.embed(ids[:, 9:], offset=9), 0, 2, all_blocks)
    torch.testing.assert_close(again, middle, atol=2e-5, rtol=2e-5)


@every_model
def test_fork_and_crop(families: TinyFamilies, ids: Tensor, family: str, backend: str) -> None:
    """A forked cache serves its rows, a cropped one is the shorter prefix's, and the first stays as it was."""
    runner = families.runner(family, backend, "float32")
    _, kv = _prefix(runner, ids[:, :13])
    before = _behind(runner, kv, ids[:, 13:])
    index = torch.tensor([2, 0, 2, 1])
    torch.testing.assert_close(
        _behind(runner, kv.fork(index), ids[index, 13:]), before[index], atol=2e-5, rtol=2e-5
    )
    one = _prefix(runner, ids[:1, :13])[1].fork(torch.zeros(3, dtype=torch.long))
    mixed = torch.cat([ids[:1, :13].expand(3, -1), ids[:, 13:]], dim=1)
    torch.testing.assert_close(
        _behind(runner, one, ids[:, 13:]), _logits(runner, mixed)[:, 13:], atol=2e-5, rtol=2e-5
    )
    short = kv.crop(8)
    assert (short.length, kv.length, kv.batch, one.batch) == (8, 13, 3, 3)
    torch.testing.assert_close(
        _behind(runner, short, ids[:, 8:]), _logits(runner, ids)[:, 8:], atol=2e-5, rtol=2e-5
    )
    assert torch.equal(_behind(runner, kv, ids[:, 13:]), before)


@torch.no_grad()
def _behind(runner: Runner, kv: KeyValueCache, ids: Int[Tensor, "batch pos"]) -> Tensor:
    resid, _ = runner.run(runner.embed(ids, offset=kv.length), 0, runner.shape.n_layers, kv)
    return runner.logits(resid)


@pytest.mark.parametrize("family", ("llama", "gemma3", "gpt2"))
def test_without_caches_the_prefix_is_run_again(
    families: TinyFamilies, ids: Tensor, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attention that never hands over its keys: the runner notices and stays right, and its meter counts the prefix."""

    class Unknown:
        pass

    monkeypatch.setattr(bridge, "AttentionBridge", Unknown)
    runner = bridge.BridgeRunner(families.runner(family, "bridge", "float32").model)
    assert not runner.caches
    whole = _logits(runner, ids)
    _, kv = _prefix(runner, ids[:, :13])
    before = runner.meter.forward
    torch.testing.assert_close(_behind(runner, kv, ids[:, 13:]), whole[:, 13:], atol=2e-5, rtol=2e-5)
    assert runner.meter.forward - before == 3 * 20 * runner.shape.n_layers
    index = torch.tensor([2, 0, 2])
    torch.testing.assert_close(
        _behind(runner, kv.fork(index), ids[index, 13:]), whole[index, 13:], atol=2e-5, rtol=2e-5
    )
    torch.testing.assert_close(_behind(runner, kv.crop(8), ids[:, 8:]), whole[:, 8:], atol=2e-5, rtol=2e-5)


@every_model
def test_gradients_equal_finite_differences(
    families: TinyFamilies, ids: Tensor, family: str, backend: str
) -> None:
    """d logits / d residual at block 1, after a cached prefix, in float64, along random directions."""
    runner = families.runner(family, backend, "float64")
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(runner.shape.d_vocab, generator=generator, dtype=torch.float64)
    start, _ = runner.run(runner.embed(ids[:, :9]), 0, 1)
    _, kv = runner.run(start, 1, 4, keep=True)
    base = _inputs(runner, ids).requires_grad_(True)

    def score(resid: Tensor) -> Tensor:
        out, _ = runner.run(resid, 1, 4, kv)
        return (torch.log_softmax(runner.logits(out)[:, -1].double(), -1) @ weights).sum()

    (gradient,) = torch.autograd.grad(score(base), base)
    with torch.no_grad():
        for _ in range(3):
            direction = torch.randn(base.shape, generator=generator, dtype=torch.float64)
            step = 2e-3
            slope = (score(base + step * direction) - score(base - step * direction)) / (2 * step)
            torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-3, atol=2e-3)


@torch.no_grad()
def _inputs(runner: Runner, ids: Tensor) -> Tensor:
    _, low = runner.run(runner.embed(ids[:, :9]), 0, 1, keep=True)
    return runner.run(runner.embed(ids[:, 9:], offset=9), 0, 1, low)[0].clone()


@every_model
def test_bfloat16_is_as_close_as_hugging_faces(
    families: TinyFamilies, ids: Tensor, family: str, backend: str
) -> None:
    exact = families.logits(family, ids)
    with torch.no_grad():
        theirs = families.reference(family, torch.bfloat16)(input_ids=ids).logits.float()
    runner = families.runner(family, backend, "bfloat16")
    ours = _logits(runner, ids)
    assert runner.dtype == torch.bfloat16 and ours.dtype == torch.float32
    spread = float((theirs - exact).pow(2).mean().sqrt())
    assert 0 < float((ours - exact).pow(2).mean().sqrt()) < 1.5 * spread
    _, kv = _prefix(runner, ids[:, :13])
    assert float((_behind(runner, kv, ids[:, 13:]) - exact[:, 13:]).pow(2).mean().sqrt()) < 2 * spread


@every_model
def test_generation_is_hugging_faces(families: TinyFamilies, ids: Tensor, family: str, backend: str) -> None:
    """Greedy, 8 tokens on from 9: past the sliding window."""
    want = families.reference(family, torch.float32).generate(
        input_ids=ids[:, :9],
        attention_mask=torch.ones(3, 9),
        max_new_tokens=8,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert torch.equal(families.runner(family, backend, "float32").generate(ids[:, :9], 8), want[:, 9:])


@two_families
def test_generation_ends_once_every_row_has_an_end(families: TinyFamilies, family: str) -> None:
    """The same tokens as without ends, cut after the last row's first end; no further block is run."""
    runner = families.runner(family, "hooked", "float32")
    ids = torch.tensor([[5, 6, 7], [9, 8, 7]])
    whole = runner.generate(ids, 12, 1.0, torch.Generator().manual_seed(0))
    ends = {int(whole[0, 2]), int(whole[1, 5])}
    last = max(next(i for i, token in enumerate(row) if token in ends) for row in whole.tolist())
    before = runner.meter.forward
    cut = runner.generate(ids, 12, 1.0, torch.Generator().manual_seed(0), ends=ends)
    assert last < 11 and torch.equal(cut, whole[:, : last + 1])
    assert runner.meter.forward - before == 2 * (3 + last) * runner.shape.n_layers


@two_families
@either_backend
def test_an_edit_changes_the_pass_and_comes_off(
    families: TinyFamilies, ids: Tensor, family: str, backend: str
) -> None:
    runner = families.runner(family, backend, "float32")
    plain, push = _logits(runner, ids), torch.linspace(-1, 1, runner.shape.d_model)
    with runner.edit(Site(1).name, lambda activation: activation + push):
        pushed = _logits(runner, ids)
    with torch.no_grad():
        resid, _ = runner.run(runner.embed(ids), 0, 2)
        by_hand = runner.logits(runner.run(resid + push, 2, 4)[0])
    torch.testing.assert_close(pushed, by_hand, atol=1e-5, rtol=1e-5)
    assert float((pushed - plain).abs().max()) > 0.1
    with (
        pytest.raises(RuntimeError, match="on purpose"),
        runner.edit(Site(1).name, lambda activation: activation + push),
    ):
        raise RuntimeError("on purpose")
    assert torch.equal(_logits(runner, ids), plain)
    assert _left_hooks(runner) == []


@two_families
@either_backend
def test_hooks_come_off_after_a_failing_hook(
    families: TinyFamilies, ids: Tensor, family: str, backend: str
) -> None:
    runner = families.runner(family, backend, "float32")
    plain = _logits(runner, ids)

    def broken(activation: Tensor) -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), runner.edit(Site(2).name, broken):
        _logits(runner, ids)
    assert _left_hooks(runner) == []
    assert torch.equal(_logits(runner, ids), plain)


@two_families
def test_runs_leave_the_bridge_as_it_was(families: TinyFamilies, ids: Tensor, family: str) -> None:
    """Layer list and cache method are the bridge's own again, after runs that end well and runs that do not."""
    runner = families.runner(family, "bridge", "float32")
    before = runner.model(ids)
    _, kv = _prefix(runner, ids[:, :9])
    _behind(runner, kv, ids[:, 9:])
    with pytest.raises(IndexError):
        runner.run(runner.embed(ids), 0, runner.shape.n_layers + 1, kv)
    with pytest.raises((IndexError, RuntimeError)):
        runner.embed(ids + runner.shape.d_vocab)
    with pytest.raises(RuntimeError):
        runner.logits(torch.zeros(2, runner.shape.d_model + 1))
    assert torch.equal(runner.model(ids), before)
    assert "_update_kv_cache" not in runner.model.blocks[0].attn.__dict__
    assert len(runner.model.hook_dict) > 0 and _left_hooks(runner) == []


def _left_hooks(runner: Runner) -> list[str]:
    points = {id(point): (name, point) for name, point in runner.model.hook_dict.items()}
    return [name for name, point in points.values() if point.fwd_hooks or point.bwd_hooks]


@either_backend
def test_hooks_that_cannot_fire_are_told(families: TinyFamilies, ids: Tensor, backend: str) -> None:
    runner = families.runner("llama", backend, "float32")
    with (
        pytest.raises(UserError, match="unknown hook name"),
        runner.edit("blocks.1.hook_residual", lambda a: a),
    ):
        pass
    with (
        pytest.raises(UserError, match="never fired"),
        runner.edit(Site(3).name, lambda a: a),
        torch.no_grad(),
    ):
        runner.run(runner.embed(ids), 0, 2)
    with pytest.raises(UserError, match="this model has layers 0-3"):
        runner.read(ids, [Site(4)], torch.tensor([0, 0, 0]))


@either_backend
def test_the_fingerprint_follows_the_weights(families: TinyFamilies, backend: str) -> None:
    directory = families.directory("qwen3")
    again = runner_for(load_model(directory, backend=backend))
    assert again.fingerprint == families.runner("qwen3", backend, "float32").fingerprint
    next(weight for name, weight in again.model.named_parameters() if "q_norm" in name).data.mul_(1.01)
    assert again.fingerprint != families.runner("qwen3", backend, "float32").fingerprint


@every_model
@pytest.mark.parametrize("cached", (False, True))
def test_one_position_of_the_last_block_is_that_of_the_whole(
    families: TinyFamilies, ids: Tensor, family: str, backend: str, cached: bool
) -> None:
    """Rows of padded length, after a shared prefix or none; what is captured in the last block and the gradients are the same too."""
    runner = families.runner(family, backend, "float64")
    positions, sites, start = (
        torch.tensor([10, 3, 6]),
        [Site(3), Site(3, "resid_pre"), Site(1)],
        9 if cached else 0,
    )
    kv = _prefix(runner, ids[:1, :9])[1].fork(torch.zeros(3, dtype=torch.long)) if cached else None
    found = []
    for narrow in (True, False):
        leaf = runner.embed(ids[:, 9:], offset=start).detach().requires_grad_(True)
        with runner.capture(sites) as caught:
            if narrow:
                out = runner.run_at(leaf, 0, 4, positions, kv, sites)[:, 0]
            else:
                out = runner.run(leaf, 0, 4, kv)[0][torch.arange(3), positions]
        at = [a[:, 0] if a.shape[1] == 1 else a[torch.arange(3), positions] for a in caught.values()]
        found.append([out, *at, torch.autograd.grad(out.square().sum(), leaf)[0]])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, atol=1e-8, rtol=1e-8)


@either_backend
def test_an_edit_in_the_last_block_finds_all_positions(
    families: TinyFamilies, ids: Tensor, backend: str
) -> None:
    runner, shapes = families.runner("llama", backend, "float32"), []

    def zero_first(activation: Tensor) -> Tensor:
        shapes.append(activation.shape[1])
        return activation.index_fill(1, torch.tensor([0]), 0.0)

    with torch.no_grad(), runner.edit(Site(3, "mlp_out").name, zero_first):
        edited = runner.run_at(runner.embed(ids), 0, 4, torch.zeros(3, dtype=torch.long))
        whole, _ = runner.run(runner.embed(ids), 0, 4)
    assert shapes == [ids.shape[1]] * 2
    torch.testing.assert_close(edited[:, 0], whole[:, 0])
