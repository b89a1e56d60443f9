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
    """Values that an objective reads from one run of the model, one row per context of the batch.

    They are read at the decision token, the last token before the answer.

    Attributes:
        resid: float32 activations at each site.
        final: Residual stream after the last block; None if the objective needs no logits.
        answers: For each row, the id of the first token of the matching answer (the one that shows the
            persona) and of the other answer.
        runner: The model's runner.
        whole: What is needed to score answers of several tokens; None if all answers are single tokens.
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
        """Make a `Readout`, the values that objectives read, from one run of the model.

        Args:
            runner: The model's runner.
            caught: Activations at the sites, at all positions or only at the decision token.
            stream: Residual stream after the last block, or None if no objective needs it.
            decision: Position of each row's decision token, the last one before the answer.
            table: Token ids of the two answers of each context.
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
        """Compute a weighted sum of the scores (nats) of each row's two answers.

        The residual stream after the last block must have been kept (`needs_final`).

        Args:
            sides: Weights of the matching answer (the one that shows the persona) and of the other: (1, -1)
                gives the log-odds, (1, 0) and (0, 1) the score of one answer.
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
    """Residual stream and token ids from which answers of several tokens are scored.

    Attributes:
        stream: Residual stream after the last block, at all positions.
        decision: Position of each row's decision token, the last one before the answer.
        table: Token ids of the two answers of each context.
        members: Index of each row's context in the table.
    """

    stream: Float[Tensor, "batch pos d_model"]
    decision: Int[Tensor, " batch"]
    table: AnswerTable
    members: Int[Tensor, " batch"]
