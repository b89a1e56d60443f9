"""What conditions there are: each file of this package registers its kind and, where a study can name it, how a study builds it.

1. A *kind* is the word of comparison.json. It belongs to a group, which reports colour it by, and may be a
   control of some claims.
2. A *study condition* is a name of a study's `conditions`; several names may be of one kind (steering
   everywhere, at the prompt).
3. A condition that is found by a search says which objectives it searches with; one that is made otherwise
   says how.
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

#: The groups that reports list and colour conditions by, in that order, with their titles.
GROUPS: dict[str, str] = {
    "found": "Prompts found by looking inside the model",
    "answer": "Prompts found by the answer alone",
    "written": "Prompts written or proposed",
    "inside": "Steering inside the model, no prompt",
    "control": "Controls and reference points",
}
Group = Literal["found", "answer", "written", "inside", "control"]

#: What a run can show of its chosen prompt, in the order in which it is said (`comparison.claims` judges
#: them).
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
    """What every condition of one kind has in common.

    Attributes:
        kind: The word of comparison.json.
        group: The group that reports list and colour it by, a key of `GROUPS`.
        description: What it is, in one line without a full stop.
        label: How a reader sees the word; the word without underscores where empty.
        control_of: Claims that are judged against it; empty for none.
        same_search_as: Kinds whose search it repeats with one thing changed: it is their control and no
            other's; empty: any kind's.
        is_reference: True for what is shown to compare with and is neither tested nor a control (no prompt, a
            constant answer).
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
        """True for what is there to be outdone: in the group of controls, and no mere reference."""
        return self.group == "control" and not self.is_reference

    @property
    def is_tested(self) -> bool:
        """True where it is meant to work: a comparison that names no primary conditions corrects over these."""
        return not (self.is_control or self.is_reference)


@dataclass(frozen=True)
class SearchRecipe:
    """How a study searches for a condition's prompts.

    Attributes:
        objectives: From a study's directions and latents to the objectives by the searches' names; plus =
            more of the persona.
        method: The search method's name; None for the study's own.
        reads_answer: True where the objective is the answer: it runs the whole depth of the model and needs a
            question.
        needs_sae: True where it needs an SAE; a study without one leaves the condition out.
        names: The searches' names as far as the study's settings say (for the cost estimate).
    """

    objectives: Callable[[SearchContext], Mapping[str, Objective]]
    method: str | None = None
    reads_answer: bool = False
    needs_sae: bool = False
    names: Callable[[Study], Sequence[str]] | None = None


@dataclass(frozen=True)
class StudyCondition:
    """A name that a study can list under `conditions`.

    Attributes:
        name: The name; also the first word of its searches' names.
        kind: The word of comparison.json, registered in `CONDITION_KINDS`.
        description: What is done, in one line without a full stop.
        build: From the study's values to conditions, fitted on train and search data and chosen on selection;
            may be left out where there is a search (its chosen prompts are the conditions).
        search: How its prompts are searched for, if they are.
        is_default: True where a study that lists no conditions has it.
        needs_sae: True where it needs an SAE; a study without one leaves the condition out.
        order: Place among the names; lower comes first.
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
        """Names of the searches that the study runs for it."""
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
    """Registers a kind under its word."""
    return CONDITION_KINDS.add(kind.kind, kind, through=__file__)


def register_study_condition(condition: StudyCondition) -> StudyCondition:
    """Registers a name that studies can list."""
    return STUDY_CONDITIONS.add(condition.name, condition, through=__file__)


def default_conditions() -> tuple[str, ...]:
    """The conditions of a study that names none: what every comparison needs and what costs little."""
    return tuple(name for name, condition in STUDY_CONDITIONS.items() if condition.is_default)


def default_primary() -> tuple[str, ...]:
    """The conditions that such a study is about: those found by looking inside the model."""
    return tuple(
        name for name in default_conditions() if CONDITION_KINDS[STUDY_CONDITIONS[name].kind].group == "found"
    )


def claim_label(claim: str) -> str:
    """A claim as a reader sees it: "optimiser matters"."""
    return claim.replace("optimizer", "optimiser").replace("_", " ")


def kind_label(word: str) -> str:
    """A kind as a reader sees it: "RESGA", "random text"; any other word without underscores."""
    kind = CONDITION_KINDS.get(word)
    return kind.label if kind is not None and kind.label else word.replace("_", " ")
