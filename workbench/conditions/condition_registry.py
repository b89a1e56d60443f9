"""The registries of condition kinds and study conditions; each file of this package adds its own.

1. A *kind* is the value of `kind` in comparison.json. It belongs to a group, by which reports colour
   conditions, and it may be the control of some claims.
2. A *study condition* is a name that a study lists under `conditions`. Several names may have one kind:
   steering at all positions and steering at the prompt's tokens have the kind "steering".
3. A study condition has a search recipe if a search finds its prompts, otherwise a function that builds it
   (or both).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from workbench.registry import Registry

if TYPE_CHECKING:
    from workbench.conditions.build_context import BuildContext, SearchContext
    from workbench.conditions.condition import Condition
    from workbench.objectives import Objective
    from workbench.study.study_settings import Study

#: Groups of conditions with their titles; reports list and colour conditions by group, in this order.
GROUPS: dict[str, str] = {
    "found": "Prompts found by looking inside the model",
    "answer": "Prompts found by the answer alone",
    "written": "Prompts written or proposed",
    "inside": "Steering inside the model, no prompt",
    "control": "Controls and reference points",
}
Group = Literal["found", "answer", "written", "inside", "control"]

#: Claims that a run can support about its chosen prompt, in the order of reports; `comparison.claims` judges
#: them.
CLAIMS: dict[str, str] = {
    "works": "more than no prompt, random or neutral text",
    "optimizer_matters": "more than random tries at the same objective",
    "direction_is_specific": "more than along random directions",
    "internals_matter": "more than searching the answer, at equal cost",
    "better_than_writing": "more than the best sentence by a person",
    "clean": "true statements, other personas, capability kept",
}
Claim = Literal[
    "works", "optimizer_matters", "direction_is_specific", "internals_matter", "better_than_writing", "clean"
]


@dataclass(frozen=True)
class ConditionKind:
    """Properties that all conditions of one kind have in common.

    A condition is a prompt, an intervention or a reference point that a study compares.

    Attributes:
        kind: Value of `kind` in comparison.json, such as "random_text".
        group: Group by which reports list and colour the kind, a key of `GROUPS`.
        description: One line, without a full stop, that says what such a condition is.
        label: Label for readers; if empty, `kind` without underscores.
        control_of: Claims of the report, such as "better_than_writing", for which this kind is a control: the
            chosen prompt must have a larger effect.
        same_search_as: Kinds whose search this kind repeats with one thing changed, such as a random
            direction. It is a control of these kinds only; if empty, of all kinds.
        is_reference: True for reference points, such as no prompt and constant answers, which are not tested
            and do not count as controls.
    """

    kind: str
    group: Group
    description: str
    label: str = ""
    control_of: tuple[Claim, ...] = ()
    same_search_as: tuple[str, ...] = ()
    is_reference: bool = False

    @property
    def is_control(self) -> bool:
        """Whether the kind is a control, that is, the chosen prompt must have a larger effect.

        These are the kinds of the group "control" that are not mere reference points.
        """
        return self.group == "control" and not self.is_reference

    @property
    def is_tested(self) -> bool:
        """Whether the kind is expected to have an effect, so that a comparison tests it against no prompt.

        This holds for every kind but controls and reference points. Unless a comparison names its primary
        conditions (those that count as tests), p-values are corrected for all conditions of such kinds.
        """
        return not (self.is_control or self.is_reference)


@dataclass(frozen=True)
class SearchRecipe:
    """How a study searches for the prompts of one condition (one of the methods that it compares).

    Attributes:
        objectives: Function from the study's directions and latents to a mapping from the name of each search
            to its objective (plus = more of the persona).
        method: Name of the search method; None for the method in the study's settings.
        reads_answer: True if the objective is the log-odds of the answer itself, which need all layers of the
            model and a question.
        needs_sae: True if the search needs an SAE; a study without one leaves the condition out.
        names: Function from the study's settings to the names of the searches, from which the cost is
            estimated; with None there is one search, named like the condition.
    """

    objectives: Callable[[SearchContext], Mapping[str, Objective]]
    method: str | None = None
    reads_answer: bool = False
    needs_sae: bool = False
    names: Callable[[Study], Sequence[str]] | None = None


@dataclass(frozen=True)
class StudyCondition:
    """A name that a study can list under `conditions`, and how its prompts or interventions are made.

    Attributes:
        name: The name; also the first word of the names of its searches.
        kind: Value of `kind` in comparison.json, a key of `CONDITION_KINDS`.
        description: One line, without a full stop, that says what is done.
        build: Function from the study's values to conditions, which it fits to train and search questions and
            chooses on selection questions. None if the prompts found by `search` are all.
        search: How prompts are searched for; None without a search.
        is_default: True if a study that lists no conditions includes this one.
        needs_sae: True if it needs an SAE; a study without one leaves the condition out.
        order: Position among the names; lower comes first.
    """

    name: str
    kind: str
    description: str
    build: Callable[[BuildContext], Sequence[Condition]] | None = None
    search: SearchRecipe | None = None
    is_default: bool = False
    needs_sae: bool = False
    order: int = 100

    def searches(self, study: Study) -> tuple[str, ...]:
        """Return the names of the searches that a study with these settings runs; empty for none."""
        if self.search is None:
            return ()
        return (self.name,) if self.search.names is None else tuple(self.search.names(study))


CONDITION_KINDS: Registry[ConditionKind] = Registry(
    "condition kind", "workbench.conditions", lambda kind: list(GROUPS).index(kind.group)
)
STUDY_CONDITIONS: Registry[StudyCondition] = Registry(
    "condition", "workbench.conditions", lambda condition: condition.order
)


def register_kind(kind: ConditionKind) -> ConditionKind:
    """Register a kind of condition (prompt, intervention, reference point) and return it."""
    return CONDITION_KINDS.add(kind.kind, kind, through=__file__)


def register_study_condition(condition: StudyCondition) -> StudyCondition:
    """Register a study condition under the name that a study's settings list, and return it."""
    return STUDY_CONDITIONS.add(condition.name, condition, through=__file__)


def default_conditions() -> tuple[str, ...]:
    """Return the names of the conditions that a study compares if its settings list none."""
    return tuple(name for name, condition in STUDY_CONDITIONS.items() if condition.is_default)


def default_primary() -> tuple[str, ...]:
    """Return the default primary conditions of a study: prompts found with the model's internals."""
    return tuple(
        name for name in default_conditions() if CONDITION_KINDS[STUDY_CONDITIONS[name].kind].group == "found"
    )


def claim_label(claim: str) -> str:
    """Return the label of a claim of the report: "optimizer_matters" gives "optimiser matters"."""
    return claim.replace("optimizer", "optimiser").replace("_", " ")


def kind_label(word: str) -> str:
    """Return the label of a condition kind, such as "RESGA" or "random text".

    A word that is no registered kind is returned with spaces instead of underscores.
    """
    kind = CONDITION_KINDS.get(word)
    return kind.label if kind is not None and kind.label else word.replace("_", " ")
