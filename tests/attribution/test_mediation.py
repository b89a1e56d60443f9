"""Mediation against closed forms of a linear model, and against patching by the interventions of the workbench."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import workbench as wb
from tests.support.attribution_toys import TEXT, Axis, autoencoder, averaging_model, axis, contexts, targets
from tests.support.toy_models import random_model
from workbench.attribution import AttributionOptions, AttributionProblem, attribute
from workbench.attribution.attribution_targets import as_targets
from workbench.attribution.mediation import as_mediator, mediate, mediators
from workbench.errors import UserError
from workbench.interventions import patch
from workbench.models import Site, runner_for
from workbench.objectives import answer_log_odds, latent_activation
from workbench.prompt_tokens import encode_prompt


def problem_of(model, n: int = 3, metric: str = "text") -> AttributionProblem:
    runner, found = runner_for(model), contexts(model, n=n, metric=metric)
    return AttributionProblem(runner, encode_prompt(runner, found, TEXT), found, as_targets({}))


def closed_form(problem: AttributionProblem, model) -> tuple[np.ndarray, np.ndarray]:
    """Change of the decision token's residual [context d_model], and the answer's read-out vector [context d_model]."""
    rows, weights = [], []
    for context in problem.contexts:
        states = []
        for ids in (context.ids(problem.prompt), context.ids(None)):
            embedded = model.W_E[list(ids)]
            states.append(embedded[-1] + embedded.mean(dim=0))
        rows.append(states[0] - states[1])
        weights.append(model.W_U[:, context.answers[0][0]] - model.W_U[:, context.answers[1][0]])
    return torch.stack(rows).double().numpy(), torch.stack(weights).double().numpy()


def test_a_linear_model_splits_as_on_paper():
    model = averaging_model()
    problem, direction = problem_of(model), axis(3, Site(0))
    change, weight = closed_form(problem, model)
    unit = direction.unit.double().numpy()
    (found,) = mediate(problem, [as_mediator("axis", direction)])
    through = (change @ unit) * (weight @ unit)
    assert found.total.estimate == pytest.approx((change * weight).sum(1).mean(), abs=1e-5)
    assert found.mediated.estimate == pytest.approx(through.mean(), abs=1e-5)
    assert found.into.estimate == pytest.approx(found.out_of.estimate, abs=1e-5), (
        "in a linear model both ways are one"
    )
    assert found.direct.estimate == pytest.approx(found.total.estimate - through.mean(), abs=1e-5)
    assert found.moved == pytest.approx((change @ unit).mean(), abs=1e-5)


def test_everything_goes_through_the_answers_own_axis_and_nothing_beside_it():
    model = averaging_model()
    problem = problem_of(model, n=2)
    _, weight = closed_form(problem, model)
    own = torch.from_numpy(weight[0]).float()
    other = torch.randn(32, generator=torch.Generator().manual_seed(1))
    other -= (other @ own) / (own @ own) * own
    whole, none = mediate(
        problem, [as_mediator("own", Axis(own, Site(0))), as_mediator("other", Axis(other, Site(0)))]
    )
    assert whole.direct.estimate == pytest.approx(0, abs=1e-5) and whole.mediated.estimate == pytest.approx(
        whole.total.estimate, abs=1e-5
    )
    assert none.mediated.estimate == pytest.approx(0, abs=1e-5) and abs(none.total.estimate) > 0.1


@pytest.mark.parametrize("kind", ["direction", "latents"])
def test_both_ways_are_what_patching_does(kind):
    model = random_model()
    problem = problem_of(model, n=2, metric="letters")
    sae = autoencoder()
    given = axis() if kind == "direction" else latent_activation(sae, range(5))
    (found,) = mediate(problem, [as_mediator("x", given)])

    def component(x):
        return (
            (x @ axis().unit)[:, None] * axis().unit
            if kind == "direction"
            else torch.relu(x @ sae.W_enc[:, :5]) @ sae.W_dec[:5]
        )

    states = {p: problem.read(Site(1), [p] * len(problem.contexts)) for p in (problem.prompt, None)}
    parts = {p: component(x) for p, x in states.items()}
    plain = {p: wb.answer(model, problem.contexts, p).log_odds for p in states}
    into, out_of = [], []
    for i in range(len(problem.contexts)):
        for here, other, found_in in ((None, problem.prompt, into), (problem.prompt, None, out_of)):
            mixed = states[here][i] + parts[other][i] - parts[here][i]
            with patch(model, Site(1), mixed):
                found_in.append(
                    wb.answer(model, problem.contexts[i : i + 1], here).log_odds[0] - plain[here][i]
                )
    assert found.into.estimate == pytest.approx(
        np.mean(into), abs=1e-5
    ) and found.out_of.estimate == pytest.approx(-np.mean(out_of), abs=1e-5)
    assert abs(found.into.estimate) > 2e-4 and found.into.estimate != pytest.approx(
        found.out_of.estimate, abs=1e-6
    )


def test_patching_every_direction_at_every_shared_position_carries_more_than_one_token():
    """With the whole residual swapped at the decision token of the last site, everything is mediated."""
    model = random_model()
    problem = problem_of(model, n=2)
    last = as_mediator("all", axis(0, Site(2)))
    whole = type(last)("all", Site(2), lambda x: x)
    (found,) = mediate(problem, [whole])
    assert found.mediated.estimate == pytest.approx(found.total.estimate, abs=1e-5)
    early = type(last)("early", Site(0), lambda x: x)
    decision, question = (mediate(problem, [early], p)[0] for p in ("decision", "question"))
    assert decision.mediated.estimate != pytest.approx(question.mediated.estimate, abs=1e-4)


def test_hooks_come_off_and_chunks_change_nothing():
    model = random_model()
    before = wb.answer(model, contexts(n=2), TEXT).log_odds
    problem = problem_of(model)
    chunks = [replace(problem, batch_tokens=b) for b in (1, 10**5)]
    runs = [mediate(p, [as_mediator("x", axis())]) for p in chunks]
    assert runs[0][0].mediated.estimate == pytest.approx(runs[1][0].mediated.estimate, abs=1e-5)
    np.testing.assert_array_equal(before, wb.answer(model, contexts(n=2), TEXT).log_odds)


def test_the_ledger_carries_it_and_says_it():
    ledger = attribute(
        random_model(), TEXT, targets(), contexts(n=3), (), options=AttributionOptions(nodes=0)
    )
    assert [m.name for m in ledger.mediation] == ["axis", "3 latents"]
    entry = ledger.to_file().to_json()["mediation"][0]
    assert entry["total"] == pytest.approx(ledger.total[:, 0].mean(), abs=1e-5)
    assert (
        entry["mediated"] + entry["direct"] == pytest.approx(entry["total"], abs=1e-9)
        and "axis" in entry["verdict"]
    )
    assert not attribute(
        random_model(),
        TEXT,
        targets(),
        contexts(n=2),
        (),
        options=AttributionOptions(mediation=False, nodes=0),
    ).mediation


def test_random_directions_stand_beside_as_controls():
    """Two controls: mediated like any direction, marked, and said in a sentence that holds their shares."""
    randoms = [axis(7), axis(8)]
    ledger = attribute(
        random_model(),
        TEXT,
        {"axis": axis()},
        contexts(n=100),
        (),
        options=AttributionOptions(pairs=0, nodes=0, controls=randoms),
    )
    found = {m.name: m for m in ledger.mediation}
    assert [m.control for m in found.values()] == [False, True, True]
    (alone,) = mediate(problem_of(random_model(), n=100), [as_mediator("x", randoms[1])])
    assert found["random direction 2"].mediated.estimate == pytest.approx(alone.mediated.estimate, abs=1e-6)
    shares = [m.share for m in found.values() if m.control and m.share is not None]
    line = next((line for line in ledger.to_file().to_json()["notes"] if line.startswith("Control:")), "")
    assert (f"{100 * min(shares):.0f} % to {100 * max(shares):.0f} %" in line) if shares else line == ""
    assert abs(ledger.total[:, 0].mean()) > 0.01


def test_mistakes():
    with pytest.raises(UserError, match="nothing to mediate"):
        as_mediator("x", answer_log_odds())
    with pytest.raises(UserError, match="unknown positions"):
        mediate(problem_of(random_model(), n=1), [], "all")
    assert mediators(as_targets({})) == ()
