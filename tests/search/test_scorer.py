"""Every saving is exact: scores equal Hugging Face's own hidden states and logits, whatever is switched on or off."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.search_contexts import CHILDREN, PARENTS, contexts_of_ids, random_projection
from workbench.models import Site
from workbench.objectives import AnswerLogOddsObjective, AnswerLogProbObjective
from workbench.search import ChildProposals, Optimizations, Scorer

FAMILIES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "gpt2", "mistral")
COMBINATIONS = [
    Optimizations(),
    *(
        Optimizations(**{name: False})
        for name in (
            "prefix_kv",
            "shared_prompt",
            "parent_kv",
            "deferred_cross_entropy",
            "last_position",
            "batched_caches",
        )
    ),
    Optimizations(False, False, False, False, False, False),
]


def hugging_face_scores(reference, contexts, ids, layer, unit):
    """(projection, log-odds, fluency) of each prompt from plain full passes of the Hugging Face model, no sharing at all."""
    rows = []
    for prompt in ids.tolist():
        projections, odds, entropies = [], [], []
        for context in contexts:
            whole = torch.tensor([[*context.prefix_ids, *prompt, *context.suffix_ids]])
            with torch.no_grad():
                out = reference(input_ids=whole, output_hidden_states=True)
            projections.append(out.hidden_states[layer + 1][0, -1].float() @ unit)
            logits = out.logits[0].float()
            odds.append(logits[-1, context.answers[0][0]] - logits[-1, context.answers[1][0]])
            start = len(context.prefix_ids)
            log_probs = logits.log_softmax(-1)
            entropies.append(
                -sum(log_probs[start - 1 + i, token] for i, token in enumerate(prompt)) / len(prompt)
            )
        rows.append(
            (
                torch.stack(projections).mean(),
                torch.stack(odds).mean(),
                torch.stack(entropies)[: len(contexts)].mean(),
            )
        )
    return [torch.stack(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("backend", ["hooked", "bridge"])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_equal_hugging_face(families, family, backend, contexts):
    if backend == "hooked" and family in ("qwen3", "gemma3"):
        pytest.importorskip("transformer_lens")
    runner = families.runner(family, backend, "float32")
    goal = random_projection(runner.shape.d_model)
    projections, odds, entropies = hugging_face_scores(
        families.reference(family, torch.float32), contexts, CHILDREN.ids, 0, goal.vector
    )
    for aim, expected in (
        (goal, projections),
        (AnswerLogOddsObjective(), odds),
        (goal + 0.5 * AnswerLogOddsObjective(), projections + 0.5 * odds),
    ):
        scorer = Scorer(runner, aim, contexts, batch_tokens=48, cross_entropy_groups=len(contexts))
        _, children = scorer.score_children(scorer.prepare(PARENTS), CHILDREN)
        full = scorer.score(CHILDREN.ids)
        tolerance = {"rtol": 2e-4, "atol": 2e-4}
        torch.testing.assert_close(children.objective, expected, **tolerance)
        torch.testing.assert_close(full.objective, expected, **tolerance)
        torch.testing.assert_close(children.cross_entropy, entropies, **tolerance)
        torch.testing.assert_close(full.cross_entropy, entropies, **tolerance)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_savings_change_nothing(families, family, contexts):
    runner = families.runner(family, "hooked", "float32")
    goal = random_projection(runner.shape.d_model) + 0.3 * AnswerLogProbObjective(0)
    results = []
    for optimizations in COMBINATIONS:
        scorer = Scorer(
            runner, goal, contexts, optimizations, batch_tokens=64, cross_entropy_groups=len(contexts)
        )
        parents, children = scorer.score_children(scorer.prepare(PARENTS), CHILDREN)
        results.append(
            [
                parents.objective,
                parents.cross_entropy,
                children.objective,
                children.cross_entropy,
                scorer.gradients(PARENTS),
                scorer.cross_entropy_gradients(PARENTS),
            ]
        )
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n_fluent", [1, 3])
@pytest.mark.parametrize("chosen", [(None, 0), (2, 1)], ids=["all contexts", "two of them"])
def test_the_gradient_of_both_is_that_of_each(families, contexts, n_fluent, chosen):
    """One pass for objective - weight x cross-entropy: the difference of the two gradients, also where the contexts of one are not the other's."""
    runner, weights = (
        families.runner("llama", "hooked", "float64"),
        torch.tensor([0.7, 0.0], dtype=torch.float64),
    )
    for optimizations in (Optimizations(), Optimizations(prefix_kv=False)):
        for tokens in (64, 4096):
            scorer = Scorer(
                runner, random_projection(runner.shape.d_model), contexts, optimizations, tokens, n_fluent
            )
            both = scorer.gradients(PARENTS, *chosen, weights=weights)
            apart = scorer.gradients(PARENTS, *chosen) - weights[
                :, None, None
            ] * scorer.cross_entropy_gradients(PARENTS)
            assert float(scorer.cross_entropy_gradients(PARENTS).abs().max()) > 1e-3
            torch.testing.assert_close(both.double(), apart.double(), rtol=1e-5, atol=1e-6)


def test_the_gradient_of_the_cross_entropy_equals_finite_differences(families, contexts):
    """d cross-entropy / d embedding along random steps, tokens as targets held fixed, central differences in float64."""
    runner = families.runner("llama", "hooked", "float64")
    scorer = Scorer(runner, random_projection(runner.shape.d_model), contexts, cross_entropy_groups=3)
    slope, zero = (
        scorer.gradients(PARENTS, weights=torch.ones(2)).double(),
        scorer.gradients(PARENTS).double(),
    )
    generator = torch.Generator().manual_seed(3)
    for _ in range(3):
        step = torch.randn(slope.shape, dtype=torch.float64, generator=generator)
        plus, minus = (
            _objective_at(scorer, PARENTS, sign * 1e-3 * step, "cross_entropy") for sign in (1, -1)
        )
        torch.testing.assert_close(
            -((slope - zero) * step).sum((1, 2)), (plus - minus) / 2e-3, rtol=5e-3, atol=1e-3
        )


def test_contexts_with_prefixes_of_their_own_share_the_runs(families, monkeypatch):
    """Five contexts, lengths 5, 6, 7, 5, 6 left of the slot, suffixes 4, 5, 6, 4, 5: four are one batch of caches (the one that measures fluency
    among them), and what is read of them is what unstacked contexts give (the law above), with less than half
    of the runs."""
    runner, contexts = families.runner("llama", "hooked", "float32"), contexts_of_ids(False)
    goal, calls = random_projection(runner.shape.d_model, layer=1), []
    run = runner.run
    monkeypatch.setattr(runner, "run", lambda *args, **named: calls.append(args[1:3]) or run(*args, **named))
    counted = []
    for stacked in (True, False):
        scorer = Scorer(runner, goal, contexts, Optimizations(batched_caches=stacked), cross_entropy_groups=1)
        assert sorted(map(len, (group.members for group in scorer.groups))) == (
            [1, 4] if stacked else [1] * 5
        )
        prepared = scorer.prepare(PARENTS)
        calls.clear()
        scorer.score_children(prepared, CHILDREN)
        counted.append(len(calls))
    assert counted[0] < 0.65 * counted[1]


def test_who_looks_into_attention_gets_contexts_unstacked(families):
    runner, contexts = families.runner("llama", "hooked", "float32"), contexts_of_ids(False)
    with runner.capture([Site(0, "pattern")]):
        scorer = Scorer(runner, random_projection(runner.shape.d_model), contexts)
    assert [len(group.members) for group in scorer.groups] == [1] * 5


def test_bfloat16_stays_near_float32(families, contexts):
    exact, coarse = (families.runner("llama", "hooked", dtype) for dtype in ("float32", "bfloat16"))
    goal = random_projection(exact.shape.d_model)
    scores = []
    for runner in (exact, coarse):
        scorer = Scorer(runner, goal, contexts)
        _, children = scorer.score_children(scorer.prepare(PARENTS), CHILDREN)
        scores.append(children)
    assert scores[1].objective.dtype == torch.float32
    torch.testing.assert_close(scores[0].objective, scores[1].objective, rtol=0.05, atol=0.05)
    torch.testing.assert_close(scores[0].cross_entropy, scores[1].cross_entropy, rtol=0.02, atol=0.05)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_children_score_as_alone(families, data):
    """Law: a child's scores do not depend on what is scored with it, nor on the chunk size."""
    runner = families.runner("llama", "hooked", "float32")
    contexts = contexts_of_ids(data.draw(st.booleans()), n=5)
    token, where = st.integers(4, 329), st.integers(0, 4)
    rows, positions, owners = [], [], []
    for _ in range(data.draw(st.integers(1, 6))):
        owner, position = data.draw(st.integers(0, 1)), data.draw(where)
        row = PARENTS[owner].clone()
        row[position] = data.draw(token)
        rows.append(row), positions.append(position), owners.append(owner)
    children = ChildProposals(torch.stack(rows), torch.tensor(owners), torch.tensor(positions))
    scorer = Scorer(
        runner,
        random_projection(runner.shape.d_model),
        contexts,
        batch_tokens=data.draw(st.sampled_from([16, 64, 4096])),
    )
    _, together = scorer.score_children(scorer.prepare(PARENTS), children)
    alone = scorer.score(children.ids)
    torch.testing.assert_close(together.objective, alone.objective, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together.cross_entropy, alone.cross_entropy, rtol=1e-4, atol=1e-4)


def test_gradients_equal_finite_differences(families, contexts):
    """d objective / d embedding along random steps, central differences in float64."""
    runner = families.runner("llama", "hooked", "float64")
    scorer = Scorer(
        runner, random_projection(runner.shape.d_model) + 0.2 * AnswerLogOddsObjective(), contexts
    )
    slope = scorer.gradients(PARENTS).double()
    generator = torch.Generator().manual_seed(3)
    for _ in range(4):
        step = torch.randn(slope.shape, dtype=torch.float64, generator=generator)
        plus, minus = (_objective_at(scorer, PARENTS, sign * 1e-3 * step) for sign in (1, -1))
        numeric = (plus - minus) / 2e-3
        torch.testing.assert_close((slope * step).sum((1, 2)), numeric, rtol=5e-3, atol=1e-3)


def _objective_at(
    scorer: Scorer, ids: torch.Tensor, shift: torch.Tensor, what: str = "objective"
) -> torch.Tensor:
    """Mean objective (or cross-entropy) with the prompt's embeddings moved by `shift`."""
    embed = scorer.runner.embed
    moved = lambda tokens, offset=0: embed(tokens, offset) + (shift if tokens.shape == ids.shape else 0)  # noqa: E731
    scorer.runner.embed = moved
    try:
        return getattr(scorer.score(ids), what).double()
    finally:
        del scorer.runner.embed


@pytest.fixture(params=["cpu", "gpu"])
def device_kind(request, monkeypatch):
    """Scorers treat the CPU as what it is, or as a GPU: all cross-entropies are computed, but those of no chance not reported."""
    if request.param == "gpu":
        monkeypatch.setattr("workbench.search.scoring.scorer.COMPUTES_AT_ONCE", frozenset())
    return request.param


def test_lazy_fluency_drops_only_what_cannot_win(families, contexts, device_kind):
    """The frontier and the elites with pruning are those without it; on a GPU as on the CPU, all are computed but the same are reported."""
    from workbench.search.elite_selection import CanSurvive, elites, ladder, pareto_frontier

    runner = families.runner("llama", "hooked", "float32")
    scorer = Scorer(runner, random_projection(runner.shape.d_model), contexts)
    generator = torch.Generator().manual_seed(5)
    parents = torch.randint(4, 330, (3, 5), generator=generator)
    owner = torch.randint(3, (60,), generator=generator)
    position = torch.randint(5, (60,), generator=generator)
    ids = parents[owner].clone()
    ids[torch.arange(60), position] = torch.randint(4, 330, (60,), generator=generator)
    children, prepared = ChildProposals(ids, owner, position), scorer.prepare(parents)
    weights = ladder(0.01, 1.0, 3)
    archive = pareto_frontier(scorer.score(torch.randint(4, 330, (20, 5), generator=generator)))
    parents_all, every = scorer.score_children(prepared, children)
    computed, own = [], scorer.cross_entropy.children
    scorer.cross_entropy.children = lambda *given: computed.append(int(given[-1].sum())) or own(*given)
    _, pruned = scorer.score_children(prepared, children, CanSurvive(weights, archive))
    finite = torch.isfinite(pruned.cross_entropy)
    assert computed == [60 if device_kind == "gpu" else int(finite.sum())]
    chance = (
        CanSurvive(weights, archive)(
            parents_all, every.objective, scorer.cross_entropy.bound(prepared, children)
        )
        >= 0
    )
    assert finite.equal(chance)
    torch.testing.assert_close(pruned.cross_entropy[finite], every.cross_entropy[finite])
    assert torch.isinf(pruned.cross_entropy).any(), "nothing was pruned: the test shows nothing"
    for choose in (lambda pool: pareto_frontier(archive.join(pool)), lambda pool: elites(pool, weights)):
        torch.testing.assert_close(choose(parents_all.join(every)).ids, choose(parents_all.join(pruned)).ids)


def test_halving_scores_survivors_in_full(families, contexts):
    runner = families.runner("llama", "hooked", "float32")
    goal = random_projection(runner.shape.d_model)
    full = Scorer(runner, goal, contexts)
    halved = Scorer(runner, goal, contexts, Optimizations(halving=0.4))
    _, children = halved.score_children(halved.prepare(PARENTS), CHILDREN)
    alive = torch.isfinite(children.objective)
    assert 0 < int(alive.sum()) < len(CHILDREN)
    torch.testing.assert_close(
        children.objective[alive], full.score(CHILDREN.ids).objective[alive], rtol=1e-4, atol=1e-4
    )


def test_halving_keeps_the_fluent_part_of_the_frontier(families, contexts, device_kind):
    """Survivors are those that a count by hand over each weight would keep, their fluency and objective those of full scores."""
    from workbench.search.elite_selection import CanSurvive, ladder

    runner, weights = families.runner("llama", "hooked", "float32"), ladder(0.01, 5.0, 4)
    goal = random_projection(runner.shape.d_model)
    half = (len(contexts) + 1) // 2
    scorer = Scorer(
        runner, goal, contexts, Optimizations(halving=half / len(contexts)), cross_entropy_groups=2
    )
    assert len(scorer.rounds) == 2 and len(scorer.rounds[0]) == half
    prepared = scorer.prepare(PARENTS)
    _, found = scorer.score_children(prepared, CHILDREN, CanSurvive(weights, None))
    alive = torch.isfinite(found.objective)
    seen, full = (
        Scorer(runner, goal, some, cross_entropy_groups=2).score(CHILDREN.ids)
        for some in (contexts[:half], contexts)
    )
    best = [
        min(
            sorted(
                range(len(CHILDREN)), key=lambda i: -(seen.objective[i] - w * full.cross_entropy[i])
            ).index(child)
            for w in weights
        )
        for child in range(len(CHILDREN))
    ]
    kept = sorted(range(len(CHILDREN)), key=lambda child: (best[child], child))[: int(alive.sum())]
    assert sorted(kept) == alive.nonzero()[:, 0].tolist() and 0 < len(kept) < len(CHILDREN)
    torch.testing.assert_close(found.objective[alive], full.objective[alive], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.cross_entropy[alive], full.cross_entropy[alive], rtol=1e-4, atol=1e-4)
