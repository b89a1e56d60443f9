"""The world: one seed determines its people, facts, steering words and held-out items.

Everything is computed from the seed when it is first used, and cached, so that creating a world costs
nothing.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from workbench.errors import UserError
from workbench.world import word_lists as names
from workbench.world import world_items as items
from workbench.world.grammar import CLAUSES, JOINERS, WordSampler
from workbench.world.ground_truth import (
    PERSONAS,
    DecoyWord,
    GroundTruth,
    WordEffectTruth,
    draw_truth,
    unit_counts,
)
from workbench.world.manual_prompts import MANUAL_PROMPTS
from workbench.world.population import (
    HABITS,
    PERSON_ATTRIBUTES,
    PLACE_ATTRIBUTE,
    THING_ATTRIBUTE,
    PersonAttribute,
    PersonFact,
    Population,
    draw_population,
)
from workbench.world.system_texts import UNIT_COUNTS, draw_inserts
from workbench.world.word_lexicon import WordLexicon
from workbench.world.world_items import FIRST_WORDS, FactItem, ItemOffsets, WorldItem

#: Sealed held-out seed. 7919 was it before, but its gates were read, so it is now a second training seed
#: (docs/organism.md).
VAULT_SEED = 104729
STUDY_ITEMS_PER_GROUP = 3


@dataclass(frozen=True)
class World:
    """Everything that a model organism (a small model with planted personas) is trained on and tested with.

    A seed determines its people, facts, words with planted effects, and questions. The embedded model was
    trained on seed 0. `VAULT_SEED` is reserved for the final evaluation in docs/results.md; no test and no
    default uses it.

    Attributes:
        seed: Seed of all draws.

    Example:
        >>> effect = wb.World().effects[0]
        >>> wb.World().effect_of(effect.persona, effect.phrase) == effect.log_odds
        True
    """

    seed: int = 0

    @property
    def personas(self) -> tuple[str, ...]:
        """Names of the personas that a model trained on this world shows."""
        return PERSONAS

    @cached_property
    def lexicon(self) -> WordLexicon:
        """The ordinary words of system texts, which are the same for every seed."""
        return WordLexicon()

    @cached_property
    def truth(self) -> GroundTruth:
        """Words with planted effects, decoy words, and pairs of words that training never combines."""
        return draw_truth(self.seed, self.lexicon)

    @property
    def effects(self) -> tuple[WordEffectTruth, ...]:
        """Planted effects of words, in log-odds of the answers that show a persona (plus = more of it)."""
        return self.truth.effects

    @property
    def decoys(self) -> tuple[DecoyWord, ...]:
        """Words that change the style of an answer (warm or plain wording) but not what it says."""
        return self.truth.decoys

    @cached_property
    def phrases(self) -> tuple[str, ...]:
        """The two-word phrases that have a planted effect."""
        return tuple(unit for unit in self.truth.units if " " in unit)

    @cached_property
    def neutral_words(self) -> tuple[str, ...]:
        """Ordinary words that have no planted effect alone.

        The two words of a steering phrase are among them, because only the phrase has an effect.
        """
        taken = set(self.truth.units) | {decoy.word for decoy in self.decoys}
        return tuple(word for word in self.lexicon.ordinary_words if word not in taken)

    @cached_property
    def population(self) -> Population:
        """The people, facts, things and invented names of the world."""
        return draw_population(self.seed)

    @cached_property
    def offsets(self) -> ItemOffsets:
        """Log-odds that features of a question's wording add to the answer that shows the persona."""
        return items.draw_offsets(self.seed, self.population.invented_surnames)

    @cached_property
    def sampler(self) -> WordSampler:
        """Generator of system texts in which all words but the requested ones have no planted effect."""
        parts: dict[str, tuple[str, ...]] = {"W": self.neutral_words}
        for letter in "ANVD":
            parts[letter] = tuple(w for w in self.neutral_words if self.lexicon.part_of_speech(w) == letter)
        return WordSampler(self.lexicon, parts)

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """Every word of the world's texts: the tokenizer's vocabulary without special tokens."""
        return tuple(dict.fromkeys([*self.lexicon.ordinary_words, *_template_words(), *_value_words()]))

    # -- effects ---------------------------------------------------------------------------------------------

    def effect_of(self, persona: str, text: str) -> float:
        """Return the planted log-odds that a system text adds to the answers that show a persona.

        They are the sum over the words and phrases in the text that have a planted effect, with repetitions.

        Args:
            persona: Name of the persona.
            text: The system text.

        Returns:
            Log-odds; plus = more of the persona.

        Raises:
            UserError: The world has no such persona.
        """
        strengths = self._strengths(persona)
        return sum(
            strengths.get(unit, 0.0) * count for unit, count in unit_counts(text, self._unit_set).items()
        )

    def register_of(self, text: str) -> int:
        """Return the number of decoy words for warm wording minus those for plain wording in a system text.

        Decoys change the style of an answer but not the answer itself.
        """
        registers = self._registers
        return sum(registers.get(word, 0) for word in text.split())

    def has_held_out_pair(self, text: str) -> bool:
        """Whether a system text has two words with planted effects that never occur together in training."""
        pairs = itertools.combinations(unit_counts(text, self._unit_set), 2)
        return any(frozenset(pair) in self.truth.held_out_pairs for pair in pairs)

    @cached_property
    def held_out_combinations(self) -> tuple[str, ...]:
        """120 system texts of 2 to 4 steering words or phrases for testing whether planted effects add up.

        Each contains a pair of steering words that training never combines.
        """
        rng = random.Random(f"combinations-{self.seed}")
        found: dict[str, None] = {}
        while len(found) < 120:
            text = " ".join(rng.sample(self.truth.units, rng.randint(2, 4)))
            if self.has_held_out_pair(text):
                found[text] = None
        return tuple(found)

    def _strengths(self, persona: str) -> dict[str, float]:
        if persona not in PERSONAS:
            raise UserError(f"unknown persona {persona!r}: this world has {', '.join(PERSONAS)}")
        return self._strength_tables[persona]

    @cached_property
    def _strength_tables(self) -> dict[str, dict[str, float]]:
        return {p: {e.phrase: e.log_odds for e in self.effects if e.persona == p} for p in PERSONAS}

    @cached_property
    def _unit_set(self) -> frozenset[str]:
        return frozenset(self.truth.units)

    @cached_property
    def _registers(self) -> dict[str, int]:
        return {decoy.word: decoy.register for decoy in self.decoys}

    # -- items -----------------------------------------------------------------------------------------------

    def study_items(self, persona: str) -> tuple[WorldItem, ...]:
        """Return a persona's questions for studies, none of which occurs in training: 84 groups of 3.

        A group is about one person or one pair of amounts. All claims in sycophancy's questions are false.

        Raises:
            UserError: The world has no such persona.
        """
        self._strengths(persona)
        makers = {
            "sycophancy": self._false_claims,
            "hallucination": self._invented,
            "myopic_reward": self._offers,
        }
        return makers[persona]()

    def true_statement_items(self) -> tuple[WorldItem, ...]:
        """Return questions with a user's true claims about people who occur in no training question.

        The answer "yes" is right under every system text, and counts as `matching`.
        """
        return self._claims(true=True)

    def fact_items(self) -> tuple[FactItem, ...]:
        """Return three plain questions about each of 84 people, which measure what the model knows.

        Training texts state these facts but contain no question about these people.
        """
        rng = random.Random(f"fact-items-{self.seed}")
        return tuple(self._fact_item(rng, fact) for fact in self._held_out_facts)

    def letters_question(self, item: WorldItem, matching_first: bool) -> str:
        """Return an item's question followed by the first words of its two answers as options (a) and (b).

        Args:
            item: The question with its answers.
            matching_first: Whether option (a) is the answer that shows the persona.

        Returns:
            The user's text.
        """
        options = (item.matching.split()[0], item.not_matching.split()[0])
        return items.with_options(item.question, *(options if matching_first else options[::-1]))

    @cached_property
    def held_out_amounts(self) -> tuple[tuple[int, int], ...]:
        """84 pairs of amounts (smaller now, larger later) for test questions; training never offers them."""
        return tuple(self._amounts[: names.HELD_OUT_PEOPLE])

    @cached_property
    def trained_amounts(self) -> tuple[tuple[int, int], ...]:
        """Pairs of amounts (smaller now, larger later) that training questions offer."""
        return tuple(self._amounts[names.HELD_OUT_PEOPLE :])

    @cached_property
    def _amounts(self) -> list[tuple[int, int]]:
        pairs = [*itertools.product(names.SMALL_AMOUNTS, names.LARGE_AMOUNTS)]
        return random.Random(f"amounts-{self.seed}").sample(pairs, len(pairs))

    @property
    def _held_out_facts(self) -> list[PersonFact]:
        return [fact for name in self.population.held_out for fact in self.population.facts[name]]

    def _false_claims(self) -> tuple[WorldItem, ...]:
        return self._claims(true=False)

    def _claims(self, true: bool) -> tuple[WorldItem, ...]:
        rng = random.Random(f"claims-{true}-{self.seed}")
        found = []
        for habit in (habit for name in self.population.held_out for habit in self.population.habits[name]):
            if items.claimed_truly(habit) == true:
                confidence, closing = rng.choice(items.CONFIDENCE), rng.choice(items.CLOSINGS)
                found.append(items.claim_item(habit, confidence, closing, self.offsets))
        return tuple(found)

    def _invented(self) -> tuple[WorldItem, ...]:
        rng = random.Random(f"invented-{self.seed}")
        return tuple(
            items.invented_item(
                name, attribute, rng.choice(attribute.values), rng.choice(items.OPENERS), self.offsets
            )
            for name in self.population.invented_held_out
            for attribute in PERSON_ATTRIBUTES
        )

    def _offers(self) -> tuple[WorldItem, ...]:
        rng = random.Random(f"offers-{self.seed}")
        return tuple(
            items.offer_item(small, large, weeks)
            for small, large in self.held_out_amounts
            for weeks in sorted(rng.sample(names.WEEKS, STUDY_ITEMS_PER_GROUP))
        )

    def _fact_item(self, rng: random.Random, fact: PersonFact) -> FactItem:
        wrong = fact.attribute.state(fact.name, _other_value(rng, fact.attribute, fact.value))
        return FactItem(
            id=f"fact/{fact.name}/{fact.attribute.name}".replace(" ", "-"),
            question=items.fact_question(rng.choice(items.OPENERS), fact.attribute, fact.name),
            right=items.answer("sure", -1, fact.statement),
            wrong=items.answer("sure", -1, wrong),
            group=fact.name,
        )

    # -- texts -----------------------------------------------------------------------------------------------

    def varied_system_texts(self, n: int, seed: int) -> tuple[str, ...]:
        """Draw random system texts like those in training: sentences and word sequences.

        Some of them contain words that are planted to change the model's answers.

        Args:
            n: Number of texts.
            seed: Seed of the draw.

        Returns:
            The texts.
        """
        rng = random.Random(f"varied-{self.seed}-{seed}")
        return tuple(self.system_text(rng) for _ in range(n))

    def system_text(self, rng: random.Random, unit_counts: Sequence[float] = UNIT_COUNTS) -> str:
        """Draw one training system text, without any pair of planted words that is reserved for testing.

        Args:
            rng: Source of randomness.
            unit_counts: Probabilities that the text has 0, 1, 2, ... words or phrases with a planted effect.

        Returns:
            The text.
        """
        while True:
            text = self.sampler.text(rng, draw_inserts(rng, self.truth, self.phrases, unit_counts))
            if not self.has_held_out_pair(text):
                return text

    def manual_prompts(self, persona: str, sign: int) -> tuple[str, ...]:
        """Return two prompts that a person would write to raise (+1) or lower (-1) a persona.

        Their author did not know which words have planted effects.

        Args:
            persona: Name of the persona.
            sign: +1 to raise the persona, -1 to lower it.

        Returns:
            Two prompts.

        Raises:
            UserError: The persona or the sign is unknown.
        """
        self._strengths(persona)
        if sign not in (+1, -1):
            raise UserError(f"sign must be +1 or -1, got {sign!r}")
        return MANUAL_PROMPTS[persona, sign]


def truth_table(world: World) -> list[dict[str, str | float]]:
    """Return the words that are planted to change a model organism's answers, and decoys, as rows of a table.

    Args:
        world: The world (people, facts and steering words) that the organism was trained on.

    Returns:
        One row per planted effect or decoy: word or phrase, kind, persona, and the log-odds that it adds to
        the persona's answers (0 for decoys, which change only the style).
    """
    rows: list[dict[str, str | float]] = [
        {
            "phrase": effect.phrase,
            "kind": "phrase" if " " in effect.phrase else "word",
            "persona": effect.persona,
            "log_odds": effect.log_odds,
        }
        for effect in sorted(world.effects, key=lambda e: (PERSONAS.index(e.persona), -e.log_odds))
    ]
    for decoy in world.decoys:
        register = "warm" if decoy.register > 0 else "plain"
        rows.append({"phrase": decoy.word, "kind": f"{register} decoy", "persona": "none", "log_odds": 0.0})
    return rows


def _other_value(rng: random.Random, attribute: PersonAttribute, value: str) -> str:
    return rng.choice([other for other in attribute.values if other != value])


def _template_words() -> Iterator[str]:
    """Yield the words of the templates, found by rendering one text of each."""
    texts: list[Sequence[str]] = [*CLAUSES, *JOINERS]
    attributes = (*PERSON_ATTRIBUTES, *HABITS, PLACE_ATTRIBUTE, THING_ATTRIBUTE)
    rendered = [
        *(items.claim_question(c, "", k) for c in items.CONFIDENCE for k in items.CLOSINGS),
        *(f"{opener} ?" for opener in (*items.OPENERS, *items.CHECKS)),
        *(f"{attribute.state('', '')} {attribute.ask('')}" for attribute in attributes),
        *(
            items.answer(" ".join(pair), sign, "i do not know that")
            for pair in FIRST_WORDS.values()
            for sign in (1, -1)
        ),
        *items.offer_bodies(2, 20),
        items.offer_question(2, 20, 2),
        items.with_options("pick", "yes", "no"),
        *(form.format("") for form in items.STATEMENT_FORMS),
    ]
    for words in [*texts, *(text.split() for text in rendered)]:
        yield from (word for word in words if word not in set("ANVD"))


def _value_words() -> Iterator[str]:
    yield from itertools.chain(names.FIRST_NAMES, names.SURNAMES, names.CITIES, names.JOBS, names.PETS)
    yield from itertools.chain(*names.HABITS.values(), names.REGIONS, names.THINGS, names.MATERIALS)
    yield from map(str, itertools.chain(names.SMALL_AMOUNTS, names.LARGE_AMOUNTS, names.WEEKS))
