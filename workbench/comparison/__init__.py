"""Conditions x questions: rates, paired differences, intervals, and the table of several runs."""

from workbench.comparison.compare_conditions import Comparison, ComparisonOptions, OffTargetMeasures, compare, split_facts
from workbench.comparison.compare_runs import RunsTable, compare_runs, run_rows
from workbench.comparison.condition_results import ConditionDifference, ConditionResult
from workbench.comparison.off_target import agreement_with_truth, other_persona_rates, text_cross_entropy

__all__ = [
    "Comparison",
    "ComparisonOptions",
    "ConditionDifference",
    "ConditionResult",
    "OffTargetMeasures",
    "RunsTable",
    "agreement_with_truth",
    "compare",
    "compare_runs",
    "other_persona_rates",
    "run_rows",
    "split_facts",
    "text_cross_entropy",
]
