"""Draw what a training system text contains: steering units, decoys and parts of phrases, in this order."""

import random
from collections.abc import Sequence

from workbench.world.ground_truth import GroundTruth

#: Probabilities that a system text has 0, 1, 2, ... steering units; MANY_UNITS applies in the last part of
#: the organism's training.
UNIT_COUNTS = (0.25, 0.3, 0.22, 0.13, 0.1)
MANY_UNITS = (0.1, 0.2, 0.25, 0.25, 0.2)
DECOY_SHARE = 0.35


def draw_inserts(
    rng: random.Random, truth: GroundTruth, phrases: Sequence[str], counts: Sequence[float] = UNIT_COUNTS
) -> list[str]:
    """Draw the words and phrases that one system text of a model organism must contain.

    They are steering words and phrases (planted to change answers), decoys (words that change only the style
    of answers), and phrases that are reversed or halved, which have no effect.

    Args:
        rng: Source of randomness.
        truth: The steering words and decoys with their planted effects.
        phrases: Two-word steering phrases.
        counts: Probabilities of 0, 1, 2, ... steering words or phrases.

    Returns:
        Words and phrases.
    """
    inserts = rng.sample(truth.units, rng.choices(range(len(counts)), counts)[0])
    if inserts and rng.random() < 0.08:
        inserts.append(rng.choice(inserts))
    if rng.random() < DECOY_SHARE:
        inserts += [decoy.word for decoy in rng.sample(truth.decoys, rng.choice((1, 1, 1, 2)))]
    if rng.random() < 0.15:
        first, second = rng.choice(phrases).split()
        inserts += rng.choice(([f"{second} {first}"], [first], [second]))
    return inserts
