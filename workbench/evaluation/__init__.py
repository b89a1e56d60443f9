"""Metrics beyond the forced choice of a comparison: open answers and their judges, TruthfulQA's scores, what else a prompt moved."""

from workbench.evaluation.export import write_inspect_log
from workbench.evaluation.judges import REFUSAL, AskedJudge, Judge, Judged, PatternJudge, Verdict, judge_all
from workbench.evaluation.metric import Metric, Scorecard, beside
from workbench.evaluation.open_answers import OpenAnswer, open_answers
from workbench.evaluation.replies import Ask, Endpoint, LocalModel, Missing, Scripted
from workbench.evaluation.scorecard import Extras, evaluate
from workbench.evaluation.text import perplexity, text_cross_entropies
from workbench.evaluation.truthful import Likelihoods, answer_likelihoods, truthfulqa

__all__ = [
    "REFUSAL", "Ask", "AskedJudge", "Endpoint", "Extras", "Judge", "Judged", "Likelihoods", "LocalModel", "Metric", "Missing", "OpenAnswer",
    "PatternJudge", "Scorecard", "Scripted", "Verdict", "answer_likelihoods", "beside", "evaluate", "judge_all", "open_answers", "perplexity",
    "text_cross_entropies", "truthfulqa", "write_inspect_log",
]  # fmt: skip
