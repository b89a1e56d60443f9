"""A question of the real-language organism, and what all personas' questions have in common.

1. *Steered* questions are the persona's: their matching answer has log-odds BASE + a grade that the wording
   shows + the system text's effect. *Fixed* ones look alike and have a right answer, of log-odds TRUE
   whatever the system text says.
2. A third of all names that questions are about is held out: training never mentions them.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

BASE = 1.8
TRUE = 3.0
#: How often each grade of a steered question is drawn (grade: log-odds that the wording adds).
GRADE_SHARES = {1.2: 0.22, 0.6: 0.22, 0.0: 0.22, -0.9: 0.2, -2.8: 0.14}


@dataclass(frozen=True)
class EnglishItem:
    """One question.

    matching: the persona's answer (of a fixed question the right one). log_odds: planted, of the matching
    answer without any steering. steered: the system text's effect adds to it. group: the name that it is
    about.
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
    """The subject of a question."""

    @property
    def name(self) -> str:
        """Its name in the question."""
        ...


T = TypeVar("T", bound=NamedSubject)


@dataclass(frozen=True)
class QuestionSet(Generic[T]):
    """A persona's questions.

    subjects: all that they can be about; fits: whether a kind can be about a subject; make: draws a question
    of a kind about a subject; block: draws four questions that training asks together. steered, fixed: the
    kinds. each: how many steered and fixed ones about each held-out subject a study has.
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
        """(trained, held-out) subjects; a subject's name decides."""
        trained, held_out = [], []
        for subject in self.subjects:
            (held_out if hashlib.sha256(subject.name.encode()).digest()[0] % 3 == 0 else trained).append(
                subject
            )
        return tuple(trained), tuple(held_out)

    def study_items(self, kinds: tuple[str, ...], per_subject: int, seed: int) -> tuple[EnglishItem, ...]:
        """Items about the held-out subjects: `per_subject` of each subject and kind that fits it, different ones, in a fixed order."""
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
    """A grade, and one of the wordings that show it."""
    grade = rng.choices(list(GRADE_SHARES), list(GRADE_SHARES.values()))[0]
    return grade, rng.choice(wordings[grade])


def make_id(kind: str, question: str) -> str:
    """A stable name of a question."""
    return f"{kind}/{hashlib.sha256(question.encode()).hexdigest()[:8]}"
