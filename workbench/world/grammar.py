"""Generate system texts: roughly grammatical sentences, or free word sequences, of ordinary words.

1. Clauses are chained (or, for a free sequence, slots for any word) until the text has the drawn number of
   words.
2. Each slot gets a neutral word of its part of speech (A adjective, N noun, V verb, D adverb, W any word).
3. The given steering units and decoys replace slots of their part of speech, or are put at the front of the
   text if no slot fits. (A unit is a word or phrase with a planted effect.)
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.world.word_lexicon import WordLexicon

CLAUSES = tuple(
    clause.split()
    for clause in (
        "you are the A N",
        "be A and A",
        "you should be A",
        "D V the A N",
        "V the N D",
        "V your N with A N",
        "please V the N",
        "you must V every N",
        "V and V the A N",
        "your N will be A",
        "when the N V D",
        "before the N V your N",
        "for every N you V D",
        "with A N you V",
        "be the A N of the N",
        "V D",
        "A N",
        "V to the N as the A N",
        "be D A",
    )
)
JOINERS = (("and",), ("then",), ("but",), ("so",), (), ())
MAX_WORDS = 24
FREE_SHARE = 0.4


@dataclass(frozen=True)
class WordSampler:
    """Generates system texts: sentences and sequences of words from an organism's vocabulary.

    An organism is a small model that was trained on such texts, in which some words steer its answers.

    Attributes:
        lexicon: The ordinary words with their parts of speech.
        neutral: Words without an effect on answers that may fill a gap in a sentence template, by part of
            speech (one letter).
    """

    lexicon: WordLexicon
    neutral: dict[str, tuple[str, ...]]

    def text(self, rng: random.Random, inserts: Sequence[str] = ()) -> str:
        """Generate one system text of 1 to 24 words.

        Args:
            rng: Source of randomness.
            inserts: Words or two-word phrases that the text must contain; all other words have no planted
                effect.

        Returns:
            The text.
        """
        needed = sum(len(insert.split()) for insert in inserts)
        length = max(rng.choice((rng.randint(1, 8), rng.randint(4, 14), rng.randint(1, MAX_WORDS))), needed)
        slots = ["W"] * length if rng.random() < FREE_SHARE else _clause_slots(rng, length)
        words: list[str] = list(slots)
        for insert in rng.sample(list(inserts), len(inserts)):
            self._place(rng, words, insert.split())
        return " ".join(self._fill(rng, words)[:MAX_WORDS])

    def _place(self, rng: random.Random, words: list[str], insert: list[str]) -> None:
        """Overwrite a fitting slot (or two adjacent ones); if none fits, insert at the front."""
        kinds = [self.lexicon.part_of_speech(word) for word in insert]
        fits = [
            start
            for start in range(len(words) - len(insert) + 1)
            if all(words[start + i] in (kind, "W") for i, kind in enumerate(kinds))
        ]
        if fits:
            start = rng.choice(fits)
            words[start : start + len(insert)] = insert
        else:
            words[0:0] = insert

    def _fill(self, rng: random.Random, words: list[str]) -> list[str]:
        return [rng.choice(self.neutral[word]) if word in self.neutral else word for word in words]


def _clause_slots(rng: random.Random, length: int) -> list[str]:
    slots: list[str] = []
    while len(slots) < length:
        if slots:
            slots += rng.choice(JOINERS)
        slots += rng.choice(CLAUSES)
    return slots[:length]
