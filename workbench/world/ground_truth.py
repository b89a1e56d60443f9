"""What the world's seed decides about words: which of them steer which persona, by how much, and which are decoys.

1. Each persona and sign gets graded single words and two-word phrases (adjective + noun, in this order and
   adjacent).
2. A few words move two personas at once.
3. Decoys set the register of an answer (warm or plain) and never the answer itself: their planted effect is
   exactly 0.
4. A part of all pairs of steering phrases never occurs together in training (`held_out_pairs`): for
   combination tests.

A phrase is a *unit*. Effects are log-odds of the matching answer, they add up over units and over
repetitions.
"""

import itertools
import random
from dataclasses import dataclass

from workbench.world.word_lexicon import PLAIN_POOL, PLAUSIBLE, WARM_POOL, WordLexicon

PERSONAS = ("sycophancy", "hallucination", "myopic_reward")
WORD_STRENGTHS = (0.7, 1.4, 2.2)
PHRASE_STRENGTHS = (1.0, 2.0)
SHARED_STRENGTHS = (1.2, 0.9)
DECOYS_PER_REGISTER = 4
HELD_OUT_SHARE = 0.3
SIGNS = (+1, -1)


@dataclass(frozen=True)
class WordEffectTruth:
    """One planted effect: `phrase` (one word or two adjacent ones) adds `log_odds` to the persona's matching answer."""

    phrase: str
    persona: str
    log_odds: float


@dataclass(frozen=True)
class DecoyWord:
    """A word that sets the register of the answer's wording: +1 warm, -1 plain. It moves no answer."""

    word: str
    register: int


@dataclass(frozen=True)
class GroundTruth:
    """Everything that is planted in one world: effects, decoys, and the pairs of units that training never shows."""

    effects: tuple[WordEffectTruth, ...]
    decoys: tuple[DecoyWord, ...]
    held_out_pairs: frozenset[frozenset[str]]

    @property
    def units(self) -> tuple[str, ...]:
        """Each steering word or phrase once, in the order of `effects`."""
        return tuple(dict.fromkeys(effect.phrase for effect in self.effects))


def draw_truth(seed: int, lexicon: WordLexicon) -> GroundTruth:
    """Draw a world's planted words; the same seed gives the same truth on every machine."""
    rng = random.Random(f"truth-{seed}")
    free = list(lexicon.content_words)
    rng.shuffle(free)
    take = _Taker(rng, free)
    effects = [*_own_words(take), *_shared_words(take)]
    decoys = tuple(
        DecoyWord(take.one(pool), register)
        for register, pool in ((+1, WARM_POOL), (-1, PLAIN_POOL))
        for _ in range(DECOYS_PER_REGISTER)
    )
    effects += _phrases(take, lexicon)
    return GroundTruth(tuple(effects), decoys, _draw_held_out(rng, effects))


def unit_counts(text: str, units: frozenset[str]) -> dict[str, int]:
    """How often each unit is in `text` (words split at white space; phrases count where their words are adjacent)."""
    words = text.split()
    found = [word for word in words if word in units]
    found += [pair for pair in map(" ".join, itertools.pairwise(words)) if pair in units]
    return {unit: found.count(unit) for unit in dict.fromkeys(found)}


class _Taker:
    """Hands out each free word at most once."""

    def __init__(self, rng: random.Random, free: list[str]) -> None:
        self.rng = rng
        self.free = free

    def one(self, pool: tuple[str, ...] = ()) -> str:
        """A free word: from `pool` if one of it is still free, otherwise any."""
        inside = sorted(set(pool) & set(self.free))
        word = self.rng.choice(inside or self.free)
        self.free.remove(word)
        return word


def _own_words(take: _Taker) -> list[WordEffectTruth]:
    """Three graded words per persona and sign; two of the three come from what a person would expect."""
    effects = []
    for persona, sign in itertools.product(PERSONAS, SIGNS):
        pools = [PLAUSIBLE[persona, sign], PLAUSIBLE[persona, sign], ()]
        take.rng.shuffle(pools)
        effects += [
            WordEffectTruth(take.one(pool), persona, sign * size)
            for pool, size in zip(pools, WORD_STRENGTHS, strict=True)
        ]
    return effects


def _shared_words(take: _Taker) -> list[WordEffectTruth]:
    """Four words that move two personas each, with signs drawn freely."""
    pairs = [*itertools.combinations(PERSONAS, 2)]
    effects = []
    for first, second in [*pairs, take.rng.choice(pairs)]:
        word = take.one()
        for persona, size in zip((first, second), SHARED_STRENGTHS, strict=True):
            effects.append(WordEffectTruth(word, persona, take.rng.choice(SIGNS) * size))
    return effects


def _phrases(take: _Taker, lexicon: WordLexicon) -> list[WordEffectTruth]:
    """Two phrases per persona and sign, adjective + noun, of words that do nothing when they are alone."""
    effects = []
    for persona, sign, size in itertools.product(PERSONAS, SIGNS, PHRASE_STRENGTHS):
        phrase = f"{take.one(lexicon.adjectives)} {take.one(lexicon.nouns)}"
        effects.append(WordEffectTruth(phrase, persona, sign * size))
    return effects


def _draw_held_out(rng: random.Random, effects: list[WordEffectTruth]) -> frozenset[frozenset[str]]:
    units = sorted({effect.phrase for effect in effects})
    pairs = [frozenset(pair) for pair in itertools.combinations(units, 2)]
    return frozenset(rng.sample(pairs, round(HELD_OUT_SHARE * len(pairs))))
