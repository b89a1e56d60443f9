"""`attribute`: which token of a prompt does what to the direction, the latents and the answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from workbench.attribution.attribution_patching import path
from workbench.attribution.attribution_problem import AttributionProblem, Ids
from workbench.attribution.attribution_targets import as_targets
from workbench.attribution.circuit import circuit as find_circuit
from workbench.attribution.dose_response import dose_response
from workbench.attribution.estimator import ESTIMATORS, EffectEstimate, Estimator
from workbench.attribution.ledger import JUDGE, Ledger
from workbench.attribution.mediation import as_mediator, mediate, mediators
from workbench.attribution.token_interactions import interactions
from workbench.attribution.token_removal import TokenRemoval
from workbench.contexts import Contexts
from workbench.errors import UserError
from workbench.models import runner_for
from workbench.prompt_tokens import encode_prompt

#: The circuit's many patches are made on so many contexts at most.
CIRCUIT_CONTEXTS = 8


@dataclass(frozen=True)
class AttributionOptions:
    """What else `attribute` measures, and how.

    Attributes:
        pairs: Interactions are measured among so many strongest tokens; 0: none.
        mediation: Also split the whole effect on the answer into what goes through each direction, through
            all latents together, and around them, and compare the prompt's doses with those of steering along
            the first direction.
        nodes: The so many heads and MLPs that carry the effect, patched exactly; 0: none.
        controls: Random directions that are mediated through as well, since in a small model much goes
            through any axis of large spread.
        batch_tokens: Tokens per batch.

    Example:
        >>> wb.AttributionOptions(pairs=0, nodes=0).mediation
        True
    """

    pairs: int = 4
    mediation: bool = True
    nodes: int = 6
    controls: Sequence[Any] = ()
    batch_tokens: int = 8192


def attribute(
    model: Any,
    prompt: str | Sequence[int] | Any,
    targets: Any,
    contexts: Contexts,
    estimators: Sequence[str | Estimator] = ("removal", "gradient_x_input"),
    seed: int = 0,
    circuit: int = 0,
    options: AttributionOptions | None = None,
) -> Ledger:
    """Each token's effect on each target, over all contexts, by each estimator.

    Args:
        model: A loaded model or its runner.
        prompt: Text, token ids, or what a search or comparison calls a prompt (with `.ids` or `.prompt`).
        targets: Directions, objectives, or a mapping of names to them; the answer's log-odds always come
            first (of whole answers, as the comparison counts them).
        contexts: Questions in their template.
        estimators: Names of ESTIMATORS or values such as `ShapleyValues(pairs=20)`; exact removal is always
            run, because it judges the others.
        seed: Of sampled estimators.
        circuit: A graph of so many heads and MLPs with its faithfulness (0: none), on at most
            CIRCUIT_CONTEXTS contexts.
        options: Everything else.

    Returns:
        The ledger. Sign: plus means that the token raises the target.

    Raises:
        UserError: An empty or too long prompt, unknown estimators or targets.

    Example:
        >>> ledger = wb.attribute(model, "be blunt", [direction], contexts, options=wb.AttributionOptions(pairs=0, nodes=0))
        >>> ledger.tokens
        ('be', 'blunt')
    """
    runner, options = runner_for(model), options or AttributionOptions()
    ids = _prompt_ids(runner, prompt, contexts)
    chosen = _estimators(estimators)
    problem = AttributionProblem(runner, ids, contexts, as_targets(targets), seed, options.batch_tokens)
    _check(problem)
    estimates: dict[str, EffectEstimate] = {}
    seconds: dict[str, float] = {}
    for estimator in chosen:
        began = time.perf_counter()
        estimates[estimator.name] = estimator.estimate(problem)
        seconds[estimator.name] = round(time.perf_counter() - began, 3)
    found = interactions(problem, estimates[JUDGE].values, top=options.pairs) if options.pairs >= 2 else ()
    chance = [
        replace(as_mediator(f"random direction {i}", control), control=True)
        for i, control in enumerate(options.controls, start=1)
    ]
    split = mediate(problem, [*mediators(problem.targets), *chance]) if options.mediation else ()
    first = next((t for t in problem.targets.items if t.kind == "direction"), None)
    doses = dose_response(problem, first) if options.mediation and first is not None else ()
    graph = (
        find_circuit(replace(problem, contexts=contexts.take(CIRCUIT_CONTEXTS, seed)), circuit)
        if circuit
        else None
    )
    carriers = graph.path if graph else path(problem, options.nodes) if options.nodes else None
    tokens = tuple(runner.decode([token]) for token in ids)
    total = problem.with_prompt - problem.without_prompt
    return Ledger(
        ids,
        tokens,
        runner.decode(ids).strip(),
        problem.targets,
        estimates,
        contexts.groups,
        total,
        pairs=found,
        seconds=seconds,
        mediation=split,
        path=carriers,
        circuit=graph,
        dose=doses,
    )


def _prompt_ids(runner: Any, prompt: Any, contexts: Contexts) -> Ids:
    if not len(contexts):
        raise UserError("no contexts: expected at least one question to attribute on")
    given = getattr(prompt, "ids", None) or getattr(prompt, "prompt", None) or prompt
    ids = encode_prompt(runner, contexts, given) if isinstance(given, str) else tuple(int(i) for i in given)
    if not ids:
        raise UserError("an empty prompt has no tokens to attribute to: expected at least one")
    outside = next((i for i in ids if not 0 <= i < runner.shape.d_vocab), None)
    if outside is not None:
        raise UserError(
            f"token id {outside} does not exist: this model's vocabulary has {runner.shape.d_vocab} tokens"
        )
    return ids


def _estimators(given: Sequence[str | Estimator]) -> list[Estimator]:
    given = [given] if isinstance(given, str) else list(given)
    made: dict[str, Estimator] = {JUDGE: TokenRemoval()}
    for estimator in given:
        value = ESTIMATORS[estimator]() if isinstance(estimator, str) else estimator
        made[value.name] = value
    return list(made.values())


def _check(problem: AttributionProblem) -> None:
    longest = max(len(context.ids(problem.prompt)) for context in problem.contexts)
    if longest > problem.runner.shape.n_ctx:
        raise UserError(
            f"the prompt makes a question of {longest} tokens: this model's context holds {problem.runner.shape.n_ctx}"
        )
    for site in problem.targets.sites:
        site.checked(problem.runner.shape.n_layers)
