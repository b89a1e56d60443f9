"""On the embedded model, whose steering words are known: attribution names them, far beyond chance."""

from __future__ import annotations

import random

import numpy as np
import pytest

import workbench as wb
from workbench.attribution import AttributionOptions, attribute
from workbench.world import World


@pytest.fixture(scope="module")
def ledgers(organism):
    """Prompts of two planted words among six that do nothing, with what was planted for each token."""
    world, found = World(0), []
    neutral = [word for word in world.neutral_words if " " not in word]
    for persona in world.personas:
        contexts = wb.make_contexts(organism, wb.load_persona(persona).split(seed=0).selection, n=6)
        planted = [
            (e.phrase, e.log_odds) for e in world.effects if e.persona == persona and " " not in e.phrase
        ]
        rng = random.Random(persona)
        for _ in range(2):
            words = rng.sample(planted, 2) + [(word, 0.0) for word in rng.sample(neutral, 6)]
            rng.shuffle(words)
            text, estimators = " ".join(word for word, _ in words), ("gradient_x_input", "shapley")
            ledger = attribute(
                organism,
                text,
                {},
                contexts,
                estimators,
                options=AttributionOptions(pairs=0, mediation=False, nodes=0),
            )
            assert len(ledger.tokens) == 8
            found.append((ledger, np.array([effect for _, effect in words])))
    return found


@pytest.mark.parametrize(
    ("estimator", "least"), [("removal", 0.65), ("gradient_x_input", 0.6), ("shapley", 0.75)]
)
def test_the_planted_words_are_among_the_strongest(ledgers, estimator, least):
    """Fraction of the two planted words among the two strongest tokens; a shuffled ledger has 0.25."""
    hits = [
        set(np.argsort(-np.abs(ledger.means(estimator)[:, 0]))[:2]) & set(np.flatnonzero(truth))
        for ledger, truth in ledgers
    ]
    assert np.mean([len(hit) / 2 for hit in hits]) >= least


def test_removal_has_the_planted_sign(ledgers):
    signs = [
        np.sign(ledger.means()[i, 0]) == np.sign(truth[i])
        for ledger, truth in ledgers
        for i in np.flatnonzero(truth)
    ]
    assert np.mean(signs) >= 0.8


def test_a_small_circuit_carries_the_effect_far_beyond_random_ones(organism):
    """The two strongest planted words that lower sycophancy among six neutral ones."""
    world = World(0)
    planted = sorted(
        (e for e in world.effects if e.persona == "sycophancy" and " " not in e.phrase),
        key=lambda e: e.log_odds,
    )[:2]
    words = [e.phrase for e in planted] + [word for word in world.neutral_words if " " not in word][:6]
    contexts = wb.make_contexts(organism, wb.load_persona("sycophancy").split(seed=0).selection, n=6)
    found = attribute(
        organism,
        " ".join(words),
        {},
        contexts,
        (),
        circuit=12,
        options=AttributionOptions(pairs=0, mediation=False),
    ).circuit
    proof = found.proof
    assert found.total.high < 0 and proof.faithfulness.estimate > 0.5 and proof.completeness.estimate > 0.8
    assert (
        proof.faithfulness.estimate > proof.random_faithfulness[2]
        and proof.completeness.estimate > proof.random_completeness[0]
    )
    assert found.agreement > 0.7
