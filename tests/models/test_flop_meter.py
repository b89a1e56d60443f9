"""The meter's floating point operations against torch's own counter, on tiny checkpoints, forward and backward.

Torch counts matrix products; its attention is run as plain products here (the fused kernel of the CPU is not
in its table). The meter counts two for every weight of a block, norms and biases too, so that it is above
torch's figure by their share (under 4 % at 32 dimensions, under 0.1 % at 1,000). What it leaves out: Hugging
Face's angles of rotary positions (0.3 % here, through the bridge).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.support.tiny_families import TinyFamilies
from workbench.models import Runner

BELOW, ABOVE = 0.996, 1.04
every_family = pytest.mark.parametrize(
    ("family", "backend"), [(f, b) for f in ("llama", "qwen3", "gpt2") for b in ("hooked", "bridge")]
)


def ratio(runner: Runner, work: Callable[[], object]) -> float:
    """The meter's count over torch's, of the same work."""
    before, counter = runner.meter.flops, FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        work()
    return (runner.meter.flops - before) / counter.get_total_flops()


@every_family
def test_forward_with_and_without_a_prefix_cache(
    families: TinyFamilies, ids: Tensor, family: str, backend: str
) -> None:
    runner = families.runner(family, backend, "float32")
    depth, left, right = runner.shape.n_layers, ids[:1, :14], ids[:, 14:]

    @torch.no_grad()
    def whole() -> None:
        runner.run(runner.embed(ids), 0, depth)

    @torch.no_grad()
    def behind_a_cache() -> None:
        _, kv = runner.run(runner.embed(left), 0, depth, keep=True)
        runner.run(runner.embed(right, offset=14), 0, depth, kv.fork(torch.zeros(3, dtype=torch.long)))

    @torch.no_grad()
    def unembedded() -> None:
        runner.logits(runner.embed(ids))

    @torch.no_grad()
    def one_position() -> None:
        runner.run_at(runner.embed(ids), 0, depth, torch.tensor([19, 3, 11]))

    for work in (whole, behind_a_cache, unembedded, one_position):
        assert BELOW < ratio(runner, work) < ABOVE, work.__name__


@every_family
def test_forward_and_backward_with_respect_to_the_input(
    families: TinyFamilies, ids: Tensor, family: str, backend: str
) -> None:
    runner = families.runner(family, backend, "float32")

    def gradient() -> None:
        leaf = runner.embed(ids).detach().requires_grad_()
        resid, _ = runner.run(leaf, 0, runner.shape.n_layers)
        runner.logits(resid).sum().backward()

    assert BELOW < ratio(runner, gradient) < ABOVE


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_backward_through_a_cache_to_the_prompt_that_is_in_it(
    families: TinyFamilies, ids: Tensor, family: str
) -> None:
    """As a search does: the prompt's own gradient comes through its keys and values. In the first block the suffix is a constant, so
    that its queries, keys and values need no backward product: at four blocks that is a few per cent more
    that the meter counts."""
    runner = families.runner(family, "hooked", "float32")

    def gradient() -> None:
        leaf = runner.embed(ids[:, :8]).detach().requires_grad_()
        _, kv = runner.run(leaf, 0, runner.shape.n_layers, keep=True)
        resid, _ = runner.run(runner.embed(ids[:, 8:], offset=8).detach(), 0, runner.shape.n_layers, kv)
        resid.sum().backward()

    assert BELOW < ratio(runner, gradient) < 1.15


@pytest.mark.parametrize("backend", ["hooked", "bridge"])
def test_logits_of_a_few_tokens(families: TinyFamilies, ids: Tensor, backend: str) -> None:
    runner = families.runner("llama", backend, "float32")

    @torch.no_grad()
    def few() -> None:
        runner.logits_of(runner.embed(ids)[:, 0], ids[:, :2])

    assert ratio(runner, few) == pytest.approx(1)
