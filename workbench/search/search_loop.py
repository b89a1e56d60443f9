"""The engine that all search methods share.

1. The caller calibrates the objective. Contexts, allowed tokens and batch sizes are fixed once, at the start.
2. At each step the parents run through all blocks (log-probabilities, caches) and the method proposes
   children. Children and parents are scored on the same contexts in the same pass. The method selects the
   next population, and the archive keeps the frontier of all scored prompts.
3. At the end every archived prompt is decoded to text, encoded again inside its context, and scored in full.
   These are the reported scores.

The same seed, machine and batch size give the same bits. Ctrl-C ends the search with the frontier found so
far. With a checkpoint after every `every` steps, a killed search resumes to the bits of an uninterrupted one.
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
from workbench.search.scored_prompts import Ids, as_prompts
from workbench.search.scoring.batch_size import CEILING, fits_in_memory
from workbench.search.scoring.measured_batch_size import set_batch_size
from workbench.search.scoring.prefix_cache import Optimizations
from workbench.search.scoring.scorer import Scorer
from workbench.search.search_method import SearchMethod
from workbench.search.search_progress import SearchProgress, history_row, progress_of
from workbench.search.search_state import SearchState, load_state, save_state, search_key
from workbench.search.toolkit import SearchToolkit


@dataclass(frozen=True)
class Checkpoint:
    """File in which the state of a search is saved; if the file exists, the search resumes from it.

    Attributes:
        path: The file.
        every: Number of search steps between two saves.
        ends_on_interrupt: If True, Ctrl-C ends the search with KeyboardInterrupt, so that a study can resume
            it. If False, Ctrl-C returns the frontier found so far, for use in a notebook.

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
    """Search for prompts that maximise an objective, at several levels of fluency.

    The prompts are inserted in one place (the slot) of each question's chat, such as the system message. The
    same seed, machine and batch size give the same bits. Ctrl-C ends the search with the frontier found so
    far.

    Args:
        model: A loaded model or its runner.
        objective: The objective to maximise; calibrate it first if it has a scale.
        contexts: Questions, rendered as chats with a slot for the prompt (`make_contexts`); scores are means
            over all of them.
        method: The search method; EPO() when None.
        budget: Limit of steps, seconds or model calls; 60 s when None.
        seed: Seed of all random draws.
        optimizations: Which optimizations are used; all exact ones when None.
        batch_tokens: Tokens per batch; None: as many as fit into the free memory.
        lexicon: Restricts the allowed tokens (`make_lexicon`, or a mask, bool [d_vocab]); None for no
            restriction.
        on_step: Function that is called with the progress after each step.
        checkpoint: File in which the state is saved; None for no file.

    Returns:
        The frontier: no candidate is both more fluent and stronger than another. Choose one with
        `Frontier.select`.

    Raises:
        UserError: A prompt leaves no room in the model's context, no token is allowed, or the checkpoint
            belongs to another search.

    Example:
        >>> goal = -wb.projection(direction).calibrate(model, contexts)
        >>> method = wb.EPO(length=4, population=2, children=4)
        >>> found = wb.search(model, goal, contexts, method, wb.Budget(steps=2), seed=0)
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
    _choose_batch_size(scorer, method, state, fixed=batch_tokens is not None)
    already = Cost(**state.spent) if state.spent else Cost()
    if state.spent:  # the stopped run has already counted the prefixes
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
    warnings, candidates = method.warnings(bench), finish(scorer, method.final(bench, state.archive))
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


def finish(scorer: Scorer, prompts: Ids) -> tuple[Candidate, ...]:
    """Turn the prompts found by a search into candidates, each scored again from its final text.

    A prompt is left out if its text, encoded inside the chat, has other token ids.

    Args:
        scorer: The search's scorer.
        prompts: Token ids of the prompts.

    Returns:
        The candidates, most fluent first.
    """
    runner, found = scorer.runner, []
    for ids in as_prompts(prompts):
        text = runner.decode(ids).strip()
        if encode_prompt(runner, scorer.contexts, text) == ids:
            scored = scorer.score(torch.tensor([ids], device=runner.device))
            found.append(Candidate(ids, text, float(scored.objective), float(scored.cross_entropy)))
    return tuple(sorted(found, key=lambda c: c.cross_entropy))


def _step(bench: SearchToolkit, method: SearchMethod, state: SearchState) -> None:
    """Run one step of the method and add the scored prompts to the archive."""
    pool, state.population, scored = method.step(bench, state.population, state.archive, state.step)
    pool = pool.on_host()
    state.archive = method.archive(bench, pool if state.archive is None else state.archive.join(pool))
    state.memory = bench.memory
    state.chunk = (bench.scorer.chunk.tokens, bench.scorer.chunk.gradient_tokens)
    state.candidates += scored
    state.step += 1


def _choose_batch_size(scorer: Scorer, method: SearchMethod, state: SearchState, fixed: bool) -> None:
    """Set the batch size: that of the resumed search, or one that fits into the free memory.

    Memory is measured only if no size was given and the largest may not fit.
    """
    if state.chunk:
        scorer.chunk.tokens, scorer.chunk.gradient_tokens = state.chunk
    elif not fixed and not fits_in_memory(scorer.runner, scorer.contexts, method.length, scorer.chunk):
        set_batch_size(scorer, method.length, method.population, method.population * method.children)


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
