"""How many nodes carry an effect: all of them keep all of it, the planted few most of it, random ones next to nothing."""

from __future__ import annotations

import pytest

import workbench as wb
from workbench.attribution import AttributionProblem, faithfulness_curve
from workbench.attribution.attribution_targets import as_targets
from workbench.attribution.circuit import circuit
from workbench.prompt_tokens import encode_prompt
from workbench.world import World


@pytest.fixture(scope="module")
def problem(organism) -> AttributionProblem:
    """The two strongest planted words that lower sycophancy among six neutral ones."""
    world = World(0)
    planted = sorted(
        (e for e in world.effects if e.persona == "sycophancy" and " " not in e.phrase),
        key=lambda e: e.log_odds,
    )[:2]
    words = [e.phrase for e in planted] + [word for word in world.neutral_words if " " not in word][:6]
    contexts = wb.make_contexts(organism, wb.load_persona("sycophancy").split(seed=0).selection, n=6)
    runner = wb.runner_for(organism)
    return AttributionProblem(
        runner, encode_prompt(runner, contexts, " ".join(words)), contexts, as_targets({})
    )


def test_all_nodes_are_the_whole_effect_and_a_few_of_them_most_of_it(problem):
    there = faithfulness_curve(problem, sizes=(1,), graphs=1)[0].of
    first, most, whole = faithfulness_curve(problem, sizes=(1, 24, there), graphs=2)
    assert [point.size for point in (first, most, whole)] == [1, 24, there] and there > 100
    assert whole.faithfulness.estimate == pytest.approx(
        1, abs=1e-4
    ) and whole.completeness.estimate == pytest.approx(1, abs=1e-4)
    assert most.faithfulness.estimate > 0.5 and most.faithfulness.estimate > most.random_faithfulness[2]
    assert first.completeness.estimate < most.completeness.estimate + 0.05


def test_a_point_is_what_a_circuit_of_the_same_size_says(problem):
    proof = circuit(problem, size=8, n_edges=1, graphs=2).proof
    point = faithfulness_curve(problem, sizes=(8, 10**6), graphs=2)
    assert len(point) == 1  # there are not a million nodes
    assert point[0].faithfulness == proof.faithfulness and point[0].completeness == proof.completeness
    assert point[0].random_faithfulness == proof.random_faithfulness
    assert {n: (kept, lost) for n, kept, lost in proof.curve}[8] == pytest.approx(
        (point[0].faithfulness.estimate, point[0].completeness.estimate)
    )
