"""Comparison of conditions on questions: rates, paired differences, claims, and tables of several runs."""

from workbench.comparison.claims import (
    ClaimResult,
    ClaimResults,
    chosen_condition,
    claims_of_run,
    judge_claims,
)
from workbench.comparison.compare_conditions import ComparisonOptions, OffTargetMeasures, compare, split_facts
from workbench.comparison.compare_runs import RunsTable, compare_runs, read_comparison, run_rows
from workbench.comparison.comparison import Comparison
from workbench.comparison.condition_results import ConditionDifference, ConditionResult
from workbench.comparison.off_target import (
    OffTargetAnswers,
    agreement_with_truth,
    other_persona_rates,
    text_cross_entropy,
    unrelated_text,
)
from workbench.comparison.question_changes import question_changes, questions_of_run
from workbench.comparison.second_judge import judged

__all__ = [
    "ClaimResult",
    "ClaimResults",
    "Comparison",
    "ComparisonOptions",
    "ConditionDifference",
    "ConditionResult",
    "OffTargetAnswers",
    "OffTargetMeasures",
    "RunsTable",
    "agreement_with_truth",
    "chosen_condition",
    "claims_of_run",
    "compare",
    "compare_runs",
    "judge_claims",
    "judged",
    "other_persona_rates",
    "question_changes",
    "questions_of_run",
    "read_comparison",
    "run_rows",
    "split_facts",
    "text_cross_entropy",
    "unrelated_text",
]
