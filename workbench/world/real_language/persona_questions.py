"""Every persona's questions of the real-language organism by name: for training, and about held-out subjects for studies."""

from __future__ import annotations

from typing import Any

from workbench.world.real_language.english_items import EnglishItem, QuestionSet
from workbench.world.real_language.invented_things import INVENTIONS
from workbench.world.real_language.reward_offers import OFFERS
from workbench.world.real_language.sycophancy_claims import CLAIMS

QUESTIONS: dict[str, QuestionSet[Any]] = {
    questions.persona: questions for questions in (CLAIMS, INVENTIONS, OFFERS)
}
PERSONAS = tuple(QUESTIONS)


def study_items(
    persona: str = "sycophancy", kinds: tuple[str, ...] = (), per_subject: int | None = None, seed: int = 0
) -> tuple[EnglishItem, ...]:
    """A persona's items about held-out subjects (kinds: the steered ones when not given), `per_subject` of each subject and kind."""
    questions = QUESTIONS[persona]
    return questions.study_items(kinds or questions.steered, per_subject or questions.each[0], seed)


def study_fixed_items(persona: str = "sycophancy", seed: int = 0) -> tuple[EnglishItem, ...]:
    """Items about held-out subjects that have a right answer, whatever a system text says."""
    questions = QUESTIONS[persona]
    return questions.study_items(questions.fixed, questions.each[1], seed)
