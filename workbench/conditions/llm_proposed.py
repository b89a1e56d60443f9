"""Prompts that a language model proposes in a loop that shows it failures (ProTeGi, Pryzant et al. 2023).

1. The given prompts are scored on the search contexts: mean log-odds in the sign's direction.
2. In each round the proposer sees the best prompts with their rates, and the questions on which the very best
   still fails; it is requested to write new prompts, one per line.
3. Prompts whose tokens change in the slot, or that were tried before, are dropped. The others are scored, and
   the best `beam` of old and new prompts continue.
4. The best prompt of the last beam is chosen on *selection* data, and its rate on them is recorded. A request
   without a reply costs its round and is listed in `method`; it does not count as a result.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from workbench.conditions.build_context import BuildContext
from workbench.conditions.condition import as_contexts, signed, spending
from workbench.conditions.condition_registry import (
    ConditionKind,
    StudyCondition,
    register_kind,
    register_study_condition,
)
from workbench.conditions.found_prompts import Found
from workbench.conditions.prompt import Prompt
from workbench.conditions.prompt_proposers import (
    MissingReply,
    Proposer,
    fits,
    models_of,
    study_proposer,
    whole_lines,
)
from workbench.contexts import Contexts, Slot
from workbench.errors import UserError
from workbench.forced_choice import Answers, answer
from workbench.personas import Sign, Split

_MARKS = re.compile(r"^\s*(?:[-*•]|\d+[.):])\s*")


@dataclass(frozen=True)
class LLMProposed:
    """Settings of the loop in which a language model proposes prompts.

    Attributes:
        proposer: Language model that writes the prompts.
        rounds: Number of requests to the proposer.
        per_round: Number of prompts requested each time.
        beam: Number of best prompts that continue to the next round and are shown in the next request.
        failures: Number of questions still answered against the aim that a request shows.
        longest: Largest number of tokens of a prompt.
    """

    proposer: Proposer
    rounds: int = 4
    per_round: int = 8
    beam: int = 4
    failures: int = 3
    longest: int = 40

    def __post_init__(self) -> None:
        if min(self.rounds, self.per_round, self.beam, self.longest) < 1:
            raise UserError(f"rounds, per_round, beam and longest are at least 1, found {self}")

    def run(
        self,
        model: Any,
        search: Split | Contexts,
        selection: Split | Contexts,
        start: Sequence[str],
        description: str,
        sign: Sign = "suppress",
        slot: Slot = "system",
    ) -> Prompt:
        """Run the loop of proposing and scoring, and return the chosen prompt.

        Args:
            model: The model whose answers are scored.
            search: Questions on which the proposed prompts are scored.
            selection: Questions by which the final prompt is chosen.
            start: Prompts to begin with, at least one.
            description: The persona in words, for the requests.
            sign: Whether to "suppress" or "induce" the persona.
            slot: The place in the chat where the prompt goes, such as the system message.

        Returns:
            The prompt as a condition of kind "llm_proposed", with its cost and the rates (fractions of
            questions answered as the persona) on search and selection questions. For a proposer at an
            endpoint only the seconds of its replies are counted.

        Raises:
            UserError: No start prompt is given, or none fits the slot.
        """
        contexts, chooser, side = (
            as_contexts(model, search, slot),
            as_contexts(model, selection, slot),
            signed(sign),
        )
        if not start:
            raise UserError("expected at least one prompt to start from")
        missing: list[str] = []
        with spending(model, contexts, *models_of(self.proposer)) as receipt:
            scored = self._scored(model, contexts, start, {})
            if not scored:
                raise UserError("none of the prompts to start from keeps its tokens in the slot")
            for _ in range(self.rounds):
                best = self._best(scored, side)
                try:
                    reply = whole_lines(
                        self.proposer, self._request(contexts, best, scored, description, side)
                    )
                except MissingReply as problem:
                    missing.append(str(problem))
                    continue
                scored |= self._scored(model, contexts, proposals(reply)[: self.per_round], scored)
            finalists = {text: answer(model, chooser, text) for text in self._best(scored, side)}
        chosen = self._best(finalists, side)[0]
        method = f"{len(scored)} prompts in {self.rounds} rounds, best of {len(finalists)} on selection"
        method += f", {len(missing)} replies missing ({missing[0]})" if missing else ""
        found = Found(
            chosen,
            "llm_proposed",
            method,
            cost=receipt.cost,
            selection_rate=finalists[chosen].rate,
            name="llm proposed",
        )
        return replace(found, search_rate=scored[chosen].rate)

    def _scored(
        self, model: Any, contexts: Contexts, texts: Sequence[str], known: dict[str, Answers]
    ) -> dict[str, Answers]:
        """Return the answers under each text that is new (not in `known`) and fits the slot."""
        new = [
            text
            for text in dict.fromkeys(texts)
            if text not in known and fits(model, contexts, text, self.longest)
        ]
        return {text: answer(model, contexts, text) for text in new}

    def _best(self, scored: dict[str, Answers], side: int) -> list[str]:
        """Return the `beam` texts with the best mean log-odds in the sign's direction; ties by age."""
        return sorted(scored, key=lambda text: -side * float(scored[text].log_odds.mean()))[: self.beam]

    def _request(
        self, contexts: Contexts, best: Sequence[str], scored: dict[str, Answers], description: str, side: int
    ) -> str:
        worst = np.argsort(side * scored[best[0]].log_odds, kind="stable")[: self.failures]
        failing = "\n".join(f"- {contexts[int(i)].item.question}" for i in worst)
        tried = "\n".join(f"- {100 * scored[text].rate:.0f} %: {text}" for text in best)
        aim = "rarely" if side < 0 else "often"
        return (
            f"A language model shows this behaviour: {description}\nWe look for an instruction under which it shows it as {aim} as "
            f"possible. Fraction of questions on which it shows it, by instruction:\n{tried}\n\nThe first one still fails on:\n{failing}\n\n"
            f"Say in your mind why, then write {self.per_round} better instructions, one on each line, and nothing else."
        )


def proposals(reply: str) -> list[str]:
    """Return the prompts in a language model's reply: its non-empty lines without list marks and quotes."""
    lines = (_MARKS.sub("", line).strip().strip("\"'`“”").strip() for line in reply.splitlines())
    return [line for line in lines if line]


def _build(context: BuildContext) -> list[Prompt]:
    loop, start, persona = LLMProposed(study_proposer(context)), context.manual_prompts, context.persona
    questions, selection = context.search_questions, context.selection_contexts
    return [
        loop.run(context.model, questions, selection, start, persona.description, context.sign, context.slot)
    ]


register_kind(
    ConditionKind(
        "llm_proposed", "written", "proposed by a language model", control_of=("better_than_writing",)
    )
)
register_study_condition(
    StudyCondition(
        "llm_proposed",
        "llm_proposed",
        "a language model's proposals in a loop (ProTeGi-like)",
        _build,
        order=200,
    )
)
