"""`attribute`: the effect of each token of a prompt on directions, latents and the answer."""

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

#: Largest number of contexts for the circuit, which needs many patched forward passes per context.
CIRCUIT_CONTEXTS = 8


@dataclass(frozen=True)
class AttributionOptions:
    """Analyses that `attribute` runs in addition to the effects of single prompt tokens.

    Attributes:
        pairs: Number of strongest tokens; the interaction of every two of these is measured. 0 for none.
        mediation: Whether to split the prompt's effect on the answer into three parts: through each given
            direction, through all given SAE latents together, and the rest. Dose-response curves are measured
            as well: the prompt's first 1, 2, ... tokens, compared with steering along the first given
            direction.
        nodes: Number of attention heads and MLPs to list: those that carry most of the effect, each patched
            exactly. 0 for none.
        controls: Random directions, as a control of the mediation: in a small model, much of the effect can
            go through any axis with a large spread.
        batch_tokens: Largest number of tokens in one forward pass.

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
    """Measure how much each token of a prompt changes the answer, directions and latents (the targets).

    Args:
        model: A loaded model or its runner.
        prompt: Text, token ids, or a result of a search or comparison that has `.ids` or `.prompt`.
        targets: Directions, latents or objectives, or a mapping of names to them. The log-odds of the
            persona's answer are added as the first target if they are missing. They are computed from all
            tokens of the answers.
        contexts: Questions in their chat template, each with a slot (a place for the prompt).
        estimators: Names from ESTIMATORS or values such as `ShapleyValues(pairs=20)`. Exact removal is always
            run, because the other estimators are compared with it.
        seed: Seed of the estimators that sample.
        circuit: Number of heads and MLPs in a circuit that is to be found and evaluated for faithfulness, on
            at most CIRCUIT_CONTEXTS contexts; 0 for no circuit.
        options: Other analyses; None for the defaults of `AttributionOptions`.

    Returns:
        The ledger: effects by token, target and estimator. Positive means that the token raises the target.

    Raises:
        UserError: The prompt is empty or too long for the model, or an estimator or a target is unknown.

    Example:
        >>> quick = wb.AttributionOptions(pairs=0, nodes=0)
        >>> ledger = wb.attribute(model, "be blunt", [direction], contexts, options=quick)
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
