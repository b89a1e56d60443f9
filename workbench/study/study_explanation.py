"""Explain in words what a study will do and cost, before any weight is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from workbench.conditions import STUDY_CONDITIONS
from workbench.personas import Persona, load_persona
from workbench.study.cost_estimate import CostEstimate, duration, plan
from workbench.study.study_settings import Study

_SLOTS = {
    "system": "in the system message",
    "before_question": "before the question",
    "after_question": "after the question",
    "answer_opening": "at the beginning of the model's answer",
}


@dataclass(frozen=True)
class StudyExplanation:
    """Explanation of a study in sections of sentences.

    Attributes:
        sections: Sentences of each section by its heading.
        cost: The cost estimate that the last section quotes.
    """

    sections: dict[str, tuple[str, ...]]
    cost: CostEstimate

    def __str__(self) -> str:
        return "\n\n".join(
            "\n".join([title, *(f"  - {line}" for line in lines)]) for title, lines in self.sections.items()
        )


def explain_study(study: Study) -> StudyExplanation:
    """Explain which question a study answers, its data, steps and conditions, and its estimated cost.

    Args:
        study: The settings, with relative paths resolved as by `Study.load`.

    Returns:
        The explanation; `str()` of it is the text that `workbench explain` prints.

    Raises:
        UserError: The persona is unknown, or the model's sizes or the data file cannot be found.

    Example:
        >>> from workbench.study import Study
        >>> list(explain_study(Study()).sections)
        ['Question', 'Data', 'Steps', 'Compared conditions', 'Estimated cost']
    """
    cost = plan(study)
    return StudyExplanation(
        {
            "Question": tuple(_question(study)),
            "Data": tuple(_data(study)),
            "Steps": tuple(_steps(study, cost)),
            "Compared conditions": tuple(_conditions(study)),
            "Estimated cost": tuple(_cost(cost)),
        },
        cost,
    )


def _question(study: Study) -> list[str]:
    less = "less" if study.sign == "suppress" else "more"
    lines = [
        f"Which prompt makes {study.model.name} show {less} {study.persona}? The prompt is placed {_SLOTS[study.slot]}."
    ]
    lines += [
        f"The searches also {sign} {name} (weight {study.beside_weight:g})."
        for name, sign in study.beside.items()
    ]
    lines += [f"Caution, {departure}." for departure in study.protocol.departures]
    return lines


def _data(study: Study) -> list[str]:
    path = study.data.path
    if path is not None and not Path(path).is_file():
        return [f"{path} is not here; the published file's size is assumed."]
    persona = study.protocol.persona(load_persona(study.persona, path, study.data.world))
    return [*_splits(study, persona), f"Answers are scored by {_scored(study, persona)}.", *persona.warnings]


def _splits(study: Study, persona: Persona) -> list[str]:
    splits = persona.split(study.data.split_seed, study.data.fractions)
    uses = {
        "train": "fits directions and latents",
        "search": "scores prompts",
        "selection": "chooses among prompts and strengths",
    }
    uses["test"] = "is read once, for the comparison"
    lines = []
    for name, use in uses.items():
        split, limit = getattr(splits, name), getattr(study.data, f"{name}_items")
        used = (
            f"{min(limit, len(split))} of {len(split)}"
            if limit is not None and limit < len(split)
            else str(len(split))
        )
        lines.append(f"{name}: {used} questions in {len(set(split.groups))} groups; it {use}.")
    return lines


def _scored(study: Study, persona: Persona) -> str:
    if (study.metric or persona.metric) == "text":
        return "the log-odds of the whole answer texts"
    orders = "both option orders" if study.protocol.orders == "both" else "the published option order"
    return f"the log-odds of the two option letters, in {orders}"


def _steps(study: Study, cost: CostEstimate) -> list[str]:
    searches = [
        stage.name.removeprefix("search ").strip() for stage in cost.stages if stage.name.startswith("search")
    ]
    layers = (
        "every block"
        if study.directions.layers is None
        else f"block {', '.join(map(str, study.directions.layers))}"
    )
    limits = ", ".join(
        f"{value:g} {name.replace('_', ' ')}"
        for name, value in study.search.budget.model_dump(exclude_none=True).items()
    )
    lines = [
        f"Directions are fitted at {layers} and ranked by how well they predict the effect of {study.directions.texts} system texts."
    ]
    if any(stage.name == "latents" for stage in cost.stages):
        lines.append(f"SAE latents are ranked; the best {study.latents} make SAEGA's objective.")
    if searches:
        lines.append(
            f"{len(searches)} searches with {study.search.method}, each with at most {limits}: {', '.join(searches)}."
        )
    lines.append(
        "All conditions answer the test questions; differences from no prompt have 95 % intervals over question groups."
    )
    circuit = (
        f", and a circuit of {study.attribution.circuit} heads and MLPs" if study.attribution.circuit else ""
    )
    lines.append(
        f"The best prompt's effect is attributed to its tokens ({', '.join(study.attribution.estimators)}){circuit}."
    )
    lines.append("report.html is written.")
    return lines


def _conditions(study: Study) -> list[str]:
    no_sae = study.sae == "none" or (study.sae == "auto" and study.model.name != "organism")
    lines = ["no prompt: the reference"]
    for name in study.conditions:
        entry = STUDY_CONDITIONS[name]
        needs = entry.needs_sae or (entry.search is not None and entry.search.needs_sae)
        primary = " (primary: Holm's correction covers it)" if name in study.primary else ""
        lines.append(
            f"{name}: {entry.description}{' (left out: the study has no SAE)' if needs and no_sae else primary}"
        )
    return lines


def _cost(cost: CostEstimate) -> list[str]:
    last = cost.table.iloc[-1]
    lines = [f"{last['tflops']:,.3g} TFLOP in all."]
    for machine in cost.machines:
        seconds, memory = last[f"{machine.name} s"], last[f"{machine.name} GB"]
        fits = "does not fit" if seconds is None or seconds != seconds else f"about {duration(seconds)}"
        lines.append(f"{machine.name}: {fits}, {memory:.1f} GB for weights and activations at the peak.")
    about = "Times are for the arithmetic and, on GPUs, for starting kernels: estimates, not measurements."
    return [*lines, f"{about} `workbench plan` shows every stage.", *cost.notes]
