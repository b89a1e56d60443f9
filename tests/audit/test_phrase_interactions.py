"""Words that interact, against games whose interactions are known in closed form, and against plain passes of a random model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.toy_models import random_model, toy_persona
from workbench.attribution.attribution_targets import as_targets
from workbench.audit import PromptWords
from workbench.audit.phrase_interactions import pair_figures, phrases
from workbench.audit.word_effects import WordProblem
from workbench.contexts import make_contexts
from workbench.forced_choice import answer
from workbench.models import runner_for

CONTEXTS = 12


def game(
    n: int,
    worth: Callable[[frozenset[int]], float],
    groups: Sequence[int] = range(CONTEXTS),
    noise: float = 0.0,
) -> Any:
    """A problem of n words whose worth is a function of the set of words, times a factor near one in each context."""
    factors = 1 + noise * np.linspace(-1, 1, len(groups))
    scores = lambda prompts: np.array([worth(frozenset(p)) * factors for p in prompts])[:, :, None]  # noqa: E731
    return SimpleNamespace(
        prompt=tuple(range(n)), contexts=SimpleNamespace(groups=groups), seed=0, scores=scores
    )


def conjunctions(parts: dict[tuple[int, ...], float]) -> Callable[[frozenset[int]], float]:
    """Each part counts where all of its words are there."""
    return lambda chosen: sum(value for part, value in parts.items() if set(part) <= chosen)


PARTS = {(0,): 1.0, (2, 3): 1.5, (2, 3, 4): 0.6}


def test_the_index_is_that_of_the_closed_form() -> None:
    """Shapley's interaction index of a pair is the sum over parts that hold it of value / (words of the part - 1)."""
    (found,) = phrases(game(5, conjunctions(PARTS), noise=0.2), named={0, 2, 3}, least=0.5)
    assert found.first == 2
    assert found.beyond.estimate == pytest.approx(1.5 + 0.6 / 2)
    assert found.both.estimate == pytest.approx(found.beyond.estimate)
    assert found.inert(0.25) and found.alone[0].estimate == pytest.approx(0)


def test_sampled_grounds_hold_the_truth() -> None:
    (found,) = phrases(game(14, conjunctions(PARTS), noise=0.2), named={2}, least=0.25)
    assert found.beyond.low <= 1.5 + 0.6 / 2 <= found.beyond.high
    assert 1.5 <= found.beyond.estimate <= 2.1
    assert phrases(game(14, conjunctions(PARTS)), named={2}, least=0.25, sampled=False)[
        0
    ].beyond.estimate == pytest.approx(2.1)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=2, max_size=8))
def test_effects_that_add_up_are_no_phrase(values: list[float]) -> None:
    worth = conjunctions({(i,): value for i, value in enumerate(values)})
    assert phrases(game(len(values), worth), named=set(range(len(values))), least=1e-6) == ()


def test_what_is_no_phrase() -> None:
    """Redundant words; a word that takes another's effect away; too little; too few groups; no word that has an effect."""
    everything = {0, 1, 2, 3}
    assert not phrases(game(4, lambda chosen: 2.0 * bool(chosen & {1, 2})), everything, 0.25)
    assert not phrases(game(4, conjunctions({(1,): 2.0, (1, 2): -2.0})), everything, 0.25)
    assert not phrases(game(4, conjunctions({(1, 2): 0.2})), everything, 0.25)
    assert not phrases(game(4, conjunctions({(1, 2): 2.0}), groups=[0, 0, 1, 1, 2, 2]), everything, 0.25)
    assert not phrases(game(4, conjunctions({(1, 2): 2.0})), set(), 0.25)
    assert phrases(game(4, conjunctions({(1, 2): -2.0})), everything, 0.25)[
        0
    ].beyond.estimate == pytest.approx(-2.0)


def test_one_word_that_needs_another_is_told_with_what_it_does_alone() -> None:
    (found,) = phrases(game(2, conjunctions({(0,): 1.0, (0, 1): 1.0})), {0, 1}, 0.25)
    assert [round(interval.estimate, 6) for interval in (found.both, found.beyond, *found.alone)] == [
        2.0,
        1.0,
        1.0,
        0.0,
    ]
    assert not found.inert(0.25)


def test_figures_are_those_of_plain_passes() -> None:
    """Three words of a random model: the index over the two grounds of each pair, by `answer` on the texts themselves."""
    runner, words = runner_for(random_model()), PromptWords.of("Be honest now")
    contexts = make_contexts(runner, toy_persona().split(0).search, n=4)
    worth = lambda *chosen: answer(runner, contexts, words.only(chosen) if chosen else ()).log_odds  # noqa: E731
    figures = pair_figures(WordProblem.of(runner, words, contexts, as_targets([])), [0, 1])
    for i, other, (means, errors) in zip((0, 1), (2, 0), figures, strict=True):
        by_hand = []
        for ground in ((), (other,)):
            base, left, right, both = (
                worth(*ground),
                worth(*ground, i),
                worth(*ground, i + 1),
                worth(*ground, i, i + 1),
            )
            by_hand.append([both - left - right + base, both - base, left - base, right - base])
        np.testing.assert_allclose(means, np.mean(by_hand, axis=0), atol=1e-4)
        assert errors == [None] * 4
