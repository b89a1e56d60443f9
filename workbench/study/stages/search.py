"""Search stages: one stage for each search of a study, resumed from its checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError
from typing_extensions import override

from workbench.conditions import SearchContext, search_objectives
from workbench.contexts import Contexts
from workbench.directions import Direction
from workbench.errors import UserError
from workbench.models import runner_for
from workbench.objectives import Objective, hold_direction, projection
from workbench.prompt_tokens import encode_prompt
from workbench.runs import read_run_file, read_table, read_timings, write_run_file, write_table
from workbench.schema import SearchFile, SearchStepRow, TimingsFile
from workbench.search import (
    SEARCH_METHODS,
    Checkpoint,
    Frontier,
    Optimizations,
    SearchMethod,
    SearchProgress,
    search,
)
from workbench.study.context import StudyContext
from workbench.study.material import Material
from workbench.study.stages.stage import Stage
from workbench.study.study_settings import Study


class SearchStage(Stage):
    """Stage of a study that runs one search for prompts and saves the found prompts and its history.

    Attributes:
        search_name: Name of the search.
        objective: Quantity that the search optimizes, before its scale is calibrated; positive means more of
            the persona.
        method: Registered name of the search method.
    """

    def __init__(self, search_name: str, objective: Objective, method: str) -> None:
        self.search_name, self.objective, self.method = search_name, objective, method
        self.name = f"search {search_name}"  # type: ignore[misc]
        self.stem = f"search/{search_name.replace(' ', '_')}"

    @override
    def files(self, context: StudyContext) -> tuple[str, ...]:
        return f"{self.stem}.json", f"{self.stem}.parquet"

    @override
    def compute(self, context: StudyContext) -> None:
        context.directory.note_times(self.compute_files(context))

    def compute_files(self, context: StudyContext) -> TimingsFile:
        """Run the search and write the found prompts and the history.

        Args:
            context: State of the study.

        Returns:
            Times of the search, which the caller writes to a file that all stages share.
        """
        checkpoint = Checkpoint(
            context.directory.file(f"{self.stem}.checkpoint.safetensors"), ends_on_interrupt=True
        )
        objective = with_other_personas(context.study, self.objective, context.other_directions)
        found = run_search(context.material, objective, self.method, checkpoint, context.progress(self.name))
        write_run_file(context.directory.file(f"{self.stem}.json"), found.to_file())
        write_table(
            context.directory.file(f"{self.stem}.parquet"),
            found.history.drop(columns="seconds"),
            SearchStepRow,
        )
        return TimingsFile(searches={self.search_name: found.times})

    @override
    def load(self, context: StudyContext) -> StudyContext:
        context.directory.file(f"{self.stem}.checkpoint.safetensors").unlink(missing_ok=True)
        file, history = (context.directory.file(name) for name in self.files(context))
        times = read_timings(context.directory.path).searches.get(self.search_name)
        found = Frontier.from_file(read_run_file(file, SearchFile), read_table(history, SearchStepRow), times)
        return replace(context, searches={**context.searches, self.search_name: found})


def search_stages(context: StudyContext) -> list[Stage]:
    """Build a stage for every search that the study's conditions (compared prompts) need.

    Args:
        context: State of the study after its directions and latents.
    """
    directions = context.directions
    assert directions is not None
    known = SearchContext(
        context.study, directions.best, directions.randoms, context.material.sae, context.latents
    )
    return [
        SearchStage(name, *made) for name, made in search_objectives(context.study.conditions, known).items()
    ]


def run_search(
    material: Material,
    objective: Objective,
    method: str,
    checkpoint: Checkpoint | None,
    on_step: Callable[[SearchProgress], None] | None,
) -> Frontier:
    """Run one search for prompts that show less or more of the persona, as the study's settings say.

    The scale of the objective is first calibrated on neutral prompts.

    Args:
        material: Model, persona, questions and settings of the study.
        objective: Quantity to optimize; positive means more of the persona.
        method: Registered name of the search method.
        checkpoint: File from which the search is resumed; None for none.
        on_step: Called after each step; None for none.

    Returns:
        The prompts that the search found.
    """
    study, s = material.study, material.study.search
    contexts = (
        material.search_contexts if objective.sites else material.search_questions
    )  # an objective on the answer always needs a question
    scaled = objective.calibrate(
        material.model,
        contexts,
        n=s.neutral,
        length=make_method(study, method).length,
        seed=study.seed,
        batch_tokens=s.batch_tokens,
    )
    goal = scaled if study.sign == "induce" else -scaled
    return search(
        material.model,
        goal,
        contexts,
        with_limit(material, contexts, started(material, contexts, make_method(study, method))),
        s.budget,
        study.seed,
        optimizations=Optimizations(halving=s.halving),
        batch_tokens=s.batch_tokens,
        lexicon=material.lexicon,
        on_step=on_step,
        checkpoint=checkpoint,
    )


def make_method(study: Study, name: str) -> SearchMethod:
    """Build a search method with the study's options, as far as the method has them.

    Args:
        study: The settings.
        name: Registered name of the method.

    Raises:
        UserError: An option is invalid.
    """
    kind, options = SEARCH_METHODS[name], study.search.options
    if name != study.search.method:
        options = {
            k: v for k, v in options.items() if k in kind.model_fields and k not in ("population", "children")
        } | _shared(kind, options)
    try:
        return kind(**options)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            f"search.options.{'.'.join(map(str, first['loc']))}: {first['msg']} (found {first.get('input')!r})"
        ) from error


def _shared(kind: type[SearchMethod], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return population and children of a method that serves as a control.

    They are the study's own; a method that keeps one prompt gets the children of the whole population.
    """
    if kind.keeps_one_prompt:
        return {"children": options.get("population", 8) * options.get("children", 32)}
    return {k: options[k] for k in ("population", "children") if k in options and not kind.any_length}


def started(material: Material, contexts: Contexts, method: SearchMethod) -> SearchMethod:
    """Return a search method that starts where the study's settings say.

    If the study says so, the start is the persona's first prompt that a person wrote, repeated or cut to the
    method's number of tokens. Otherwise the method is returned unchanged and starts from random tokens.

    Args:
        material: Model, persona, questions and settings of the study.
        contexts: Questions of the search, in whose chat template the prompt is tokenized.
        method: The search method.

    Raises:
        UserError: The persona has no written prompt for the study's aim (less or more of the persona).
    """
    if material.study.search.start == "random":
        return method
    prompts = material.persona.manual_prompts.get(material.study.sign, ())
    if not prompts:
        raise UserError(
            f"persona {material.persona.name!r} has no manual prompt to {material.study.sign} that a search could start from"
        )
    if method.any_length:
        return method.model_copy(update={"start_text": prompts[0]})
    ids = encode_prompt(material.model, contexts, prompts[0])
    filled = (ids * -(-method.length // len(ids)))[: method.length]
    return method.model_copy(update={"start_text": runner_for(material.model).decode(filled)})


def with_limit(material: Material, contexts: Contexts, method: SearchMethod) -> SearchMethod:
    """Return a search method over sentences with the study's limit on the prompts' cross-entropy.

    The limit is the setting `search.max_cross_entropy` or, by default, the mean cross-entropy of the
    persona's prompts that a person wrote. Other methods are returned unchanged.

    Args:
        material: Model, persona, questions and settings of the study.
        contexts: Questions of the search, in whose chat template the written prompts are measured.
        method: The search method.
    """
    if (
        "max_cross_entropy" not in type(method).model_fields
        or "max_cross_entropy" in material.study.search.options
    ):
        return method
    limit = material.cross_entropy_limit(contexts, material.study.search.max_cross_entropy or "written")
    return method if limit is None else method.model_copy(update={"max_cross_entropy": limit})


def with_other_personas(study: Study, objective: Objective, others: Sequence[Direction]) -> Objective:
    """Add a term to a search objective for each other persona that the study also wants to control.

    A term lowers ("suppress"), raises ("induce") or keeps constant ("hold") the z-scored projection on the
    other persona's direction. `run_search` later multiplies the whole objective by the study's sign, so the
    terms are multiplied by that sign here as well.

    Args:
        study: The settings; `beside` says for each other persona what to do with it.
        objective: The objective of the study's own persona.
        others: Directions of the other personas, in the order of `beside`.
    """
    turn = study.beside_weight if study.sign == "induce" else -study.beside_weight
    for wanted, direction in zip(study.beside.values(), others, strict=True):
        term = (
            hold_direction(direction)
            if wanted == "hold"
            else projection(direction) * (1.0 if wanted == "induce" else -1.0)
        )
        objective = objective + turn * term
    return objective
