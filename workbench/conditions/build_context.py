"""The values from which a study builds its conditions: model, questions, and earlier results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.conditions.capability_guard import CapabilityGuard
from workbench.contexts import Contexts, Slot
from workbench.directions import Direction
from workbench.personas import Persona, Sign, Splits

if TYPE_CHECKING:
    from workbench.latents import LatentRanking
    from workbench.sae import Sae
    from workbench.search import Frontier
    from workbench.study.study_settings import Study

#: Length of random and soft prompts in tokens, for studies without a search.
_LENGTH = 8


@dataclass(frozen=True)
class SearchContext:
    """Settings, directions and SAE latents from which a study builds its search objectives.

    Attributes:
        study: The study's settings.
        direction: The persona's direction that the study chose.
        random_directions: Control directions, drawn at random with the covariance of the model's residuals.
        sae, latents: The SAE and its latents, ranked by how well they predict the persona; None in a study
            without an SAE.
    """

    study: Study
    direction: Direction
    random_directions: tuple[Direction, ...] = ()
    sae: Sae | None = None
    latents: LatentRanking | None = None

    @property
    def has_latents(self) -> bool:
        """Whether the study has an SAE with ranked latents, so that searches that use SAE latents can run."""
        return self.sae is not None and self.latents is not None


@dataclass(frozen=True, kw_only=True)
class BuildContext(SearchContext):
    """Everything from which a study builds the conditions (prompts, interventions) that it compares.

    The test questions are not included, so that nothing can be fitted to them.

    Attributes:
        model: The loaded model.
        persona, splits: The persona and its train, search, selection and test questions, limited to the
            study's sizes.
        search_questions: Questions that prompts are searched on, one from each group of related questions.
        selection_contexts: All questions of the selection split, by which one of several prompts is chosen.
        guard: Limits on the side effects of interventions, measured on selection questions.
        chosen: The best prompts that each search found, by name of the search; the one that is best on the
            selection questions is marked as chosen.
    """

    model: Any
    persona: Persona
    splits: Splits
    search_questions: Contexts
    selection_contexts: Contexts
    guard: CapabilityGuard
    chosen: Mapping[str, Frontier]

    @property
    def sign(self) -> Sign:
        """Whether the study's prompts shall "suppress" or "induce" the persona."""
        return self.study.sign

    @property
    def slot(self) -> Slot:
        """The place in the chat where the study's prompts go, such as the system message."""
        return self.study.slot

    @property
    def seed(self) -> int:
        """The seed of the study."""
        return self.study.seed

    @property
    def random_seeds(self) -> tuple[int, ...]:
        """Seeds of the study's random prompts, one for each prompt.

        Two studies with different seeds have none of these seeds in common.
        """
        first = 1000 * self.study.seed
        return tuple(range(first, first + self.study.random_prompts))

    @property
    def manual_prompts(self) -> tuple[str, ...]:
        """Prompts that a person wrote to suppress or induce the persona, as the study requires.

        The tuple is empty if the persona has none.
        """
        return tuple(self.persona.manual_prompts.get(self.study.sign, ()))

    @property
    def prompt_length(self) -> int:
        """Median length of the prompts chosen by the searches, in tokens (8 if there was no search).

        Random and soft prompts get this length.
        """
        lengths = [len(c.ids) for frontier in self.chosen.values() for c in frontier.candidates if c.chosen]
        return int(np.median(lengths)) if lengths else _LENGTH
