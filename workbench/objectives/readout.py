"""What an objective sees of one forward pass: the decision token of each context, and the tokens of whole answers."""

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
    """The decision tokens of a batch.

    resid: float32 activations by site. final: the residual after the last block (None unless requested).
    answers: first token of the matching and the not matching answer, a row each. whole: how the answers are
    read where they are more than one token each (None otherwise).
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
        """The readout of a run.

        Args:
            runner: the model.
            caught: activations at the sites, all positions (or the decision token alone).
            stream: residuals after the last block, or None where no objective needs them.
            decision: position of each row's decision token.
            table: the answers of (branched) contexts.
            members: each row's context in the table.
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
        """Weighted sum of the two answers' scores (`answer_tokens`), nats. UserError where the last block's residuals were not kept."""
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
    """Where the tokens of a batch's answers are read. stream: residuals after the last block. members: rows' contexts in the table."""

    stream: Float[Tensor, "batch pos d_model"]
    decision: Int[Tensor, " batch"]
    table: AnswerTable
    members: Int[Tensor, " batch"]
