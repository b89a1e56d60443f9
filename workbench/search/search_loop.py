"""The one engine of every search method.

1. The objective is calibrated by the caller; contexts, tokens and batch sizes are fixed here, once.
2. Each step: parents are run to their end (log-probabilities, caches); the method proposes children; children
   and parents are scored on the same contexts in the same pass; the method selects; the archive keeps the
   frontier of all.
3. At the end every archived prompt is decoded to its string, encoded again inside its context, and scored in
   full: that is what is reported.

Same seed, machine and batch size: same bits. Ctrl-C ends in order with what there is. A checkpoint after
every `every` steps lets a killed search go on to the bits of an uninterrupted one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from workbench.budget import Budget, Cost
from workbench.contexts import Contexts
from workbench.errors import UserError
from workbench.lexicons import Lexicon
from workbench.models import Runner, runner_for
from workbench.objective_words import describe
from workbench.objectives import Objective
from workbench.prompt_tokens import encode_prompt
from workbench.search.frontier import Candidate, Frontier
from workbench.search.methods.epo import EPO
from workbench.search.scored_prompts import ScoredPrompts, as_prompts
from workbench.search.scoring.batch_size import CEILING, fits_in_memory
from workbench.search.scoring.prefix_cache import Optimizations
from workbench.search.scoring.scorer import Scorer
from workbench.search.search_method import SearchMethod
from workbench.search.search_progress import SearchProgress, history_row, progress_of
from workbench.search.search_state import SearchState, load_state, save_state, search_key
from workbench.search.toolkit import SearchToolkit


@dataclass(frozen=True)
class Checkpoint:
    """Where and how often the state of a search is saved; an existing file is resumed from.

    Attributes:
        path: The file.
        every: Steps between two saves.
        ends_on_interrupt: True: Ctrl-C ends the search with KeyboardInterrupt, to be resumed (a study's stage
            is then not done). False: it gives the frontier found so far, as a notebook wants it.

    Example:
        >>> wb.Checkpoint(tmp_path / "search.safetensors", every=5).every
        5
    """

    path: Path
    every: int = 10
    ends_on_interrupt: bool = False


def search(
    model: Any,
    objective: Objective,
    contexts: Contexts,
    method: SearchMethod | None = None,
    budget: Budget | None = None,
    seed: int = 0,
    *,
    optimizations: Optimizations | None = None,
    batch_tokens: int | None = None,
    lexicon: Lexicon | torch.Tensor | None = None,
    on_step: Callable[[SearchProgress], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Frontier:
    """Prompts for the contexts' slot that maximise the objective, from the most fluent to the strongest.

    Same seed, machine and batch size: same bits. Ctrl-C ends in order with the frontier found so far.

    Args:
        model: A loaded model or its runner.
        objective: What is maximised; calibrate it first where it has a scale.
        contexts: Questions in their template (`make_contexts`); scores are means over all of them.
        method: EPO() when None.
        budget: 60 s when None.
        seed: Of all draws.
        optimizations: All exact ones when None.
        batch_tokens: Tokens per batch; None: as many as fit into the free memory.
        lexicon: Restricts the tokens further (`make_lexicon`, or a mask, bool [d_vocab]).
        on_step: Called after each step.
        checkpoint: Where the state is saved.

    Returns:
        The frontier: no candidate is both more fluent and stronger than another. Choose one with
        `Frontier.select`.

    Raises:
        UserError: A prompt that leaves no room in the model's context, an empty token set, or a checkpoint of
            another search.

    Example:
        >>> goal = -wb.projection(direction).calibrate(model, contexts)
        >>> found = wb.search(model, goal, contexts, wb.EPO(length=4, population=2, children=4), wb.Budget(steps=2), seed=0)
        >>> entropies = [candidate.cross_entropy for candidate in found.candidates]
        >>> entropies == sorted(entropies)
        True
    """
    runner, method, budget = runner_for(model), method or EPO(), budget or Budget(seconds=60)
    _check_room(runner, contexts, method.length)
    before = _counters(runner)
    began = time.perf_counter()
    scorer = Scorer(runner, objective, contexts, optimizations, batch_tokens or CEILING[runner.device.type])
    bench = SearchToolkit.make(scorer, seed, lexicon)
    key = _key(bench, objective, contexts, method, seed, batch_tokens)
    state = _first_state(bench, method, checkpoint, key)
    bench.memory.update(state.memory)
    _set_batch_size(scorer, method, state, fixed=batch_tokens is not None)
    already = Cost(**state.spent) if state.spent else Cost()
    if state.spent:  # the prefixes were counted by the run that was stopped
        already, before = (
            already + Cost(repeated=_layers(runner) - before["forward"] - before["backward"]),
            _counters(runner),
        )
    call = runner.shape.n_layers * float(np.mean([len(c.ids(())) for c in contexts]) + method.typical_length)

    def spent() -> Cost:
        now = _counters(runner)
        whole = already + Cost(
            **{name: now[name] - before[name] for name in now}, seconds=time.perf_counter() - began
        )
        return replace(whole, model_calls=(whole.forward + whole.backward) / call)

    interrupted = False
    try:
        while budget.used(spent(), state.step) < 1:
            _step(bench, method, state)
            cost = spent()
            state.spent = asdict(cost)
            state.history.append(history_row(state, cost))
            if on_step:
                on_step(progress_of(state, cost, budget))
            if checkpoint and state.step % checkpoint.every == 0:
                save_state(checkpoint.path, key, state, bench.generator)
    except KeyboardInterrupt:
        if state.archive is None or (checkpoint and checkpoint.ends_on_interrupt):
            raise
        interrupted = True
    if state.archive is None:
        raise UserError("the search ended before its first step was done: give it a larger budget")
    warnings, candidates = method.warnings(bench), finish(scorer, state.archive)
    return Frontier(
        candidates,
        pd.DataFrame(state.history),
        spent(),
        method.name,
        seed,
        objective.sign,
        contexts.slot,
        contexts.metric,
        interrupted,
        describe(objective),
        warnings,
    )


def finish(scorer: Scorer, archive: ScoredPrompts) -> tuple[Candidate, ...]:
    """The archive as candidates, each scored again from its final string; strings whose ids changed are left out."""
    runner, found = scorer.runner, []
    for ids in as_prompts(archive.ids):
        text = runner.decode(ids).strip()
        if encode_prompt(runner, scorer.contexts, text) == ids:
            scored = scorer.score(torch.tensor([ids], device=runner.device))
            found.append(Candidate(ids, text, float(scored.objective), float(scored.cross_entropy)))
    return tuple(sorted(found, key=lambda c: c.cross_entropy))


def _step(bench: SearchToolkit, method: SearchMethod, state: SearchState) -> None:
    """One step of the method; the archive keeps what is worth reporting."""
    pool, state.population, scored = method.step(bench, state.population, state.archive, state.step)
    pool = pool.on_host()
    state.archive = method.archive(bench, pool if state.archive is None else state.archive.join(pool))
    state.memory = bench.memory
    state.chunk = (bench.scorer.chunk.tokens, bench.scorer.chunk.gradient_tokens)
    state.candidates += scored
    state.step += 1


def _set_batch_size(scorer: Scorer, method: SearchMethod, state: SearchState, fixed: bool) -> None:
    """That of the resumed search; else, where none was given and the largest does not fit, as many tokens as the free memory holds."""
    if state.chunk:
        scorer.chunk.tokens, scorer.chunk.gradient_tokens = state.chunk
    elif not fixed and not fits_in_memory(scorer.runner, scorer.contexts, method.length, scorer.chunk):
        scorer.plan(method.length, method.population, method.population * method.children)


def _first_state(
    bench: SearchToolkit, method: SearchMethod, checkpoint: Checkpoint | None, key: str
) -> SearchState:
    if checkpoint and checkpoint.path.exists():
        return load_state(checkpoint.path, key, bench.generator)
    return SearchState(method.start(bench), None)


def _counters(runner: Runner) -> dict[str, int]:
    meter = runner.meter
    return {
        "forward": meter.forward,
        "backward": meter.backward,
        "unembedded": meter.unembedded,
        "flops": meter.flops,
    }


def _layers(runner: Runner) -> int:
    return runner.meter.forward + runner.meter.backward


def _check_room(runner: Runner, contexts: Contexts, length: int) -> None:
    longest = max(len(c.sequence(())) for c in contexts.branched)
    if longest + length > runner.shape.n_ctx:
        raise UserError(
            f"a prompt of {length} tokens leaves no room: the longest context has {longest} tokens, the model holds {runner.shape.n_ctx}"
        )


def _key(
    bench: SearchToolkit,
    objective: Objective,
    contexts: Contexts,
    method: SearchMethod,
    seed: int,
    batch_tokens: int | None,
) -> str:
    parts = {
        "model": bench.scorer.runner.fingerprint,
        "objective": describe(objective),
        "contexts": [c.ids(()) for c in contexts],
        "slot": contexts.slot,
        "method": [method.name, method.model_dump()],
        "allowed": [describe(bench.first), describe(bench.later)],
        "savings": describe(bench.scorer.optimizations),
        "seed": seed,
        "batch_tokens": batch_tokens,
    }
    if not all(c.one_token for c in contexts):
        parts["answers"] = [(c.answers, c.weights, c.offsets) for c in contexts]
    return search_key(parts)
