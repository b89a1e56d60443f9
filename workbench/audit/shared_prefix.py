"""Many prompts of different wording, each in all contexts, where the contexts share what is left of the slot.

1. Prompts of equal length are run once after the shared prefix, and their keys and values kept.
2. Every context forks them, and runs only what is right of the slot, padded on the right.

Exact: the same scores as `AttributionProblem.scores`, for about (prompt + contexts x suffix) tokens instead
of contexts x (prompt + suffix).
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
    """True where prompts can be run once for all contexts: something on either side of the slot, and the same on its left."""
    return (
        contexts.shared_prefix
        and bool(contexts[0].prefix_ids)
        and all(context.suffix_ids for context in contexts)
    )


@torch.no_grad()
def shared_prefix_scores(
    problem: AttributionProblem, prompts: Sequence[Ids | None]
) -> Float[np.ndarray, "prompt context target"]:
    """Float64 scores as `AttributionProblem.scores` gives them; None is "no prompt"."""
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
    """Indices of prompts of the same length, at most batch_tokens tokens at a time."""
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
    """Scores of all contexts after these prompts."""
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
