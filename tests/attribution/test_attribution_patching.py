"""Attribution patching against the paper-and-pencil model, against hand-made TransformerLens hooks, and in the limit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import workbench as wb
from tests.support.attribution_toys import TEXT, averaging_model, axis, contexts
from tests.support.tiny_checkpoints import tiny_checkpoint
from tests.support.toy_models import random_model
from workbench.attribution import AttributionProblem
from workbench.attribution.attribution_patching import path
from workbench.attribution.attribution_targets import as_targets
from workbench.attribution.mediation import as_mediator, mediate
from workbench.models import runner_for
from workbench.objectives import neutral_prompts
from workbench.prompt_tokens import encode_prompt


def problem_of(model, n: int = 2, **more) -> AttributionProblem:
    runner, found = runner_for(model), contexts(model, n=n)
    return AttributionProblem(runner, encode_prompt(runner, found, TEXT), found, as_targets({}), **more)


def with_hooks(problem: AttributionProblem, node, other) -> float:
    """The same patch made with TransformerLens's own run_with_hooks, one context at a time."""
    model, lost = problem.runner.model, []
    for context in problem.contexts:
        clean, corrupted = (torch.tensor([context.ids(p)]) for p in (problem.prompt, other))
        _, cache = model.run_with_cache(corrupted)
        start, last = len(context.prefix_ids), clean.shape[1] - 1
        stop = start + len(problem.prompt)
        where = {-1: [last], -2: list(range(stop, last))}.get(node.place) or [start + node.place]

        def swap(activation, hook, where=where, cache=cache):
            if node.head is None:
                activation[:, where] = cache[node.site.name][:, where]
            else:
                activation[:, where, node.head] = cache[node.site.name][:, where, node.head]
            return activation

        odds = []
        for hooks in ([], [(node.site.name, swap)]):
            logits = model.run_with_hooks(clean, fwd_hooks=hooks)[0, -1]
            odds.append(float(logits[context.answers[0][0]] - logits[context.answers[1][0]]))
        lost.append(odds[0] - odds[1])
    return float(np.mean(lost))


def test_exact_effects_are_what_hooks_by_hand_give():
    problem = problem_of(random_model())
    found = path(problem, top=5, corrupted=1)
    (other,) = neutral_prompts(problem.runner, problem.contexts, 1, len(problem.prompt), problem.seed)
    assert {n.place for n in found.nodes} and max(abs(n.exact) for n in found.nodes) > 0.01
    for node in found.nodes:
        assert node.exact == pytest.approx(with_hooks(problem, node, other), abs=2e-5)
    assert [abs(n.exact) for n in found.nodes] == sorted((abs(n.exact) for n in found.nodes), reverse=True)


def test_in_a_linear_model_the_estimate_is_exact():
    """One head that copies a mean: only the decision token's head reaches the answer, and nothing is lost to first order."""
    found = path(problem_of(averaging_model()), top=4, corrupted=2)
    first = found.nodes[0]
    assert (first.site.layer, first.head, first.place) == (0, 0, -1) and abs(first.exact) > 0.01
    assert first.estimate == pytest.approx(first.exact, abs=1e-5)
    assert len(found.nodes) == 1, "no other node has an effect"


def test_chunks_change_nothing_and_the_json_names_places():
    small, large = (path(problem_of(random_model(), batch_tokens=b), top=3, corrupted=1) for b in (1, 10**5))
    for a, b in zip(small.nodes, large.nodes, strict=True):
        assert (a.name, a.place) == (b.name, b.place) and a.exact == pytest.approx(b.exact, abs=1e-5)
    entry = large.to_entries()[0].model_dump()
    assert set(entry) == {"node", "token", "estimate", "exact"} and "layer" in entry["node"]


def test_a_bridge_finds_the_same_path(tmp_path):
    """Both backends of one checkpoint, whose hooks differ, and the same mediated share."""
    directory = tiny_checkpoint("llama", tmp_path / "llama")
    found = []
    for backend in ("hooked", "bridge"):
        problem = problem_of(wb.load_model(directory, backend=backend))
        found.append((path(problem, top=6, corrupted=1), mediate(problem, [as_mediator("axis", axis())])[0]))
    (hooked, one), (bridge, other) = found
    assert {n.head for n in hooked.nodes} != {None}, "heads too"
    for a, b in zip(hooked.nodes, bridge.nodes, strict=True):
        assert (a.name, a.place) == (b.name, b.place)
        assert (a.estimate, a.exact) == (
            pytest.approx(b.estimate, abs=2e-4),
            pytest.approx(b.exact, abs=2e-4),
        )
    assert one.mediated.estimate == pytest.approx(other.mediated.estimate, abs=2e-4) != 0
