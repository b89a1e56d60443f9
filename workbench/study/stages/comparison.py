"""Comparison stage: choose each search's prompt on the selection split, then read the test split once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from typing_extensions import override

from workbench.comparison import Comparison, ComparisonOptions, compare, judged
from workbench.conditions import BuildContext, Condition, build_conditions
from workbench.contexts import make_contexts
from workbench.runs import read_run_file, write_run_file, write_table
from workbench.schema import EvaluationRow, FrontierFile, OffTargetRow, QuestionRow, TimingsFile
from workbench.search import SEARCH_METHODS, Frontier, write_frontiers
from workbench.study.context import StudyContext
from workbench.study.material import Material, splits_of
from workbench.study.stages.stage import Stage


class ComparisonStage(Stage):
    """Stage of a study that measures every condition (a prompt or intervention) on the test questions."""

    name = "comparison"

    @override
    def files(self, context: StudyContext) -> tuple[str, ...]:
        return (
            "evaluation.parquet",
            "off_target.parquet",
            "questions.parquet",
            "comparison.json",
            "search/frontier.json",
            "search/history.parquet",
        )

    @override
    def compute(self, context: StudyContext) -> None:
        directory, chosen = context.directory, choose(context.material, context.searches)
        write_frontiers(directory.path, chosen)
        conditions = make_conditions(replace(context, chosen=chosen))
        context.report(self.name, 0.5)
        if context.study.protocol.choose_on == "test":
            directory.count_test_read()
        directory.count_test_read()
        comparison = compare_on_test(context, conditions)
        write_table(directory.file("evaluation.parquet"), comparison.rows, EvaluationRow)
        write_table(directory.file("off_target.parquet"), comparison.off_target_rows, OffTargetRow)
        write_table(directory.file("questions.parquet"), comparison.question_rows, QuestionRow)
        write_run_file(directory.file("comparison.json"), comparison.to_file())
        directory.note_times(
            TimingsFile(conditions={entry.name: entry.condition.cost.seconds for entry in comparison.entries})
        )

    @override
    def load(self, context: StudyContext) -> StudyContext:
        entries = read_run_file(context.directory.file("search/frontier.json"), FrontierFile).searches
        chosen = {
            name: Frontier.from_file(entries[name], found.history, found.times)
            for name, found in context.searches.items()
        }
        return replace(context, chosen=chosen)


def choose(material: Material, found: Mapping[str, Frontier]) -> dict[str, Frontier]:
    """Measure the prompts that each search found on selection questions, and mark the best one.

    Of a search over whole sentences, the shortest prompt is taken that is about as good as the best and does
    not lower the agreement with true statements (`Frontier.choose`). A study that follows the published
    protocol chooses among the first five prompts on test questions instead.

    Args:
        material: Model, persona, questions and settings of the study.
        found: Prompts that each search found, by the search's name.
    """
    limit = material.cross_entropy_limit(material.search_contexts, material.study.search.max_cross_entropy)
    if material.study.protocol.choose_on == "test":
        found = {
            name: replace(frontier, candidates=frontier.candidates[:5]) for name, frontier in found.items()
        }
    return {
        name: frontier.choose(
            material.model,
            material.selection_contexts,
            limit,
            truth=material.guard.truth if has_sentences(frontier) else None,
            shortest=has_sentences(frontier),
        )
        for name, frontier in found.items()
    }


def has_sentences(frontier: Frontier) -> bool:
    """Whether prompts come from a search over whole sentences, which may have any number of tokens.

    Args:
        frontier: The prompts that a search found.
    """
    return frontier.method in SEARCH_METHODS and SEARCH_METHODS[frontier.method].any_length


def make_conditions(context: StudyContext) -> list[Condition]:
    """Build all conditions that the study compares: found prompts, written prompts, steering and controls.

    They are fitted on train and search questions and chosen on selection questions. Test questions are not
    used.

    Args:
        context: State of the study after its searches.
    """
    material, directions = context.material, context.directions
    assert directions is not None
    return build_conditions(
        context.study.conditions,
        BuildContext(
            context.study,
            directions.best,
            directions.randoms,
            material.sae,
            context.latents,
            model=material.model,
            persona=material.persona,
            splits=material.splits,
            search_questions=material.search_questions,
            selection_contexts=material.selection_contexts,
            guard=material.guard,
            chosen=context.chosen,
        ),
    )


def compare_on_test(context: StudyContext, conditions: Sequence[Condition]) -> Comparison:
    """Compare all conditions on the test questions, and measure their side effects.

    Args:
        context: State of the study.
        conditions: The prompts, interventions and controls to compare.
    """
    study, material = context.study, context.material
    names = {condition.name for condition in conditions}
    options = ComparisonOptions(
        primary=tuple(name for name in study.primary if name in names),
        orders=study.protocol.orders,
        seed=study.seed,
        splits=splits_of(material.splits),
        collateral=context.off_target,
        model_name=study.model.name,
    )
    comparison = compare(
        material.model,
        material.splits.test,
        conditions,
        study.slot,
        sign=study.sign,
        metric=study.metric,
        options=options,
    )
    if material.judge is None:
        return comparison
    name, judge = material.judge
    return judged(
        comparison,
        judge,
        make_contexts(judge, material.splits.test, study.slot, metric=study.metric, n=8),
        name,
    )
