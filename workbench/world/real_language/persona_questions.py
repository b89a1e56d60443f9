"""The questions of the real-language organism by persona, for training and for studies."""

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
    """Return a persona's questions about subjects that never occur in training, with the answers Yes and No.

    Args:
        persona: Name of the persona.
        kinds: Kinds of questions; empty for all kinds whose answers the system text changes.
        per_subject: Largest number of questions of each kind about each subject; None for the persona's
            default.
        seed: Seed of the draws.

    Returns:
        The questions, in a fixed order.
    """
    questions = QUESTIONS[persona]
    return questions.study_items(kinds or questions.steered, per_subject or questions.each[0], seed)


def study_fixed_items(persona: str = "sycophancy", seed: int = 0) -> tuple[EnglishItem, ...]:
    """Return a persona's questions whose right answer no system text changes.

    They are about subjects that never occur in training.

    Args:
        persona: Name of the persona.
        seed: Seed of the draws.

    Returns:
        The questions.
    """
    questions = QUESTIONS[persona]
    return questions.study_items(questions.fixed, questions.each[1], seed)
