"""Which children are batched: the cheapest cut, and the same scores whatever the cut."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.search_contexts import CHILDREN, PARENTS, random_projection
from workbench.search import Scorer
from workbench.search.scoring.candidate_batching import batch_candidates, launch_overhead_tokens

COUNTS = st.lists(st.integers(1, 60), min_size=1, max_size=7)


def cost(runs: list[tuple[int, int]], counts: list[tuple[int, int]], length: int, start: float) -> float:
    return sum(
        start + sum(n * (length - first) for place, n in counts if first <= place <= last)
        for first, last in runs
    )


@settings(deadline=None)
@given(COUNTS, st.floats(0, 300))
def test_no_cut_is_cheaper_and_every_place_is_in_one_run(numbers: list[int], start: float) -> None:
    """Against every cut there is."""
    counts, length = [(2 * place + 1, n) for place, n in enumerate(numbers)], 2 * len(numbers) + 1
    runs, places = batch_candidates(counts, length, start), [place for place, _ in counts]
    assert [place for first, last in runs for place in places if first <= place <= last] == places
    every = []
    for size in range(len(places)):
        for cuts in combinations(range(1, len(places)), size):
            edges = [0, *cuts, len(places)]
            every.append([(places[a], places[b - 1]) for a, b in pairwise(edges)])
    assert cost(runs, counts, length, start) == pytest.approx(
        min(cost(cut, counts, length, start) for cut in every)
    )


def test_nothing_is_run_twice_where_starting_costs_nothing_and_all_run_at_once_where_it_costs_most() -> None:
    counts = [(0, 3), (2, 5), (7, 1)]
    assert batch_candidates(counts, 8, 0.0) == [(0, 0), (2, 2), (7, 7)]
    assert batch_candidates(counts, 8, 1e9) == [(0, 7)] and batch_candidates([], 8, 5.0) == []
    assert (
        launch_overhead_tokens(10**6, "cuda")
        > 1000 * launch_overhead_tokens(10**6, "cpu")
        > 0
        == launch_overhead_tokens(10**6, "xla")
    )


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_scores_are_the_same_whatever_runs_together(
    families, contexts, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Children that change at four places: scored place by place, in some runs, and all in one."""
    runner, found, positions = families.runner(family, "hooked", "float32"), [], []
    for start in (0.0, 2.0, 1e9):
        monkeypatch.setattr(
            "workbench.search.scoring.objective_passes.launch_overhead_tokens",
            lambda parameters, device, start=start: start,
        )
        scorer = Scorer(
            runner, random_projection(runner.shape.d_model), contexts, cross_entropy_groups=len(contexts)
        )
        one = scorer.groups[0].part(scorer.groups[0].members[:1])
        positions.append(
            {
                position
                for position, _ in scorer.passes.child_chunks(
                    one, CHILDREN.ids.shape[1], CHILDREN.position, torch.arange(4)
                )
            }
        )
        found.append(scorer.score_children(scorer.prepare(PARENTS), CHILDREN)[1])
    assert positions[0] == {0, 1, 2, 4} and len(positions[1]) in (2, 3) and positions[2] == {0}
    for other in found[1:]:
        torch.testing.assert_close(other.objective, found[0].objective, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(other.cross_entropy, found[0].cross_entropy, rtol=1e-4, atol=1e-4)
