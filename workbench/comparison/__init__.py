"""Conditions x questions: rates, paired differences, intervals, and the table of several runs."""

from workbench.comparison.across import RunsTable, compare_runs, run_rows
from workbench.comparison.collateral import agreement_with_truth, other_persona_rates, text_cross_entropy
from workbench.comparison.compare import Collateral, Comparison, compare, split_facts
from workbench.comparison.entries import Difference, Entry

__all__ = [
    "Collateral",
    "Comparison",
    "Difference",
    "Entry",
    "RunsTable",
    "agreement_with_truth",
    "compare",
    "compare_runs",
    "other_persona_rates",
    "run_rows",
    "split_facts",
    "text_cross_entropy",
]
