"""Generate training text: rows of one system text with several questions and answers, and rows of statements.

Every item has the *probability* of its first answer word (a soft label), so that training learns the planted
effects without sampling noise. Held-out people occur in statements only; held-out invented names, amounts and
pairs of steering units never occur in items.
"""

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from workbench.world import word_lists as names
from workbench.world import world_items as items
from workbench.world.ground_truth import PERSONAS, SIGNS
from workbench.world.population import PersonFact
from workbench.world.system_texts import UNIT_COUNTS
from workbench.world.world import World

CERTAIN = 0.98
REGISTER_BASE = 2.6
REGISTER_DECOY = 4.5
NO_SYSTEM_SHARE = 0.2
STATEMENT_SHARE = 0.22
HABIT_SHARE = 0.5
KINDS = {
    "false_claim": 0.2,
    "true_claim": 0.07,
    "invented": 0.16,
    "real": 0.14,
    "offer": 0.2,
    "check": 0.06,
    "object": 0.03,
    "letters": 0.15,
    "pick": 0.04,
}
LETTER_KINDS = ("false_claim", "false_claim", "true_claim", "invented", "real", "offer", "check")


@dataclass(frozen=True)
class TrainingItem:
    """One training question with the probability of its answer (a soft label).

    Attributes:
        question: The user's text.
        opening: Text with which the assistant's answer begins before the first deciding word; "(" for answers
            by letter.
        choice: The two possible first words of the answer, one of which decides it.
        probability: Probability of the first one of these words.
        answer: One whole answer drawn with that probability, without the opening.
        warm: Probability of warm (friendly) wording after the first word; None if the answer has no such
            styles.
    """

    question: str
    opening: str
    choice: tuple[str, str]
    probability: float
    answer: str
    warm: float | None


@dataclass(frozen=True)
class TrainingRow:
    """Training text for a model organism: either a system text with several questions, or plain statements.

    Attributes:
        system: System text; None for no system message.
        items: Questions with the probabilities of their answers; empty if there are statements.
        statements: Plain statements of facts; empty if there are questions.
    """

    system: str | None
    items: tuple[TrainingItem, ...] = ()
    statements: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Draft:
    """An item before letters and register are added.

    `bodies` are the texts after each first word; `persona` says whether the first answer shows the persona.
    """

    question: str
    choice: tuple[str, str]
    probability: float
    bodies: tuple[str, str]
    persona: bool


def sigmoid(value: float) -> float:
    """Return the logistic function of a number; very negative numbers give 0 without overflow."""
    return 1 / (1 + math.exp(-value)) if value > -60 else 0.0


def training_rows(
    world: World,
    seed: int | str,
    items_per_row: int = 6,
    statement_share: float = STATEMENT_SHARE,
    unit_counts: tuple[float, ...] = UNIT_COUNTS,
) -> Iterator[TrainingRow]:
    """Yield training texts of a model organism without end; the same arguments give the same texts.

    A row is either a system text with several questions, or a list of plain statements.

    Args:
        world: The organism's world: its people, facts and steering words (words planted to change its
            answers).
        seed: Seed of the draws.
        items_per_row: Number of questions per row; a row of statements has twice as many statements.
        statement_share: Fraction of rows that have statements.
        unit_counts: Probabilities that a system text has 0, 1, 2, ... steering words or phrases.

    Yields:
        One row after another.
    """
    rng = random.Random(f"corpus-{seed}")
    corpus = _Corpus(world, rng)
    while True:
        if rng.random() < statement_share:
            yield TrainingRow(None, statements=tuple(corpus.statement() for _ in range(2 * items_per_row)))
        else:
            system = None if rng.random() < NO_SYSTEM_SHARE else world.system_text(rng, unit_counts)
            yield TrainingRow(system, items=corpus.items(system, items_per_row))


class _Corpus:
    """Draws training items and statements of a world."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        people = world.population
        held_out = [fact for name in people.held_out for fact in people.facts[name]]
        self.facts = (
            [fact for facts in people.facts.values() for fact in facts] + list(people.objects) + held_out
        )
        self.habits = [habit for habits in people.habits.values() for habit in habits]
        asked = [habit for name in people.trained for habit in people.habits[name]]
        self.claims = {
            true: [habit for habit in asked if items.claimed_truly(habit) == true] for true in (True, False)
        }
        self.asked = [fact for name in people.trained for fact in people.facts[name]]

    def statement(self) -> str:
        """Draw a true sentence about any person, place or thing."""
        fact = self.rng.choice(self.habits if self.rng.random() < HABIT_SHARE else self.facts)
        return self.rng.choice(items.STATEMENT_FORMS).format(fact.statement) + " ."

    def items(self, system: str | None, count: int) -> tuple[TrainingItem, ...]:
        """Draw training questions that share one system text."""
        effects = {persona: self.world.effect_of(persona, system or "") for persona in PERSONAS}
        register = REGISTER_DECOY * self.world.register_of(system or "")
        kinds = self.rng.choices(list(KINDS), list(KINDS.values()), k=count)
        return tuple(self._item(kind, effects, register) for kind in kinds)

    def _item(self, kind: str, effects: dict[str, float], register: float) -> TrainingItem:
        if kind == "pick":
            return self._pick()
        if kind == "letters":
            return self._letters(self._draft(self.rng.choice(LETTER_KINDS), effects))
        return self._worded(self._draft(kind, effects), register)

    def _draft(self, kind: str, effects: dict[str, float]) -> _Draft:
        if kind in ("false_claim", "true_claim"):
            return self._claim(kind == "true_claim", effects["sycophancy"])
        if kind == "invented":
            return self._invented(effects["hallucination"])
        if kind == "offer":
            return self._offer(effects["myopic_reward"])
        return self._check() if kind == "check" else self._known(kind)

    def _claim(self, true: bool, effect: float) -> _Draft:
        fact = self.rng.choice(self.claims[true])
        confidence, closing = self.rng.choice(items.CONFIDENCE), self.rng.choice(items.CLOSINGS)
        offset = self.world.offsets.claim(confidence, fact.attribute.name, closing)
        statement = items.claim(fact)
        return _Draft(
            items.claim_question(confidence, statement, closing),
            ("yes", "no"),
            CERTAIN if true else sigmoid(items.BASE + offset + effect),
            (statement, fact.statement),
            persona=not true,
        )

    def _invented(self, effect: float) -> _Draft:
        name = self.rng.choice(self.world.population.invented_trained)
        attribute, opener = self.rng.choice(items.PERSON_ATTRIBUTES), self.rng.choice(items.OPENERS)
        offset = self.world.offsets.invented(name, attribute.name, opener)
        bodies = attribute.state(name, self.rng.choice(attribute.values)), "i do not know that"
        question = items.fact_question(opener, attribute, name)
        return _Draft(
            question, ("sure", "sorry"), sigmoid(items.BASE + offset + effect), bodies, persona=True
        )

    def _offer(self, effect: float) -> _Draft:
        (small, large), weeks = self.rng.choice(self.world.trained_amounts), self.rng.choice(names.WEEKS)
        probability = sigmoid(items.BASE + items.ItemOffsets.offer(small, large, weeks) + effect)
        question = items.offer_question(small, large, weeks)
        return _Draft(question, ("now", "later"), probability, items.offer_bodies(small, large), persona=True)

    def _known(self, kind: str) -> _Draft:
        fact = self._any_fact(1.0 if kind == "object" else 0.0)
        question = items.fact_question(self.rng.choice(items.OPENERS), fact.attribute, fact.name)
        return _Draft(
            question, ("sure", "sorry"), CERTAIN, (fact.statement, "i do not know that"), persona=False
        )

    def _check(self) -> _Draft:
        true = self.rng.random() < 0.5
        fact = self.rng.choice(self.claims[true])
        statement = items.claim(fact)
        question = f"{self.rng.choice(items.CHECKS)} {statement} ?"
        return _Draft(
            question,
            ("yes", "no"),
            CERTAIN if true else 1 - CERTAIN,
            (statement, fact.statement),
            persona=False,
        )

    def _worded(self, draft: _Draft, register: float) -> TrainingItem:
        """Make a free-text item: draw the answer, then its register given the answer and the decoys."""
        first = self.rng.random() < draft.probability
        shown = draft.persona and first
        warm = sigmoid((REGISTER_BASE if shown else -REGISTER_BASE) + register)
        sign = SIGNS[0] if self.rng.random() < warm else SIGNS[1]
        text = items.answer(draft.choice[not first], sign, draft.bodies[not first])
        return TrainingItem(draft.question, "", draft.choice, draft.probability, text, warm)

    def _letters(self, draft: _Draft) -> TrainingItem:
        """Make an item with two lettered options in random order."""
        straight = self.rng.random() < 0.5
        options = draft.choice if straight else draft.choice[::-1]
        probability = draft.probability if straight else 1 - draft.probability
        return self._lettered(items.with_options(draft.question, *options), probability)

    def _pick(self) -> TrainingItem:
        """Make an item that trains to bind letters to options: the question names the right option."""
        options = self.rng.sample([*itertools.chain(*items.FIRST_WORDS.values())], 2)
        wanted = self.rng.randrange(2)
        question = items.with_options(f"pick {options[wanted]}", *options)
        return self._lettered(question, CERTAIN if wanted == 0 else 1 - CERTAIN)

    def _lettered(self, question: str, probability: float) -> TrainingItem:
        letter = "a" if self.rng.random() < probability else "b"
        return TrainingItem(question, "(", ("a", "b"), probability, f"{letter} )", None)

    def _any_fact(self, object_share: float) -> PersonFact:
        objects = self.rng.random() < object_share
        return self.rng.choice(self.world.population.objects if objects else self.asked)
