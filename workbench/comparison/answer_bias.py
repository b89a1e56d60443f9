"""Divide the effect of a condition into an effect on the persona and a preference for one of the answers.

If the answers are "Yes" and "No", a prompt that makes "No" likelier after every question changes the log-odds of
the persona wherever "Yes" shows it. Over a counterbalanced split this cancels; over other splits a part of it
stays in the mean effect.

1. The *bias* is half of the difference of the mean changes on the questions in which the one and in which the
   other answer shows the persona.
2. The *balanced effect* is the mean of the two. The mean effect is the balanced effect plus the bias times
   the difference of the numbers of questions, divided by their sum.
3. Both are linear in two cluster-robust means; their intervals use the linearised values of each question
   (Taylor linearisation; Lumley 2010, "Complex Surveys", chapter 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from workbench.schema import AnswerBiasEntry
from workbench.statistics import Interval, cluster_interval


@dataclass(frozen=True)
class AnswerBias:
    """How much of an effect is a preference for one answer, whatever the question.

    Attributes:
        answer: The answer that a positive bias favours, such as "No" (the first of the two in the alphabet).
        other: The other answer.
        n: Number of questions in which `answer` shows the persona.
        n_other: Number of questions in which `other` does.
        bias: Change of the log-odds (nats) of `answer` that does not depend on which answer shows the
            persona.
        balanced: Effect in log-odds (nats) with both answers weighted equally; positive means more of the
            persona.

    Example:
        >>> comparison = wb.compare(model, data.test.take(6), [wb.Prompt("be honest")])
        >>> comparison["manual: be honest"].difference("no prompt").answer_bias is None  # one answer always shows it
        True
    """

    answer: str
    other: str
    n: int
    n_other: int
    bias: Interval
    balanced: Interval

    @property
    def in_mean(self) -> float:
        """Part of the mean effect (nats) that is the bias: 0 if both answers show the persona equally often."""
        return self.bias.estimate * (self.n - self.n_other) / (self.n + self.n_other)

    def to_entry(self) -> AnswerBiasEntry:
        """Convert the result to the entry `answer_bias` of a difference in comparison.json."""
        return AnswerBiasEntry(
            answer=self.answer,
            other=self.other,
            n=self.n,
            n_other=self.n_other,
            bias=self.bias.estimate,
            bias_ci=self.bias.ends(),
            balanced=self.balanced.estimate,
            balanced_ci=self.balanced.ends(),
        )


def answer_bias(
    change: Float[np.ndarray, " context"], matching: Sequence[str], groups: Sequence[Any], level: float = 0.95
) -> AnswerBias | None:
    """Measure how much a condition prefers one of two answers, whatever the question.

    Args:
        change: Change of the log-odds (nats) of the matching answer, which shows the persona, per question.
        matching: Text of the matching answer of each question.
        groups: Question group of each question, the unit of clustering.
        level: Coverage of the intervals.

    Returns:
        The bias and the balanced effect; None unless there are exactly two matching answers.

    Example:
        >>> from workbench.comparison.answer_bias import answer_bias
        >>> found = answer_bias(np.array([-1.0, -1.0, -3.0]), ["No", "No", "Yes"], ["a", "b", "c"])
        >>> found.answer, found.bias.estimate, found.balanced.estimate
        ('No', 1.0, -2.0)
    """
    answers = sorted(set(matching))
    if len(answers) != 2:
        return None
    change = np.asarray(change, dtype=float)
    first = np.array([answer == answers[0] for answer in matching])
    means = float(change[first].mean()), float(change[~first].mean())
    residual = (
        (change - np.where(first, *means)) * len(change) / np.where(first, first.sum(), (~first).sum()) / 2
    )
    return AnswerBias(
        answers[0],
        answers[1],
        int(first.sum()),
        int((~first).sum()),
        cluster_interval((means[0] - means[1]) / 2 + np.where(first, residual, -residual), groups, level),
        cluster_interval((means[0] + means[1]) / 2 + residual, groups, level),
    )
