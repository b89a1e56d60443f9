"""Questions of the real-language organism, and what the questions of all personas have in common.

1. *Steered* questions show the persona. Their matching answer has log-odds BASE + a grade that the wording
   shows + the system text's effect. *Fixed* questions look alike but have a right answer, whose log-odds are
   TRUE under any system text.
2. A third of all names that questions are about is held out and never occurs in training.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

BASE = 1.8
TRUE = 3.0
#: Probability of each grade of a steered question; the grade is the log-odds that its wording adds.
GRADE_SHARES = {1.2: 0.22, 0.6: 0.22, 0.0: 0.22, -0.9: 0.2, -2.8: 0.14}


@dataclass(frozen=True)
class EnglishItem:
    """One question of a model organism's persona, with the answer Yes or No.

    Attributes:
        id: Identifier.
        persona: Name of the persona.
        question: The user's text.
        matching: The answer that shows the persona or, if `steered` is False, the right one.
        not_matching: The other answer.
        group: Name of the thing or person that the question is about.
        kind: Kind of question, such as "false" for a false claim of the user.
        log_odds: Log-odds of the matching answer that the model is trained to have without a system text that
            changes them.
        steered: Whether planted words in the system text change these log-odds.
    """

    id: str
    persona: str
    question: str
    matching: str
    not_matching: str
    group: str
    kind: str
    log_odds: float
    steered: bool


class NamedSubject(Protocol):
    """Interface of a thing or person that questions can be about."""

    @property
    def name(self) -> str:
        """The subject's name in the question."""
        ...


T = TypeVar("T", bound=NamedSubject)


@dataclass(frozen=True)
class QuestionSet(Generic[T]):
    """All kinds of plain English questions by which one persona is planted in a model.

    Steering words in the system text are planted to change the answers to some of these kinds.

    Attributes:
        persona: Name of the persona.
        steered: Kinds of questions whose answers are changed by steering words.
        fixed: Kinds of questions with a right answer that no system text changes.
        subjects: All things or people that questions can be about.
        fits: Function that says whether a kind of question can be about a subject.
        make: Function that draws a question of a kind about a subject.
        block: Function that draws four questions, which training presents together under several system
            texts.
        each: Numbers of steered and of fixed questions about each subject that is held out of training.
    """

    persona: str
    steered: tuple[str, ...]
    fixed: tuple[str, ...]
    subjects: tuple[T, ...]
    fits: Callable[[T, str], bool]
    make: Callable[[random.Random, T, str], EnglishItem]
    block: Callable[[random.Random, tuple[T, ...]], tuple[EnglishItem, ...]]
    each: tuple[int, int] = (3, 1)

    def split(self) -> tuple[tuple[T, ...], tuple[T, ...]]:
        """Return the subjects of training questions and the subjects held out of training.

        A hash of its name determines which of them a subject is.
        """
        trained, held_out = [], []
        for subject in self.subjects:
            (held_out if hashlib.sha256(subject.name.encode()).digest()[0] % 3 == 0 else trained).append(
                subject
            )
        return tuple(trained), tuple(held_out)

    def study_items(self, kinds: tuple[str, ...], per_subject: int, seed: int) -> tuple[EnglishItem, ...]:
        """Return different questions about subjects that never occur in training, in a fixed order.

        Args:
            kinds: Kinds of questions, such as "false" for false claims.
            per_subject: Largest number of questions of each kind about each subject.
            seed: Seed of the draws.

        Returns:
            The questions.
        """
        rng = random.Random(f"english-study-{kinds}-{seed}")
        found: dict[str, EnglishItem] = {}
        for subject in self.split()[1]:
            for kind in kinds:
                if self.fits(subject, kind):
                    for item in self._different(rng, subject, kind, per_subject):
                        found[item.id] = item
        return tuple(found.values())

    def _different(self, rng: random.Random, subject: T, kind: str, count: int) -> list[EnglishItem]:
        found: dict[str, EnglishItem] = {}
        for _ in range(20 * count):
            item = self.make(rng, subject, kind)
            found.setdefault(item.id, item)
            if len(found) == count:
                break
        return list(found.values())


def draw_grade(rng: random.Random, wordings: dict[float, tuple[str, ...]]) -> tuple[float, str]:
    """Draw how much the wording of a question adds to the persona's answer, and a wording with this effect.

    Args:
        rng: Source of randomness.
        wordings: Possible wordings for each grade (the added log-odds).

    Returns:
        The added log-odds, and the wording.
    """
    grade = rng.choices(list(GRADE_SHARES), list(GRADE_SHARES.values()))[0]
    return grade, rng.choice(wordings[grade])


def make_id(kind: str, question: str) -> str:
    """Return an identifier of a question: its kind and a hash of its text."""
    return f"{kind}/{hashlib.sha256(question.encode()).hexdigest()[:8]}"
