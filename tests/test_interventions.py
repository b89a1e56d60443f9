"""Interventions against TransformerLens's own hooks and against arithmetic: what changes, where, and that nothing stays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from tests.support.toy_models import random_model, toy_persona
from workbench.contexts import make_contexts
from workbench.errors import UserError
from workbench.forced_choice import answer
from workbench.interventions import ablate, clamp, limit, patch, steer
from workbench.models import Site, TokenLayout, runner_for

SITE = Site(1)


@dataclass(frozen=True)
class Axis:
    unit: torch.Tensor
    site: Site = SITE


@dataclass(frozen=True)
class Autoencoder:
    """ReLU latents with their own encoder and decoder."""

    W_enc: torch.Tensor
    W_dec: torch.Tensor
    site: Site = SITE

    def encode_some(self, x: torch.Tensor, latents: list[int]) -> torch.Tensor:
        return torch.relu(x @ self.W_enc[:, latents])


def axis(seed: int = 0) -> Axis:
    vector = torch.randn(32, generator=torch.Generator().manual_seed(seed))
    return Axis(vector / vector.norm())


def autoencoder() -> Autoencoder:
    generator = torch.Generator().manual_seed(5)
    return Autoencoder(torch.randn(32, 12, generator=generator), torch.randn(12, 32, generator=generator))


def residual(edit, layout: TokenLayout | None = None, site: Site = SITE) -> tuple[torch.Tensor, torch.Tensor]:
    """The residual stream after the site's block, untouched and under the edit, [batch pos d_model]."""
    runner = runner_for(random_model())
    ids = torch.tensor([[5, 9, 40, 70, 11, 8], [7, 9, 30, 71, 12, 8]])
    plain, _ = runner.run(runner.embed(ids), 0, site.layer + 1)
    with edit(runner), runner.placed(layout) if layout else torch.no_grad():
        changed, _ = runner.run(runner.embed(ids), 0, site.layer + 1)
    return plain, changed


def layout(start: int, stop: int, decision: tuple[int, int] = (5, 4)) -> TokenLayout:
    return TokenLayout(torch.tensor([start, start]), torch.tensor([stop, stop]), torch.tensor(decision))


def test_steering_adds_exactly_the_vector_everywhere() -> None:
    plain, changed = residual(lambda r: steer(r, axis(), 3.0))
    assert torch.allclose(changed - plain, (3 * axis().unit).expand_as(plain), atol=1e-5)


def test_steering_equals_transformer_lens_hooks_to_the_logits() -> None:
    model = random_model()
    ids = torch.tensor([[5, 9, 40, 70, 11, 8]])
    hook = (SITE.name, lambda x, hook: x + 3 * axis().unit)
    theirs = model.run_with_hooks(ids, fwd_hooks=[hook])
    runner = runner_for(model)
    with steer(model, axis(), 3.0):
        resid, _ = runner.run(runner.embed(ids), 0, 3)
    assert torch.allclose(runner.logits(resid), theirs, atol=1e-4)


@pytest.mark.parametrize(
    ("positions", "where", "expected"),
    [
        ("decision", (0, 0), [[0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 0]]),
        ("answer", (0, 0), [[0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 1]]),
        ("prompt", (1, 3), [[0, 1, 1, 0, 0, 0], [0, 1, 1, 0, 0, 0]]),
        (
            "prompt",
            (0, 0),
            [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0]],
        ),  # no prompt: all that is left of the decision
        ("all", (0, 0), [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]]),
    ],
)
def test_positions_are_the_ones_named_and_the_others_keep_their_bits(positions, where, expected) -> None:
    plain, changed = residual(lambda r: steer(r, axis(), 3.0, positions), layout(*where))
    moved = (changed != plain).any(dim=-1).int()
    assert moved.tolist() == expected


def test_positions_need_a_layout() -> None:
    with pytest.raises(UserError, match="positions='all'"):
        residual(lambda r: steer(r, axis(), 3.0, "decision"))
    with pytest.raises(UserError, match="unknown positions 'everywhere'"):
        residual(lambda r: steer(r, axis(), 3.0, "everywhere"))


def test_limit_moves_only_what_is_beyond_it() -> None:
    plain, changed = residual(lambda r: limit(r, axis(), -2.6, -1))
    before, after = plain @ axis().unit, changed @ axis().unit
    assert (before > -2.6).any() and (before < -2.6).any()
    assert torch.allclose(after, before.clamp(max=-2.6), atol=1e-5)
    _, raised = residual(lambda r: limit(r, axis(), -2.6, +1))
    assert torch.allclose(raised @ axis().unit, before.clamp(min=-2.6), atol=1e-5)
    assert torch.equal(changed[before < -2.6], plain[before < -2.6])


def test_ablation_leaves_no_component_and_everything_orthogonal() -> None:
    plain, changed = residual(lambda r: ablate(r, axis()))
    assert torch.allclose(changed @ axis().unit, torch.zeros(2, 6), atol=1e-5)
    other = torch.linalg.qr(torch.stack([axis().unit, axis(1).unit], dim=1)).Q[:, 1]
    assert torch.allclose(changed @ other, plain @ other, atol=1e-5)


def test_clamp_changes_the_residual_by_the_latents_part_alone() -> None:
    sae = autoencoder()
    plain, changed = residual(lambda r: clamp(r, sae, [3, 7], [2.0, 0.0]))
    now = torch.relu(plain @ sae.W_enc[:, [3, 7]])
    by_hand = plain + (2.0 - now[..., :1]) * sae.W_dec[3] + (0.0 - now[..., 1:]) * sae.W_dec[7]
    assert torch.allclose(changed, by_hand, atol=1e-4)


def test_patch_makes_one_run_end_like_the_other() -> None:
    runner = runner_for(random_model())
    one, other = torch.tensor([[5, 9, 40]]), torch.tensor([[7, 30, 71]])
    site = Site(2)
    wanted, _ = runner.run(runner.embed(other), 0, 3)
    where = TokenLayout(torch.tensor([0]), torch.tensor([0]), torch.tensor([2]))
    with patch(runner, site, wanted[:, 2]), runner.placed(where):
        found, _ = runner.run(runner.embed(one), 0, 3)
    untouched, _ = runner.run(runner.embed(one), 0, 3)
    assert torch.equal(found[:, 2], wanted[:, 2]) and torch.equal(found[:, :2], untouched[:, :2])


def test_edits_come_off_when_the_block_ends_and_when_it_fails() -> None:
    model = random_model()
    contexts = make_contexts(model, toy_persona().split().test)
    before = answer(model, contexts).log_odds
    with steer(model, axis(), 3.0):
        during = answer(model, contexts).log_odds
    with pytest.raises(ZeroDivisionError), steer(model, axis(), 3.0):
        answer(model, contexts)
        raise ZeroDivisionError
    assert not np.allclose(before, during)
    assert np.array_equal(before, answer(model, contexts).log_odds)


def test_opposite_steps_cancel() -> None:
    plain, changed = residual(lambda r: steer(r, axis(), 0.0))
    assert torch.equal(plain, changed)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda r: steer(r, Axis(torch.ones(5)), 1.0),
            "width 5 does not fit this model, whose residual stream has 32",
        ),
        (
            lambda r: steer(r, Axis(torch.ones(32), Site(9)), 1.0),
            "layer 9 does not exist: this model has layers 0-2",
        ),
        (
            lambda r: clamp(r, autoencoder(), [12], [0.0]),
            "latent 12 does not exist: this SAE has latents 0-11",
        ),
        (lambda r: clamp(r, autoencoder(), [1, 2], [0.0]), "one value for each of 2 latents, found 1"),
        (lambda r: limit(r, axis(), 0.0, 0), "sign of a limit"),
    ],
)
def test_mistakes_are_told_in_one_line(edit, message) -> None:
    with pytest.raises(UserError, match=message):
        residual(edit)


def test_patch_values_of_a_wrong_shape_are_told() -> None:
    with pytest.raises(UserError, match="do not fit activations"):
        residual(lambda r: patch(r, SITE, torch.zeros(3, 32), "all"))
