"""Search for a sentence that removes a prompt's effect when it is added after the prompt.

Used where no small edit suffices.

1. The prompt stays unchanged: its tokens become part of the text before the slot, so that the search
   (`SentenceSearch`) writes, filters and scores sentences as they will be read, after the prompt.
2. The search uses *search* questions. On *selection* questions, the sentence that moves the persona furthest
   in the intended direction and harms nothing is chosen. *Test* questions are used once, for that sentence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from workbench.audit.minimal_edit import EditGuard, EditRule, OffTargetChange
from workbench.audit.word_effects import WordProblem
from workbench.budget import Budget
from workbench.conditions.condition import signed
from workbench.conditions.prompt_cross_entropy import prompt_cross_entropies
from workbench.contexts import Contexts, lead_in
from workbench.models import Runner
from workbench.objectives import answer_log_odds
from workbench.personas import Sign
from workbench.prompt_tokens import encode_prompt
from workbench.search import SentenceSearch, search
from workbench.search.sentence_writing.search_inputs import both_sides
from workbench.statistics import Interval, cluster_interval

#: Number of questions that the search scores on, and of sentences that are checked for harm.
_CONTEXTS, _FINALISTS = 4, 4


@dataclass(frozen=True)
class AddedSentence:
    """A sentence that is added after a prompt to cancel the prompt's effect on a persona.

    Effects are measured on test questions.

    Attributes:
        sentence: The sentence to add.
        text: The whole new prompt.
        remaining: Effect of the new prompt (with the sentence) on the persona against no prompt, in log-odds
            of the answer that shows the persona.
        change: Log-odds with the new prompt minus log-odds with the old one, paired by question.
        cross_entropy: Cross-entropy of the old and of the new prompt under the model, in nats per token.
        collateral: Side effects of the new prompt.
        harmless: False if every sentence that was checked lowers the agreement with true statements or
            changes another persona. Then the one with the largest effect was taken.
        model_calls: Cost of the search in forward passes of one question.
        seconds: Run time of the search in seconds.
        warnings: Warnings of the search about its result.
    """

    sentence: str
    text: str
    remaining: Interval
    change: Interval
    cross_entropy: tuple[float, float]
    collateral: tuple[OffTargetChange, ...]
    harmless: bool
    model_calls: float
    seconds: float
    warnings: tuple[str, ...]


def add_sentence(
    problems: tuple[WordProblem, WordProblem, WordProblem],
    guards: tuple[EditGuard, EditGuard],
    tolerance: float,
    sign: Sign,
    calls: float,
    seed: int = 0,
    method: SentenceSearch | None = None,
) -> AddedSentence | None:
    """Search for a sentence that cancels a prompt's effect on a persona when it is added after the prompt.

    Args:
        problems: The prompt with three sets of questions: those that the search scores on, those on which the
            sentence is chosen, and those on which the result is measured.
        guards: True statements and questions of other personas, on which a sentence may change little: for
            the choice of the sentence and for the final measurement.
        tolerance: Largest allowed increase of the effect on another persona, in log-odds.
        sign: Intended effect on the persona: "suppress" or "induce".
        calls: Budget of the search in model calls (forward passes of one question).
        seed: Seed of the search.
        method: The search; None for a `SentenceSearch` of at most one sentence.

    Returns:
        The sentence with its effects on test questions, or None if the search finds no sentence that is
        tokenized unchanged after the prompt.

    Raises:
        UserError: The budget is too small for one step, or the model writes no sentence in this slot (see
            `SentenceSearch`).

    Example:
        >>> problems = (on_search, on_selection, on_test)  # doctest: +SKIP
        >>> guards = (EditGuard(), EditGuard())  # doctest: +SKIP
        >>> add_sentence(problems, guards, 0.5, "suppress", 500)  # doctest: +SKIP
    """
    asked, selection, test = problems
    runner, prompt = asked.runner, asked.words.edited({})
    contexts = contexts_after(runner, both_sides(asked.contexts, _CONTEXTS), prompt)
    goal = signed(sign) * answer_log_odds()
    found = search(
        runner, goal, contexts, method or SentenceSearch(sentences=1), Budget(model_calls=calls), seed
    )
    texts = [f"{prompt} {candidate.text}" for candidate in found.candidates]
    offers = [(text, encode_prompt(runner, selection.contexts, text)) for text in texts]
    if not offers:
        return None
    moved = signed(sign) * selection.of_ids([ids for _, ids in offers])[:, :, 0].mean(axis=1)
    best = [offers[i] for i in np.argsort(-moved, kind="stable")[:_FINALISTS]]
    rule = EditRule(selection, guards[0], tolerance)
    harmless = next((offer for offer in best if rule.harmless(offer[1])), None)
    text, ids = harmless or best[0]
    bare, before, after = test.of_ids([None, test.plain.prompt, ids])[:, :, 0]
    nats = prompt_cross_entropies(runner, asked.contexts, [asked.plain.prompt, ids], n_prefixes=2)
    return AddedSentence(
        text[len(prompt) + 1 :],
        text,
        cluster_interval(after - bare, test.contexts.groups),
        cluster_interval(after - before, test.contexts.groups),
        (nats[0], nats[1]),
        EditRule(test, guards[1], tolerance).collateral(ids),
        harmless is not None,
        found.cost.model_calls,
        found.cost.seconds,
        found.warnings,
    )


def contexts_after(runner: Runner, contexts: Contexts, prompt: str) -> Contexts:
    """Return contexts in which a prompt is part of the fixed text, so that further text follows it.

    Text that is then put into the slot (the place of the prompt in the chat template) comes after the prompt
    and a space.

    Args:
        runner: Runner of the model, for its tokenizer.
        contexts: Questions in their chat template.
        prompt: The prompt.
    """
    ids = encode_prompt(runner, contexts, prompt)
    first = contexts[0]
    before = first.prefix_text + first.lead + prompt + " "
    lead, left, _ = lead_in(runner, before, first.suffix_text)
    space = left[len(first.prefix_ids) + len(ids) : -1]
    text = before[len(first.prefix_text) : len(before) - len(lead)]
    return replace(
        contexts,
        items=tuple(
            replace(c, prefix_text=c.prefix_text + text, prefix_ids=(*c.prefix_ids, *ids, *space), lead=lead)
            for c in contexts
        ),
    )
