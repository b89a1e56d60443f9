"""A sentence to add after your own prompt, where no small edit removes its effect.

1. The prompt stays as it is: its tokens become part of the text before the slot, so that the search
   (`SentenceSearch`) writes, screens and scores sentences as they will be read, after the prompt.
2. The search sees *search* questions; the sentence that moves the persona furthest the wanted way on
   *selection* questions and harms nothing there is chosen; *test* questions are read once, for that one.
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

#: Questions that the search scores on, and sentences that are asked whether they harm.
_CONTEXTS, _FINALISTS = 4, 4


@dataclass(frozen=True)
class AddedSentence:
    """A sentence after the audited prompt, measured on test questions.

    Attributes:
        sentence: What to add.
        text: The whole new prompt.
        remaining: Effect of the new prompt against no prompt, log-odds.
        change: New prompt minus the old one, paired, log-odds.
        cross_entropy: Nats a token of the old and the new prompt in the slot.
        collateral: What else it does; the first harmless sentence on selection was taken where there is one.
        harmless: False where every sentence tried on selection harmed something.
        model_calls: Cost of the search in forward passes of one question.
        seconds: Its time.
        warnings: What the search has to say of its own result.
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
    """Searches a sentence to add after a prompt.

    Args:
        problems: The prompt on search, selection and test questions.
        guards: What must not be harmed, on selection and on test.
        tolerance: What another persona may move, log-odds.
        sign: "suppress" or "induce".
        calls: Budget of the search in model calls.
        seed: Of the search.
        method: The search; one sentence at most when None.

    Returns:
        The sentence, or None where none survives after the prompt.

    Raises:
        UserError: The budget is too small for one step, or the model writes no sentence in this slot (see
            `SentenceSearch`).

    Example:
        >>> add_sentence((on_search, on_selection, on_test), (EditGuard(), EditGuard()), 0.5, "suppress", 500)  # doctest: +SKIP
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
    """The contexts with a prompt's text left of the slot, so that what is put there follows it after a space."""
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
