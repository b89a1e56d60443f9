"""Labelled activations to fit directions to, with three kinds of labels.

- Answer pairs: each context is followed by its matching and by its not matching answer, and activations are
  read at the answer's last token (as in the paper and in CAA). Both option orders are included, so that the
  letter cancels.
- Own choices: contexts under varied system texts, read at the decision token (the last token before the
  answer); the score is the model's own log-odds.
- Responses: a question is followed by its full matching or not matching response, and the mean over the
  response's tokens is read (persona vectors, Chen et al. 2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.activations import check_states, collect, length_batches, read_all
from workbench.answer_tokens import AnswerTable
from workbench.contexts import Context, Contexts
from workbench.directions.class_split import centred_by
from workbench.forced_choice import answer_each, check_answers
from workbench.models import Runner, Site
from workbench.models.hook_sites import Position
from workbench.personas import Split


@dataclass(frozen=True)
class LabelledActivations:
    """Activations of a model with labels, one row for each sequence of tokens that it was run on.

    Attributes:
        states: Activations [n, d_model] by layer.
        scores: One number per row, positive if the row shows the persona: the model's log-odds, or +1 and -1.
        groups: Group of related questions that each row belongs to.
        context_ids: Question of each row, with the order of its options if they are shown.
        lengths: Number of tokens of the sequence, or of the answer or response that was read.
        first_shown: Whether the row's answer is the option shown first.
        position: Token position whose activations are stored, such as "decision" (the last token before the
            answer).
        texts: Text of each row: prompt and question, or question and answer.
    """

    states: dict[int, Float[Tensor, "n d_model"]]
    scores: Float[Tensor, " n"]
    groups: tuple[str, ...]
    context_ids: tuple[str, ...]
    lengths: tuple[int, ...]
    first_shown: Bool[Tensor, " n"]
    position: Position
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.scores)


def answer_pairs(runner: Runner, contexts: Contexts, layers: Sequence[int]) -> LabelledActivations:
    """Read activations at the end of both answers to each question.

    The score is +1 for the matching answer (the one that shows the persona) and -1 for the other one.

    Args:
        runner: Runner of the model.
        contexts: Questions, run without a prompt.
        layers: Layers whose outputs are read.

    Returns:
        Two rows per question, read at the answer's last token.
    """
    rows = [(c, side) for c in contexts for side in (0, 1)]
    sequences = [(*c.bare_ids, *c.answers[side]) for c, side in rows]
    sites = {layer: Site(layer, "resid_post", "answer") for layer in layers}
    found = collect(runner, sequences, list(sites.values()))
    return LabelledActivations(
        states={layer: found[site] for layer, site in sites.items()},
        scores=torch.tensor([1.0 if side == 0 else -1.0 for _, side in rows]),
        groups=tuple(c.item.group for c, _ in rows),
        context_ids=tuple(_id(c) for c, _ in rows),
        lengths=tuple(len(c.answers[side]) for c, side in rows),
        first_shown=_first_shown([c for c, _ in rows], torch.tensor([side == 0 for _, side in rows])),
        position="answer",
        texts=tuple(
            f"{c.item.question} [{c.item.matching if side == 0 else c.item.not_matching}]" for c, side in rows
        ),
    )


def own_choices(
    runner: Runner,
    contexts: Sequence[Context],
    prompts: Sequence[tuple[int, ...] | None],
    layers: Sequence[int],
) -> LabelledActivations:
    """Read activations of each question just before the answer, with the model's own choice as the score.

    They are read at the decision token, the last one before the answer. The score is the log-odds of the
    answer that shows the persona.

    Args:
        runner: Runner of the model.
        contexts: Questions, one per row.
        prompts: Token ids of the prompt in the chat of each question; None for no prompt.
        layers: Layers whose outputs are read.

    Returns:
        One row per question.
    """
    sequences = [c.ids(p) for c, p in zip(contexts, prompts, strict=True)]
    sites = [Site(layer) for layer in layers]
    if all(c.one_token for c in contexts):
        found, log_odds = _choices_in_one_pass(runner, contexts, sequences, sites)
    else:
        found = collect(runner, sequences, sites)
        log_odds = answer_each(runner, contexts, prompts)
    scores = torch.from_numpy(log_odds).float()
    return LabelledActivations(
        states={site.layer: found[site] for site in sites},
        scores=scores,
        groups=tuple(c.item.group for c in contexts),
        context_ids=tuple(_id(c) for c in contexts),
        lengths=tuple(len(s) for s in sequences),
        first_shown=_first_shown(contexts, scores > 0),
        position="decision",
        texts=tuple(_shown_text(runner, c, p) for c, p in zip(contexts, prompts, strict=True)),
    )


def responses(runner: Runner, split: Split, layers: Sequence[int]) -> LabelledActivations:
    """Read activations over both responses (whole answers) to each question.

    The score is +1 for the response that shows the persona and -1 for the other one.

    Args:
        runner: Runner of the model.
        split: Questions with their responses. If a question has none, its answers are used.
        layers: Layers whose outputs are read.

    Returns:
        Two rows per question, each the mean over the response's tokens.
    """
    sequences, spans, items = [], [], []
    for item in split:
        opening = runner.render([{"role": "user", "content": item.question}])
        plain = runner.encode(opening)
        for text in item.responses or (item.matching, item.not_matching):
            ids = runner.encode(
                opening + ("" if opening[-1:].isspace() or opening[-1:] in "([>" else " ") + text
            )
            start = next(
                (i for i, (a, b) in enumerate(zip(plain, ids, strict=False)) if a != b),
                min(len(plain), len(ids) - 1),
            )
            sequences.append(ids)
            spans.append((start, len(ids)))
            items.append(item)
    sites = {layer: Site(layer, "resid_post", "response_mean") for layer in layers}
    found = collect(runner, sequences, list(sites.values()), spans)
    return LabelledActivations(
        states={layer: found[site] for layer, site in sites.items()},
        scores=torch.tensor([1.0, -1.0]).repeat(len(items) // 2),
        groups=tuple(item.group for item in items),
        context_ids=tuple(item.id for item in items),
        lengths=tuple(stop - start for start, stop in spans),
        first_shown=torch.zeros(len(items), dtype=torch.bool),
        position="response_mean",
        texts=tuple(
            f"{i.question} [{t}]" for i in split for t in i.responses or (i.matching, i.not_matching)
        ),
    )


def within_contexts(data: LabelledActivations) -> LabelledActivations:
    """Subtract from each row the mean activation and the mean score of all rows of the same question.

    What is left are the effects of the system texts under which the question was presented.

    Args:
        data: Labelled activations, with several rows of each question.

    Returns:
        The centred rows.
    """
    states = {layer: centred_by(x, data.context_ids) for layer, x in data.states.items()}
    return replace(data, states=states, scores=centred_by(data.scores[:, None], data.context_ids)[:, 0])


def _id(context: Context) -> str:
    return f"{context.item.id} {'first' if context.matching_first else 'second'}"


def _shown_text(runner: Runner, context: Context, prompt: tuple[int, ...] | None) -> str:
    return (
        context.item.question
        if prompt is None
        else f"{runner.decode(prompt).strip()} | {context.item.question}"
    )


def _first_shown(contexts: Sequence[Context], matching: Bool[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Return True where the row's answer is the option shown first.

    It is False everywhere if options are shown in one order only.
    """
    first = torch.tensor([c.matching_first for c in contexts])
    return (
        matching == first
        if bool(first.any()) and not bool(first.all())
        else torch.zeros(len(first), dtype=torch.bool)
    )


@torch.no_grad()
def _choices_in_one_pass(
    runner: Runner,
    contexts: Sequence[Context],
    sequences: Sequence[tuple[int, ...]],
    sites: Sequence[Site],
    batch_tokens: int = 8192,
) -> tuple[dict[Site, Float[Tensor, "n d_model"]], Float[np.ndarray, " n"]]:
    """Return states at the decision token and log-odds of one-token answers, from a single forward pass."""
    last = Site(runner.shape.n_layers - 1)
    kept: dict[Site, list[Tensor]] = {site: [torch.empty(0)] * len(sequences) for site in sites}
    log_odds = np.zeros(len(sequences))
    for batch in length_batches(sequences, runner.at_most(batch_tokens)):
        states = read_all(runner, [sequences[i] for i in batch], [*dict.fromkeys([*sites, last])])
        rows, at = torch.arange(len(batch)), torch.tensor([len(sequences[i]) - 1 for i in batch])
        first = AnswerTable([contexts[i] for i in batch], runner.device).first
        log_probs = runner.log_probs_of(states[last][rows, at], first).cpu()
        log_odds[batch] = (log_probs[:, 0] - log_probs[:, 1]).numpy()
        for site in sites:
            picked = states[site][rows, at].float().cpu()
            for row, i in enumerate(batch):
                kept[site][i] = picked[row]
    found = {site: torch.stack(rows) for site, rows in kept.items()}
    check_states(runner, sequences, found)
    check_answers(runner, [(context, None) for context in contexts], log_odds)
    return found, log_odds
