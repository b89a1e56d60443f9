"""What a study hands to the conditions that it builds: the model, its questions, and what was found before."""

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

#: Length of random and soft prompts where no search says one, tokens.
_LENGTH = 8


@dataclass(frozen=True)
class SearchContext:
    """What objectives are made of.

    Attributes:
        study: The study's settings.
        direction: The chosen direction.
        random_directions: Random ones with the residuals' covariance.
        sae, latents: The SAE and its ranked latents, None where the study has none.
    """

    study: Study
    direction: Direction
    random_directions: tuple[Direction, ...] = ()
    sae: Sae | None = None
    latents: LatentRanking | None = None

    @property
    def has_latents(self) -> bool:
        """True where there is an SAE with ranked latents."""
        return self.sae is not None and self.latents is not None


@dataclass(frozen=True, kw_only=True)
class BuildContext(SearchContext):
    """What conditions are made of. Nothing here sees the test split.

    Attributes:
        model: The loaded model.
        persona, splits: The persona and its limited splits.
        search_questions: The search questions, one a group.
        selection_contexts: All contexts of the selection split.
        guard: What steering may cost on selection data.
        chosen: The searches' frontiers by name, the best prompt on selection marked.
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
        """The wanted sign, `suppress` or `induce`."""
        return self.study.sign

    @property
    def slot(self) -> Slot:
        """Where the study's prompts are."""
        return self.study.slot

    @property
    def seed(self) -> int:
        """The study's seed."""
        return self.study.seed

    @property
    def random_seeds(self) -> tuple[int, ...]:
        """One seed for each random prompt that the study requests; studies of different seeds share none."""
        first = 1000 * self.study.seed
        return tuple(range(first, first + self.study.random_prompts))

    @property
    def manual_prompts(self) -> tuple[str, ...]:
        """The persona's manual prompts in the study's sign."""
        return tuple(self.persona.manual_prompts.get(self.study.sign, ()))

    @property
    def prompt_length(self) -> int:
        """The median length of the chosen prompts, tokens: what random prompts are matched to."""
        lengths = [len(c.ids) for frontier in self.chosen.values() for c in frontier.candidates if c.chosen]
        return int(np.median(lengths)) if lengths else _LENGTH
