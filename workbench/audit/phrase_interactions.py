"""Interactions of neighbouring words: pairs whose joint effect is more than the sum of their single effects.

1. Given a *ground* S (a set of the prompt's other words), two words i, j *interact* by v(S+i+j) - v(S+i) -
   v(S+j) + v(S), where v is the worth of word_effects.py. The interaction is zero if their effects add up.
2. A pair's figure is its Shapley interaction index (Grabisch & Roubens 1999): the mean over the grounds that
   precede the pair in all orders in which the pair is kept together. Grounds and their complements are
   sampled; with few words all are used. One ground alone is not enough: with an empty ground the phrase is
   out of its context, and in a full prompt another word may be redundant with the phrase. For long prompts,
   where a word's effect is that of leaving it out, the ground is all other words.
3. The interval is computed as for words; p is from sign flips of groups, by Holm's method over *all*
   neighbours of the prompt. Only neighbours of which one is named as a cause are measured, because an effect
   that no word has is of no interest; the others count as p = 1.
4. A pair is reported if that p is below 0.05, the interval excludes zero, the interaction is at least `least`
   log-odds, and its sign is that of the joint effect. Redundant words have an interaction of the opposite
   sign.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from workbench.attribution import AttributionProblem
from workbench.audit.sampled_intervals import sampled_interval
from workbench.statistics import Interval, holm, sign_flip_p

ALPHA = 0.05
Ground = tuple[int, ...]


@dataclass(frozen=True)
class PhraseInteraction:
    """Interaction of two neighbouring words of a prompt, in log-odds.

    Attributes:
        first: Index of the left word.
        beyond: The interaction: joint effect minus the sum of each word's effect without the other.
        both: Joint effect of the two words.
        alone: Effect of the left word without the right one, and of the right word without the left one.
        p: P-value of the interaction, corrected by Holm's method.
    """

    first: int
    beyond: Interval
    both: Interval
    alone: tuple[Interval, Interval]
    p: float

    def inert(self, least: float) -> bool:
        """Whether neither word alone has an effect: the intervals of both are within +-`least` log-odds."""
        return all(-least < interval.low and interval.high < least for interval in self.alone)


def phrases(
    problem: AttributionProblem, named: Collection[int], least: float, orders: int = 4, sampled: bool = True
) -> tuple[PhraseInteraction, ...]:
    """Find the neighbouring words of a prompt whose joint effect is not the sum of their single effects.

    Args:
        problem: An attribution problem whose positions are words and whose first target is the answer's
            log-odds.
        named: Indices of the words that are shown to have an effect; only pairs with one of these are
            measured.
        least: Smallest interaction to report, in log-odds.
        orders: Number of sampled sets of the other words in whose presence a pair is measured; the complement
            of each set is used as well.
        sampled: False measures each pair in the presence of all other words only, as for long prompts.

    Returns:
        The pairs that interact significantly, from left to right.
    """
    n, groups = len(problem.prompt), problem.contexts.groups
    measured = [i for i in range(n - 1) if i in named or i + 1 in named]
    figures = pair_figures(problem, measured, orders, sampled)
    raw = [sign_flip_p(means[0], groups, problem.seed) for means, _ in figures]
    corrected = holm([*raw, *[1.0] * (n - 1 - len(raw))])[: len(raw)]
    found = []
    for i, p, (means, errors) in zip(measured, corrected, figures, strict=True):
        beyond, both, left, right = (
            sampled_interval(mean, groups, error) for mean, error in zip(means, errors, strict=True)
        )
        if p < ALPHA and abs(beyond.estimate) >= least and _same_way(beyond, both):
            found.append(PhraseInteraction(i, beyond, both, (left, right), p))
    return tuple(found)


def pair_figures(
    problem: AttributionProblem, pairs: Sequence[int], orders: int = 4, sampled: bool = True
) -> list[tuple[Float[np.ndarray, "4 context"], list[float | None]]]:
    """Estimate how two neighbouring words i and i + 1 act jointly and alone.

    Four effects are estimated: the interaction, the joint effect, the left word's effect without the right
    one, and the right word's effect without the left one. Each is a mean over grounds (sets of the other
    words that are present).

    Args:
        problem: An attribution problem whose positions are words and whose first target is the answer's
            log-odds.
        pairs: Index i of the left word of each pair.
        orders: Number of grounds to sample; the complement of each is used as well.
        sampled: False uses one ground only: all other words.

    Returns:
        For each pair, the four effects in each context, and the standard error that sampling grounds adds to
        each effect's mean over contexts (None if nothing was sampled).
    """
    rng = np.random.default_rng(problem.seed)
    grounds = {
        i: _grounds([k for k in range(len(problem.prompt)) if k not in (i, i + 1)], orders, rng, sampled)
        for i in pairs
    }
    worth = _worths(problem, grounds)
    return [_figures(i, grounds[i], worth) for i in pairs]


def _same_way(one: Interval, other: Interval) -> bool:
    return (one.low > 0 and other.low > 0) or (one.high < 0 and other.high < 0)


@dataclass(frozen=True)
class _Grounds:
    """Grounds (sets of other words) with their weights.

    Attributes:
        sets: The grounds.
        weights: Weight of each ground in the mean.
        antithetic: Whether they were sampled, each followed by its complement.
    """

    sets: tuple[Ground, ...]
    weights: Float[np.ndarray, " ground"]
    antithetic: bool


def _grounds(others: list[int], orders: int, rng: np.random.Generator, sampled: bool) -> _Grounds:
    m = len(others)
    if not sampled:
        return _Grounds((tuple(others),), np.ones(1), False)
    if 2**m <= 2 * orders:
        sets = tuple(chosen for size in range(m + 1) for chosen in itertools.combinations(others, size))
        weights = [math.factorial(len(s)) * math.factorial(m - len(s)) / math.factorial(m + 1) for s in sets]
        return _Grounds(sets, np.array(weights), False)
    drawn: list[Ground] = []
    for _ in range(orders):
        ground = set(rng.permutation(others)[: rng.integers(m + 1)].tolist())
        drawn += [tuple(k for k in others if k in ground), tuple(k for k in others if k not in ground)]
    return _Grounds(tuple(drawn), np.full(len(drawn), 1 / len(drawn)), True)


def _four(i: int, ground: Ground) -> tuple[Ground, Ground, Ground, Ground]:
    """Return the ground, the ground with the left word, with the right word, and with both."""
    return (
        ground,
        tuple(sorted((*ground, i))),
        tuple(sorted((*ground, i + 1))),
        tuple(sorted((*ground, i, i + 1))),
    )


def _worths(
    problem: AttributionProblem, grounds: dict[int, _Grounds]
) -> dict[Ground, Float[np.ndarray, " context"]]:
    distinct = sorted({s for i, found in grounds.items() for ground in found.sets for s in _four(i, ground)})
    prompts = [tuple(problem.prompt[k] for k in s) for s in distinct]
    return dict(zip(distinct, problem.scores(prompts)[:, :, 0], strict=True)) if distinct else {}


def _figures(
    i: int, grounds: _Grounds, worth: dict[Ground, np.ndarray]
) -> tuple[Float[np.ndarray, "figure context"], list[float | None]]:
    base, left, right, both = np.stack(
        [[worth[s] for s in _four(i, ground)] for ground in grounds.sets], axis=1
    )
    values = np.stack([both - left - right + base, both - base, left - base, right - base])
    means = np.einsum("fgc,g->fc", values, grounds.weights)
    if not grounds.antithetic:
        return means, [None] * len(means)
    pairs = (values[:, ::2] + values[:, 1::2]).mean(axis=-1) / 2
    return means, (pairs.std(axis=1, ddof=1) / math.sqrt(pairs.shape[1])).tolist()
