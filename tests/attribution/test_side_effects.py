"""Side effects against plain encodings, doses against scores and steering done by hand, relevance against frozen patterns."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import workbench as wb
from tests.support.attribution_toys import TEXT, averaging_model, axis, contexts, targets
from tests.support.toy_models import random_model
from tests.support.toy_sae import toy_sae
from workbench.attribution import (
    AttentionAwareRelevance,
    AttributionOptions,
    AttributionProblem,
    GradientXInput,
    attribute,
    dose_response,
    side_effects,
)
from workbench.attribution.attribution_targets import as_targets
from workbench.interventions import steer
from workbench.models import Site, runner_for
from workbench.prompt_tokens import encode_prompt


def problem_of(model, chosen, n: int = 2, metric: str = "text") -> AttributionProblem:
    runner, found = runner_for(model), contexts(model, n=n, metric=metric)
    return AttributionProblem(runner, encode_prompt(runner, found, TEXT), found, as_targets(chosen))


def test_changes_sizes_and_l0_are_those_of_plain_encodings():
    model, found, made = random_model(), contexts(n=4), toy_sae()
    effects = side_effects(model, made, TEXT, found, objective=(0, 3), manual="Say no.", top=3)

    def read(p):
        return (
            made.encode(
                torch.stack(
                    [
                        model.run_with_cache(
                            torch.tensor([c.ids(None if p is None else encode_prompt(model, found, p))])
                        )[1]["blocks.1.hook_resid_post"][0, -1]
                        for c in found
                    ]
                )
            )
            .detach()
            .numpy()
        )

    bare, prompted, manual = map(read, (None, TEXT, "Say no."))
    change = (prompted - bare).mean(0)
    size = np.abs(change) * made.W_dec.norm(dim=1).numpy()
    assert [m.latent for m in effects.inside] == [0, 3] and effects.inside[1].size == 0, (
        "latent 3 never fires"
    )
    expected = [i for i in np.argsort(-size) if i not in (0, 3)][:3]
    assert [m.latent for m in effects.beside] == expected
    for moved in (*effects.beside, *effects.inside):
        assert moved.change.estimate == pytest.approx(change[moved.latent], abs=1e-4)
        assert moved.size == pytest.approx(size[moved.latent], abs=1e-4)
        assert moved.manual == pytest.approx((manual - bare).mean(0)[moved.latent], abs=1e-4)
    assert effects.aimed == pytest.approx(size[0] / size.sum(), abs=1e-4)
    assert effects.active["prompt"].estimate == pytest.approx((prompted != 0).sum(1).mean())
    entry = json.loads(json.dumps(effects.to_entry().model_dump(mode="json"), allow_nan=False))
    assert entry["manual"] == "Say no." and list(entry["active"]) == ["no prompt", "prompt", "manual prompt"]
    assert "<table" in effects._repr_html_() and f"{100 * effects.aimed:.0f} %" in effects.verdict


def test_without_objective_or_manual_prompt_nothing_is_made_up():
    effects = side_effects(random_model(), toy_sae(), TEXT, contexts(n=2))
    assert (
        effects.aimed is None
        and effects.inside == ()
        and effects.beside[0].manual is None
        and "manual prompt" not in effects.active
    )


def test_doses_are_prefixes_and_steering_by_hand():
    model, direction = random_model(), axis()
    problem = problem_of(model, {"axis": direction}, metric="letters")
    doses = dose_response(problem, problem.targets.items[1], (0.5, 1.0))
    assert [d.amount for d in doses] == [*range(1, len(problem.prompt) + 1), 0.5, 1.0]
    plain = wb.answer(model, problem.contexts, None).log_odds
    second = wb.answer(model, problem.contexts, problem.prompt[:2]).log_odds - plain
    assert doses[1].answer.estimate == pytest.approx(second.mean(), abs=1e-5)
    whole = doses[len(problem.prompt) - 1]
    assert whole.moved == pytest.approx((problem.with_prompt - problem.without_prompt)[:, 1].mean(), abs=1e-5)
    with steer(model, direction, 0.5 * whole.moved, "decision"):
        steered = wb.answer(model, problem.contexts, None).log_odds - plain
    assert (
        doses[-2].answer.estimate == pytest.approx(steered.mean(), abs=1e-5) and np.abs(steered).max() > 1e-3
    )


def test_in_a_linear_model_half_the_dose_has_half_the_effect():
    problem = problem_of(averaging_model(), {"axis": axis(3, Site(0))})
    half, whole = (
        dose_response(problem, problem.targets.items[1], (s,))[-1].answer.estimate for s in (0.5, 1.0)
    )
    assert half == pytest.approx(whole / 2, abs=1e-5) and abs(whole) > 1e-4


def test_relevance_is_the_gradient_of_the_model_with_its_patterns_and_scales_frozen():
    """Finite differences of a model whose patterns and norms are written back from the clean run, by TransformerLens hooks."""
    problem = problem_of(random_model(), {"axis": axis()}, n=1)
    values = AttentionAwareRelevance().estimate(problem).values
    model, context = problem.runner.model, problem.contexts[0]
    ids = torch.tensor([context.ids(problem.prompt)])
    _, cache = model.run_with_cache(ids)
    frozen = [
        n
        for n in cache
        if n.endswith(("hook_pattern", "ln1.hook_scale", "ln2.hook_scale", "ln_final.hook_scale"))
    ]
    assert len(frozen) == 10
    step = (problem.prompt_embeddings() - problem.baseline_embeddings())[0]
    start = len(context.prefix_ids)

    def reading(i: int, h: float) -> np.ndarray:
        def move(x, hook):
            x[:, start + i] += h * step[i]
            return x

        hooks = [("hook_embed", move), *((n, lambda x, hook: cache[hook.name]) for n in frozen)]
        with model.hooks(fwd_hooks=hooks):
            logits, moved = model.run_with_cache(ids)
        odds = logits[0, -1, context.answers[0][0]] - logits[0, -1, context.answers[1][0]]
        return np.array([float(odds), float(moved["blocks.1.hook_resid_post"][0, -1] @ axis().unit)])

    for i in (0, len(problem.prompt) - 1):
        slope = (reading(i, 5e-3) - reading(i, -5e-3)) / 1e-2
        np.testing.assert_allclose(values[0, i], slope, atol=3e-3, rtol=2e-2)
    assert np.abs(values - GradientXInput().estimate(problem).values).max() > 1e-3, (
        "patterns and norms matter here"
    )


def test_relevance_of_a_mean_is_exact():
    """Even attention is constant: nothing is lost by holding it."""
    problem = problem_of(averaging_model(), {"axis": axis(site=Site(0))})
    np.testing.assert_allclose(
        AttentionAwareRelevance().estimate(problem).values,
        GradientXInput().estimate(problem).values,
        atol=1e-6,
    )


def test_the_ledger_carries_doses_and_takes_relevance_by_name():
    ledger = attribute(
        random_model(), TEXT, targets(), contexts(n=3), ("relevance",), options=AttributionOptions(nodes=0)
    )
    entry = json.loads(json.dumps(ledger.to_file().to_json(), allow_nan=False))
    assert {d["kind"] for d in entry["dose"]} == {"prompt", "steering"} and "relevance" in entry[
        "rank_correlation"
    ]
    assert any("bare question until its reading" in line for line in entry["notes"])
    assert (
        attribute(
            random_model(),
            TEXT,
            {"latent 0": targets()["latent 0"]},
            contexts(n=2),
            (),
            options=AttributionOptions(nodes=0),
        ).dose
        == ()
    )
