"""Estimators against what they did not write: plain TransformerLens passes, arithmetic on paper, finite differences, captum."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients as Captum

from tests.support.attribution_toys import TEXT, autoencoder, averaging_model, axis, contexts, targets
from tests.support.toy_models import random_model
from workbench.attribution import (
    AttributionProblem,
    GradientXInput,
    IntegratedGradients,
    ShapleyValues,
    TokenRemoval,
    TokenReplacement,
)
from workbench.attribution.attribution_problem import _mean_row
from workbench.attribution.attribution_targets import as_targets
from workbench.errors import UserError
from workbench.models import Site, runner_for
from workbench.models.memory_in_use import peak_memory
from workbench.objectives import latent_activation, projection
from workbench.prompt_tokens import encode_prompt


def problem(
    slot: str = "system", n: int = 3, text: str = TEXT, batch_tokens: int = 8192, **chosen
) -> AttributionProblem:
    runner, found = runner_for(random_model()), contexts(slot=slot, n=n)
    return AttributionProblem(
        runner, encode_prompt(runner, found, text), found, as_targets(chosen or targets()), 0, batch_tokens
    )


def on_paper(ids: list[int], answers, model, directions: dict) -> np.ndarray:
    """One plain pass through TransformerLens: answer log-odds, axis, latents 0, 1, 5."""
    logits, cache = model.run_with_cache(torch.tensor([ids]), prepend_bos=False)
    resid = cache["blocks.1.hook_resid_post"][0, -1]
    sae = autoencoder()
    latents = torch.relu(resid @ sae.W_enc + sae.bias)
    odds = logits[0, -1, answers[0][0]] - logits[0, -1, answers[1][0]]
    return np.array(
        [float(odds), float(resid @ directions["axis"].unit), *(float(latents[i]) for i in (0, 1, 5))]
    )


@pytest.mark.parametrize("slot", ["system", "after_question"])
def test_removal_is_the_difference_of_plain_passes(slot):
    p = problem(slot, batch_tokens=150)
    values = TokenRemoval().estimate(p).values
    chosen = targets()
    for c, context in enumerate(p.contexts):
        whole = on_paper(list(context.ids(p.prompt)), context.answers, p.runner.model, chosen)
        for i in range(len(p.prompt)):
            shorter = p.prompt[:i] + p.prompt[i + 1 :]
            without = on_paper(list(context.ids(shorter)), context.answers, p.runner.model, chosen)
            np.testing.assert_allclose(values[c, i], whole - without, atol=2e-5)
    assert np.abs(values[:, :, :4]).max() > 0.05, "the model must react, or this test shows nothing"


def test_the_averaging_model_on_paper():
    """Removal and gradient x input of a mean, worked out by hand."""
    model = averaging_model()
    runner, found = runner_for(model), contexts(model, n=2)
    direction = axis(site=Site(0))
    prompt = encode_prompt(runner, found, TEXT)
    p = AttributionProblem(runner, prompt, found, as_targets({"axis": projection(direction, "raw")}))
    removal, gradient = TokenRemoval().estimate(p).values, GradientXInput().estimate(p).values
    worth = (model.W_E @ direction.unit).numpy()
    neutral = worth[_allowed(runner)].mean()
    for c, context in enumerate(found):
        ids = context.ids(prompt)
        total, length = worth[list(ids)].sum(), len(ids)
        by_hand = [total / length - (total - worth[t]) / (length - 1) for t in prompt]
        np.testing.assert_allclose(removal[c, :, 1], by_hand, atol=1e-5)
        np.testing.assert_allclose(
            gradient[c, :, 1], [(worth[t] - neutral) / length for t in prompt], atol=1e-5
        )


def _allowed(runner):
    from workbench.prompt_tokens import allowed_ids

    return allowed_ids(runner).numpy()


def test_the_gradient_is_the_limit_of_finite_differences():
    p = problem(n=2)
    embeddings = p.prompt_embeddings()
    step = embeddings - p.baseline_embeddings()
    values = GradientXInput().estimate(p).values
    h = 5e-3
    for i in range(0, len(p.prompt), 2):
        moved = [embeddings.clone(), embeddings.clone()]
        moved[0][:, i] += h * step[:, i]
        moved[1][:, i] -= h * step[:, i]
        up, down = (p.embedded([0, 1], m).detach().double().numpy() for m in moved)
        np.testing.assert_allclose(values[:, i], (up - down) / (2 * h), atol=2e-3, rtol=2e-2)


@pytest.mark.parametrize("baseline", [None, 40])
def test_integrated_gradients_are_captums(baseline):
    p = problem(n=2)
    values = IntegratedGradients(steps=6, baseline=baseline).estimate(p).values
    end, start = p.prompt_embeddings(), p.baseline_embeddings(baseline)
    if baseline is not None:
        same = p.runner.embed(torch.full((1, len(p.prompt)), baseline), offset=len(p.contexts[0].prefix_ids))[
            0
        ]
        torch.testing.assert_close(start[0], same, atol=1e-5, rtol=0)
    captum = Captum(lambda e: p.embedded([0] * len(e), e))
    for t in range(len(p.targets.items)):
        theirs = captum.attribute(end[:1], start[:1], target=t, n_steps=6, method="gausslegendre").sum(-1)
        np.testing.assert_allclose(values[0, :, t], theirs[0].detach().numpy(), atol=1e-5)


def test_integrated_gradients_say_what_is_missing_and_it_vanishes_with_steps():
    p = problem(n=2, axis=axis())
    coarse, fine = (IntegratedGradients(steps=k).estimate(p) for k in (1, 24))
    ends = [p.embedded([0, 1], e).double().numpy() for e in (p.prompt_embeddings(), p.baseline_embeddings())]
    short = (ends[0] - ends[1]).mean(0) - coarse.values.sum(1).mean(0)
    assert coarse.missing["axis"] == pytest.approx(short[1], abs=1e-6)
    assert abs(fine.missing["axis"]) < 0.02 * abs(coarse.missing["axis"]) + 1e-3


def test_shapley_values_are_the_mean_over_all_orders():
    p = problem(n=2, text="Be no")
    assert 2 <= len(p.prompt) <= 5
    n = len(p.prompt)
    mean = 0
    for order in itertools.permutations(range(n)):
        steps = p.scores([tuple(p.prompt[i] for i in sorted(order[:k])) for k in range(n + 1)])
        credit = np.zeros((2, n, len(p.targets.items)))
        for k, i in enumerate(order):
            credit[:, i] = steps[k + 1] - steps[k]
        mean = mean + credit / math.factorial(n)
    exact = ShapleyValues().estimate(p)
    np.testing.assert_allclose(exact.values, mean, atol=1e-5)
    assert exact.sampling_error is None


def test_sampled_shapley_values_are_complete_and_within_their_error():
    p = problem(n=2, text="Be blunt, no")
    exact = ShapleyValues(exact_up_to=8).estimate(p).values.mean(0)
    sampled = ShapleyValues(pairs=10, exact_up_to=0).estimate(p)
    whole = p.with_prompt - p.scores([()])[0]
    np.testing.assert_allclose(sampled.values.sum(1), whole, atol=1e-5)
    z = (sampled.values.mean(0) - exact) / np.maximum(sampled.sampling_error, 1e-4)
    assert np.abs(z).mean() < 2 and np.abs(z).max() < 8
    assert (sampled.sampling_error[:, :2] > 0).all() and np.abs(sampled.values.mean(0) - exact).max() > 1e-6


@pytest.mark.parametrize("source", ["fluent", "neutral"])
def test_replacement_is_the_mean_over_the_drawn_tokens(source):
    p = problem(n=2)
    method = TokenReplacement(draws=3, source=source)
    drawn = method._draw(p)
    assert drawn.shape == (len(p.prompt), 3) and not (drawn == torch.tensor(p.prompt)[:, None]).any()
    values = method.estimate(p).values
    for i in (0, len(p.prompt) - 1):
        swapped = [(*p.prompt[:i], int(t), *p.prompt[i + 1 :]) for t in drawn[i]]
        by_hand = p.with_prompt - np.mean([p.scores([s])[0] for s in swapped], axis=0)
        np.testing.assert_allclose(values[:, i], by_hand, atol=1e-5)


def test_fluent_replacements_are_likelier_than_neutral_ones():
    p = problem(n=2, axis=axis())
    probabilities = TokenReplacement()._fluent(p)
    likely = {
        s: float(probabilities.gather(1, TokenReplacement(draws=24, source=s)._draw(p)).log().mean())
        for s in ("fluent", "neutral")
    }
    assert likely["fluent"] > likely["neutral"] + 0.5


def test_a_latent_that_never_fires_has_no_effect():
    p = problem(n=2)
    dead = [t.name for t in p.targets.items].index("latent 5")
    for method in (
        TokenRemoval(),
        GradientXInput(),
        IntegratedGradients(steps=2),
        TokenReplacement(draws=2),
        ShapleyValues(pairs=2),
    ):
        values = method.estimate(p).values
        assert (values[:, :, dead] == 0).all() and np.isfinite(values).all()


def test_many_latents_together_are_each_alone():
    together = problem(n=2)
    for i in (0, 1):
        alone = problem(n=2, one=latent_activation(autoencoder(), [i]), two=axis())
        np.testing.assert_allclose(together.with_prompt[:, 2 + i], alone.with_prompt[:, 1], rtol=1e-6)


def test_chunks_change_nothing():
    small, large = (TokenRemoval().estimate(problem(batch_tokens=b)).values for b in (1, 100_000))
    np.testing.assert_allclose(small, large, atol=1e-5)


def test_wrong_settings_are_refused():
    for make in (
        lambda: TokenReplacement(draws=0),
        lambda: IntegratedGradients(steps=0),
        lambda: ShapleyValues(pairs=1),
    ):
        with pytest.raises(UserError):
            make()


def test_the_mean_embedding_is_summed_a_few_thousand_rows_at_a_time():
    """Of 20,000 rows, some of them, in bfloat16 too: the mean of all at once, at a third of its memory."""
    table = torch.randn(20_000, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    rows = torch.arange(0, 20_000, 2)
    with peak_memory(torch.device("cpu")) as peak:
        found = _mean_row(table, rows)
    torch.testing.assert_close(found, table[rows].double().mean(dim=0).float(), atol=1e-6, rtol=1e-5)
    assert peak.bytes is not None and peak.bytes < 1.1 * 8192 * 64 * (2 + 4) < 20_000 * 64 * 4
