"""Scores of many prompts in contexts that share the text before the slot, with cached keys and values.

1. Prompts of equal length are run once after the shared prefix, and their keys and values are kept.
2. Every context continues from these caches and runs only its text after the slot, padded on the right.

The scores are exactly those of `AttributionProblem.scores`. The cost is about (prompt + contexts x suffix)
tokens instead of contexts x (prompt + suffix).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float

from workbench.answer_tokens import AnswerTable
from workbench.attribution import AttributionProblem
from workbench.attribution.attribution_problem import Ids
from workbench.contexts import Contexts
from workbench.models import KeyValueCache, pad_right
from workbench.objectives import Readout


def shares(contexts: Contexts) -> bool:
    """Whether a prompt can be run once and its cached keys and values reused for all questions.

    This requires the same text before the prompt in all questions, and text after the prompt.

    Args:
        contexts: Questions in their chat template.
    """
    return (
        contexts.shared_prefix
        and bool(contexts[0].prefix_ids)
        and all(context.suffix_ids for context in contexts)
    )


@torch.no_grad()
def shared_prefix_scores(
    problem: AttributionProblem, prompts: Sequence[Ids | None]
) -> Float[np.ndarray, "prompt context target"]:
    """Score every prompt in every context; each prompt is run once and its keys and values are reused.

    Args:
        problem: Model, contexts and targets. All contexts must have the same text before the prompt (see
            `shares`).
        prompts: Prompts as token ids; None means the question without a prompt.

    Returns:
        Float64 score of each target, in the target's unit, as from `AttributionProblem.scores`.
    """
    branched, each = problem.branched, len(problem.branched.contexts) // len(problem.contexts)
    found = np.zeros((len(prompts), len(branched.contexts), len(problem.targets.items)))
    bare = [p for p, ids in enumerate(prompts) if ids is None]
    found[bare] = np.repeat(problem.scores([None] * len(bare)), each, axis=1)
    for members in _equal_lengths(problem, prompts):
        prefix = problem.contexts[0].prefix_ids
        ids = torch.tensor([(*prefix, *(prompts[p] or ())) for p in members], device=problem.runner.device)
        _, kv = problem.runner.run(
            problem.runner.embed(ids), 0, problem.targets.depth(problem.runner.shape.n_layers), keep=True
        )
        assert kv is not None, "it was kept"
        found[members] = _suffixes(branched, kv, len(members))
    return problem.over_branches(found)


def _equal_lengths(problem: AttributionProblem, prompts: Sequence[Ids | None]) -> Iterator[list[int]]:
    """Yield indices of prompts of the same length, in batches of at most batch_tokens tokens."""
    by_length: dict[int, list[int]] = {}
    for p, ids in enumerate(prompts):
        if ids is not None:
            by_length.setdefault(len(ids), []).append(p)
    for length, members in by_length.items():
        at_once = max(1, problem.batch_tokens // (len(problem.contexts[0].prefix_ids) + max(1, length)))
        yield from (members[k : k + at_once] for k in range(0, len(members), at_once))


def _suffixes(
    problem: AttributionProblem, kv: KeyValueCache, n_prompts: int
) -> Float[np.ndarray, "prompt context target"]:
    """Score all contexts as continuations of the cached prompts."""
    runner, contexts, targets = problem.runner, problem.contexts, problem.targets
    found, table = (
        np.zeros((n_prompts, len(contexts), len(targets.items))),
        AnswerTable(contexts, runner.device),
    )
    jobs = sorted(
        ((p, c) for p in range(n_prompts) for c in range(len(contexts))),
        key=lambda job: len(contexts[job[1]].after_prompt),
    )
    at_once = max(1, problem.batch_tokens // max(len(context.after_prompt) for context in contexts))
    for k in range(0, len(jobs), at_once):
        batch = jobs[k : k + at_once]
        tensor = lambda values: torch.tensor(values, device=runner.device)  # noqa: E731
        ids = pad_right([contexts[c].after_prompt for _, c in batch]).to(runner.device)
        decision = tensor([len(contexts[c].suffix_ids) - 1 for _, c in batch])
        with runner.capture(targets.sites) as caught:
            resid, _ = runner.run(
                runner.embed(ids, kv.length),
                0,
                targets.depth(runner.shape.n_layers),
                kv.fork(tensor([p for p, _ in batch])),
            )
        stream = resid if targets.needs_final else None
        scored = targets.score(Readout.of(runner, caught, stream, decision, table, [c for _, c in batch]))
        places = np.array(batch)
        found[places[:, 0], places[:, 1]] = scored.double().cpu().numpy()
    return found
