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
    """Values from which a study builds the objectives of its searches.

    Attributes:
        study: The study's settings.
        direction: The chosen direction of the persona.
        random_directions: Random directions drawn with the covariance of the residuals.
        sae, latents: The SAE and its ranked latents, or None in a study without an SAE.
    """

    study: Study
    direction: Direction
    random_directions: tuple[Direction, ...] = ()
    sae: Sae | None = None
    latents: LatentRanking | None = None

    @property
    def has_latents(self) -> bool:
        """Whether the study has an SAE and ranked latents of it, so that SAE-based searches can run."""
        return self.sae is not None and self.latents is not None


@dataclass(frozen=True, kw_only=True)
class BuildContext(SearchContext):
    """Values from which a study builds its conditions; the test split is not among them.

    Attributes:
        model: The loaded model.
        persona, splits: The persona and its splits, limited to the sizes in the study's settings.
        search_questions: The search questions, one per group of related questions.
        selection_contexts: All contexts of the selection split.
        guard: Limits on the side effects of steering, measured on selection data.
        chosen: The frontier of each search by the search's name; the prompt that is best on selection data is
            marked as chosen.
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
        """Seeds of the study's random prompts, one each.

        Studies with different seeds have none of these seeds in common.
        """
        first = 1000 * self.study.seed
        return tuple(range(first, first + self.study.random_prompts))

    @property
    def manual_prompts(self) -> tuple[str, ...]:
        """The persona's manual prompts for the study's sign; empty if it has none."""
        return tuple(self.persona.manual_prompts.get(self.study.sign, ()))

    @property
    def prompt_length(self) -> int:
        """Median length of the prompts chosen by the searches, in tokens (8 if there was no search).

        Random and soft prompts get this length.
        """
        lengths = [len(c.ids) for frontier in self.chosen.values() for c in frontier.candidates if c.chosen]
        return int(np.median(lengths)) if lengths else _LENGTH
