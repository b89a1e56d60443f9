"""What an objective reads of a forward pass: activations at decision tokens, and tokens of whole answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.answer_tokens import LOG_ODDS, AnswerTable
from workbench.models import Runner, Site


@dataclass(frozen=True)
class Readout:
    """Activations and answers at the decision tokens (the last token before the answer) of a batch.

    Attributes:
        resid: float32 activations by site.
        final: Residual stream after the last block; None unless an objective needs it.
        answers: For each row, the first token of the matching and of the not matching answer.
        runner: The model's runner.
        whole: Data to score answers of several tokens; None if all answers are single tokens.
    """

    resid: dict[Site, Float[Tensor, "batch d_model"]]
    final: Float[Tensor, "batch d_model"] | None
    answers: Int[Tensor, "batch 2"]
    runner: Runner
    whole: WholeAnswers | None = None

    @classmethod
    def of(
        cls,
        runner: Runner,
        caught: Mapping[Site, Float[Tensor, "batch pos d_model"]],
        stream: Float[Tensor, "batch pos d_model"] | None,
        decision: Int[Tensor, " batch"],
        table: AnswerTable,
        members: Sequence[int] | Tensor,
    ) -> Readout:
        """Make the readout, the values that objectives read, of one run of the model.

        Args:
            runner: The model's runner.
            caught: Activations at the sites, at all positions or at the decision token alone.
            stream: Residual stream after the last block, or None if no objective needs it.
            decision: Position of each row's decision token.
            table: Answers of the contexts (branch by branch).
            members: Index of each row's context in the table.
        """
        members = torch.as_tensor(members, device=decision.device)
        rows = torch.arange(len(decision), device=decision.device)

        def at_decision(activation: Tensor) -> Tensor:
            return activation[:, 0] if activation.shape[1] == 1 else activation[rows, decision]

        whole = (
            None
            if stream is None or table.one_token
            else WholeAnswers(stream, decision, table, members.cpu())
        )
        read = {site: at_decision(activation).float() for site, activation in caught.items()}
        return cls(read, None if stream is None else at_decision(stream), table.first[members], runner, whole)

    def answer_scores(self, sides: tuple[float, float]) -> Float[Tensor, " batch"]:
        """Compute a weighted sum of the two answers' scores in nats, one per row.

        The residual stream after the last block must have been kept (`needs_final`).

        Args:
            sides: Factors of the matching and of the other answer's score: (1, -1) gives log-odds, (1, 0) and
                (0, 1) the score of one answer.
        """
        if self.whole is not None:
            return self.whole.table.scores(
                self.runner, self.whole.stream, self.whole.decision, self.whole.members, sides
            )
        assert self.final is not None, (
            "an objective that reads answers needs the last block's residuals (`needs_final`)"
        )
        if sides == LOG_ODDS:
            logits = self.runner.logits_of(self.final, self.answers)
            return logits[:, 0] - logits[:, 1]
        side = sides.index(1.0)
        chosen = self.answers[:, side : side + 1]
        return (self.runner.logits_of(self.final, chosen) - self.runner.log_normalizer(self.final)[:, None])[
            :, 0
        ]


@dataclass(frozen=True)
class WholeAnswers:
    """Data to score answers of several tokens in a batch.

    Attributes:
        stream: Residual stream after the last block, at all positions.
        decision: Position of each row's decision token.
        table: Answers of the contexts.
        members: Index of each row's context in the table.
    """

    stream: Float[Tensor, "batch pos d_model"]
    decision: Int[Tensor, " batch"]
    table: AnswerTable
    members: Int[Tensor, " batch"]
