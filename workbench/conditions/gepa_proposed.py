"""Reflective Pareto search for prompts with the package `gepa` (Agrawal et al. 2025, arXiv 2507.19457).

1. The first prompt is scored on every search context: the probability, 0 to 1, of the answer that the sign
   calls for.
2. In each round GEPA draws a prompt that is the best on some context (the Pareto frontier over contexts) and
   a few contexts. A language model sees the answers on them and the right ones, and its reply contains a new
   prompt.
3. A new prompt that is better on these few contexts is kept and scored on every search context.
4. Rounds end with the budget. The kept prompts that are best on the search contexts are then scored on
   *selection* data, and the one with the largest mean log-odds in the sign's direction is chosen, as for
   every other condition. A prompt whose tokens change in the slot scores 0 and costs nothing. A request
   without a reply costs its round and is listed in `method`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from workbench.budget import Budget
from workbench.conditions.build_context import BuildContext
from workbench.conditions.condition import as_contexts, signed, spending
from workbench.conditions.condition_registry import StudyCondition, register_study_condition
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
from workbench.optional_packages import needs_extra
from workbench.personas import Sign, Split

#: Name under which GEPA changes the prompt's text.
_PART = "prompt"


@dataclass(frozen=True)
class GEPAProposed:
    """Settings of a search for a prompt with GEPA, in which a language model rewrites prompts after failures.

    Attributes:
        proposer: Language model that reflects on failures and writes new prompts.
        budget: Limit of the search, which is exceeded by one round at most. The scoring of prompts counts,
            and so do the replies of a local proposer. One step of the budget is one round.
        minibatch: Number of questions shown to the proposer in a round (3 in GEPA's paper).
        finalists: Number of prompts that are scored on selection questions at the end.
        longest: Largest number of tokens of a prompt.
        seed: Seed of GEPA's draws.
    """

    proposer: Proposer
    budget: Budget = field(default_factory=lambda: Budget(steps=20))
    minibatch: int = 3
    finalists: int = 4
    longest: int = 60
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.minibatch, self.finalists, self.longest) < 1:
            raise UserError(
                f"minibatch, finalists and longest are at least 1, found {self.minibatch}, {self.finalists}, {self.longest}"
            )

    def run(
        self,
        model: Any,
        search: Split | Contexts,
        selection: Split | Contexts,
        start: str,
        sign: Sign = "suppress",
        slot: Slot = "system",
    ) -> Prompt:
        """Run the search and return the chosen prompt.

        Args:
            model: The model whose answers are scored.
            search: Questions that the search scores prompts on.
            selection: Questions by which the final prompt is chosen.
            start: Text of the prompt that the search begins with.
            sign: Whether to "suppress" or "induce" the persona.
            slot: The place in the chat where the prompt goes, such as the system message.

        Returns:
            The prompt as a condition of kind "llm_proposed", with its cost and the rates (fractions of
            questions answered as the persona) on search and selection questions.

        Raises:
            UserError: The package `gepa` is missing, or the start prompt is empty or does not fit the slot.
        """
        gepa = _package()
        if not start.strip():
            raise UserError("expected a prompt to start from")
        contexts, chooser, side = (
            as_contexts(model, search, slot),
            as_contexts(model, selection, slot),
            signed(sign),
        )
        if not fits(model, contexts, start, self.longest):
            raise UserError(
                f"the prompt to start from does not keep its tokens in the slot, or has more than {self.longest}"
            )
        task = _Task(model, contexts, side, self.proposer, self.longest)
        with spending(model, contexts, *models_of(self.proposer)) as receipt:
            result = gepa.optimize(
                seed_candidate={_PART: start},
                trainset=list(range(len(contexts))),
                adapter=task,
                reflection_minibatch_size=min(self.minibatch, len(contexts)),
                skip_perfect_score=False,
                stop_callbacks=[
                    lambda state: task.mistake is not None or self.budget.used(receipt.cost, state.i + 1) >= 1
                ],
                logger=_Silent(),
                track_best_outputs=False,
                seed=self.seed,
            )
            if task.mistake is not None:
                raise task.mistake
            texts, scores = [one[_PART] for one in result.candidates], result.val_aggregate_scores
            best = sorted(range(len(texts)), key=lambda i: -scores[i])[: self.finalists]
            finalists = {texts[i]: answer(model, chooser, texts[i]) for i in best}
        chosen = max(finalists, key=lambda text: side * float(finalists[text].log_odds.mean()))
        method = f"GEPA: {task.asked} requests, {len(texts)} prompts kept, best of {len(finalists)} on selection, seed {self.seed}"
        method += f", {len(task.missing)} replies missing ({task.missing[0]})" if task.missing else ""
        found = Found(
            chosen,
            "llm_proposed",
            method,
            cost=receipt.cost,
            selection_rate=finalists[chosen].rate,
            name="gepa",
        )
        return replace(found, search_rate=answer(model, contexts, chosen).rate)


@dataclass
class _Task:
    """The adapter that GEPA calls (its `GEPAAdapter`): it scores, describes and proposes prompts.

    The field `mistake` holds an error of the user (such as an endpoint that refuses), which GEPA itself would
    take for a failed round.
    """

    model: Any
    contexts: Contexts
    side: int
    proposer: Proposer
    longest: int
    asked: int = 0
    missing: list[str] = field(default_factory=list)
    mistake: UserError | None = None

    def evaluate(
        self, batch: Sequence[int], candidate: Mapping[str, str], capture_traces: bool = False
    ) -> Any:
        from gepa.core.adapter import EvaluationBatch

        chosen = replace(self.contexts, items=tuple(self.contexts[i] for i in batch))
        if not fits(self.model, chosen, candidate[_PART], self.longest):
            nothing = [0.0] * len(batch)
            return EvaluationBatch(
                outputs=nothing,
                scores=nothing,
                trajectories=[self._told(c, None) for c in chosen],
                num_metric_calls=0,
            )
        answers = answer(self.model, chosen, candidate[_PART])
        scores = self._wanted(answers)
        told = [self._told(context, score) for context, score in zip(chosen, scores, strict=True)]
        return EvaluationBatch(outputs=scores, scores=scores, trajectories=told)

    def make_reflective_dataset(
        self, candidate: Mapping[str, str], eval_batch: Any, components_to_update: Sequence[str]
    ) -> dict[str, list[dict[str, str]]]:
        return {_PART: eval_batch.trajectories}

    def propose_new_texts(
        self,
        candidate: Mapping[str, str],
        reflective_dataset: Mapping[str, Any],
        components_to_update: Sequence[str],
    ) -> dict[str, str]:
        from gepa.strategies.instruction_proposal import InstructionProposalSignature as Reflection

        template = f"{Reflection.default_prompt_template} The new instructions have at most {max(1, self.longest // 2)} words."
        request = Reflection.prompt_renderer(
            {
                "current_instruction_doc": candidate[_PART],
                "dataset_with_feedback": reflective_dataset[_PART],
                "prompt_template": template,
            }
        )
        self.asked += 1
        try:
            reply = whole_lines(self.proposer, str(request))
        except MissingReply as problem:
            self.missing.append(str(problem))
            return {}
        except UserError as mistake:
            self.mistake = mistake
            return {}
        return {_PART: Reflection.output_extractor(reply)["new_instruction"]}

    def _wanted(self, answers: Answers) -> list[float]:
        return (answers.p if self.side > 0 else 1 - answers.p).tolist()

    def _told(self, context: Any, score: float | None) -> dict[str, str]:
        wanted, other = (context.item.matching, context.item.not_matching)[:: self.side]
        if score is None:
            return {
                "Inputs": context.item.question,
                "Generated Outputs": "none",
                "Feedback": "These instructions are too long.",
            }
        given = wanted if score > 0.5 else other
        verdict = (
            "This is the answer that is wanted" if score > 0.5 else f"The answer that is wanted is: {wanted}"
        )
        return {
            "Inputs": context.item.question,
            "Generated Outputs": given,
            "Feedback": f"{verdict} (its probability here: {100 * score:.0f} %).",
        }


class _Silent:
    def log(self, message: str) -> None:
        """Print nothing; GEPA's progress messages are dropped."""


def _package() -> Any:
    with needs_extra("gepa", "searching with GEPA"):
        import gepa
    return gepa


def _build(context: BuildContext) -> list[Prompt]:
    loop, start = (
        GEPAProposed(study_proposer(context), context.study.search.budget, seed=context.seed),
        next(iter(context.manual_prompts), ""),
    )
    return [
        loop.run(
            context.model,
            context.search_questions,
            context.selection_contexts,
            start,
            context.sign,
            context.slot,
        )
    ]


register_study_condition(
    StudyCondition(
        "gepa",
        "llm_proposed",
        "reflective Pareto search by the package gepa, with the searches' budget",
        _build,
        order=210,
    )
)
