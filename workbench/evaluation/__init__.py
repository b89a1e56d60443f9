"""Metrics in addition to forced choice: open answers, judges, TruthfulQA, unrelated text, scorecards."""

from workbench.evaluation.changed_forms import PromptRobustness, prompt_forms, prompt_robustness
from workbench.evaluation.chat_models import Ask, Endpoint, LocalModel, MissingReply, ScriptedModel
from workbench.evaluation.inspect_log import write_inspect_choices, write_inspect_log
from workbench.evaluation.judges import (
    REFUSAL,
    AskedJudge,
    Judge,
    Judged,
    JudgeVerdict,
    PatternJudge,
    judge_all,
)
from workbench.evaluation.open_answers import OpenAnswer, open_answers
from workbench.evaluation.scorecard import ScorecardExtras, evaluate
from workbench.evaluation.scorecard_metric import Scorecard, ScorecardMetric, beside
from workbench.evaluation.truthfulqa_scores import AnswerLikelihoods, answer_likelihoods, truthfulqa
from workbench.evaluation.unrelated_text import perplexity, text_cross_entropies

__all__ = [
    "REFUSAL",
    "AnswerLikelihoods",
    "Ask",
    "AskedJudge",
    "Endpoint",
    "Judge",
    "JudgeVerdict",
    "Judged",
    "LocalModel",
    "MissingReply",
    "OpenAnswer",
    "PatternJudge",
    "PromptRobustness",
    "Scorecard",
    "ScorecardExtras",
    "ScorecardMetric",
    "ScriptedModel",
    "answer_likelihoods",
    "beside",
    "evaluate",
    "judge_all",
    "open_answers",
    "perplexity",
    "prompt_forms",
    "prompt_robustness",
    "text_cross_entropies",
    "truthfulqa",
    "write_inspect_choices",
    "write_inspect_log",
]
