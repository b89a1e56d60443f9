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
    """A sentence to add after the audited prompt, with its effects on test questions.

    Attributes:
        sentence: The sentence to add.
        text: The whole new prompt.
        remaining: Effect of the new prompt against no prompt, in log-odds.
        change: Score with the new prompt minus score with the old one, paired by question, in log-odds.
        cross_entropy: Cross-entropy of the old and of the new prompt in the slot, nats per token.
        collateral: Side effects of the new prompt.
        harmless: False if every sentence that was checked on selection questions harmed something; the one
            that moves the persona furthest was taken then.
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
    """Search for a sentence to add after a prompt.

    Args:
        problems: The prompt on search, selection and test questions.
        guards: Questions on which harm is looked for, for selection and for test.
        tolerance: Largest allowed increase of the effect on another persona, in log-odds.
        sign: Intended effect on the persona: "suppress" or "induce".
        calls: Budget of the search in model calls.
        seed: Seed of the search.
        method: The search; None for a `SentenceSearch` of at most one sentence.

    Returns:
        The sentence with its effects on test questions, or None if no sentence survives after the prompt.

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
    """Return the contexts with a prompt before the slot, so that text in the slot follows after a space."""
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
