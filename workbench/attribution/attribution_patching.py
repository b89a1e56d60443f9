"""The path: which heads and MLPs, at which token, carry a prompt's effect to the answer. Attribution patching, then exact patches.

1. Clean run: the prompt. Corrupted run: neutral tokens of the same number in its place, everything else
   equal.
2. A node is a head's output (z) or an MLP's output in one layer, at one place: a prompt token, the question,
   the decision token.
3. Estimate of a node = (clean activation - corrupted activation) . d answer / d activation in the clean run:
   what the answer would lose, to first order, if this node alone were as in the corrupted run (Nanda 2023;
   Kramar et al. 2024, AtP*).
4. The strongest nodes are patched for real; their exact effects, and the rank correlation of estimate and
   exact, are next to it.

Effects of nodes do not add up to the whole: nodes are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Float

from workbench.attribution import heads_and_mlps as units
from workbench.attribution.attribution_problem import AttributionProblem, Ids
from workbench.attribution.attribution_targets import ANSWER, AttributionTarget, AttributionTargets
from workbench.attribution.heads_and_mlps import Key
from workbench.html_text import ShowsTable
from workbench.models import Site
from workbench.objectives import answer_log_odds, neutral_prompts
from workbench.schema import PatchedNodeEntry
from workbench.statistics import spearman


@dataclass(frozen=True)
class CircuitNode:
    """One part of the model at one place.

    head: None for an MLP. place: index of the prompt token, or -2 for the rest of the question, -1 for the
    decision token. estimate, exact: mean effect on the answer's log-odds; exact is None where not patched.
    """

    site: Site
    head: int | None
    place: int
    estimate: float
    exact: float | None = None

    @property
    def name(self) -> str:
        """Its name, such as `head 3 of layer 2` or `MLP of layer 2`."""
        return f"{'MLP' if self.head is None else f'head {self.head}'} of layer {self.site.layer}"


@dataclass(frozen=True, repr=False)
class PromptPath(ShowsTable):
    """The strongest nodes, by exact effect. agreement: rank correlation of estimate and exact over them (None below 3)."""

    nodes: tuple[CircuitNode, ...]
    tokens: tuple[str, ...]
    agreement: float | None

    def to_entries(self) -> list[PatchedNodeEntry]:
        """The entries of attribution.json's `nodes`."""
        places = {-2: "the question", -1: "the decision token"}
        named = [(n, places.get(n.place) or self.tokens[n.place]) for n in self.nodes]
        return [
            PatchedNodeEntry(node=n.name, token=token, estimate=n.estimate, exact=n.exact)
            for n, token in named
        ]

    def shown_table(self) -> tuple[str, pd.DataFrame]:
        """The parts with their effects."""
        agreement = (
            ""
            if self.agreement is None
            else f"; estimate and exact effect agree with a rank correlation of {self.agreement:.2f}"
        )
        rows = pd.DataFrame([entry.model_dump() for entry in self.to_entries()])
        return f"Heads and MLPs that carry the effect on the answer's log-odds{agreement}", rows


def path(problem: AttributionProblem, top: int = 8, corrupted: int = 2) -> PromptPath:
    """The `top` nodes by estimate, patched exactly.

    corrupted: neutral prompts that are averaged over. Costs one backward pass and `corrupted` forward passes
    a context, and top x corrupted forward passes a context for the exact effects.
    """
    answer = about_answer(problem)
    neutral = neutral_prompts(problem.runner, problem.contexts, corrupted, len(problem.prompt), problem.seed)
    estimates = np.mean([estimate(answer, other) for other in neutral], axis=0)
    keys = strongest(estimates, top)
    exact = np.mean([exact_effects(answer, other, keys) for other in neutral], axis=0).tolist()
    nodes = [
        make_node(answer, key, float(estimates[key]), value) for key, value in zip(keys, exact, strict=True)
    ]
    tokens = tuple(problem.runner.decode([token]) for token in problem.prompt)
    return PromptPath(
        tuple(sorted(nodes, key=lambda node: -abs(node.exact or 0.0))), tokens, agreement_of(nodes)
    )


def about_answer(problem: AttributionProblem) -> AttributionProblem:
    """The problem scored on the answer's log-odds alone, with a row for every branch of the answers."""
    return replace(
        problem, targets=AttributionTargets((AttributionTarget(ANSWER, answer_log_odds()),))
    ).branched


def estimate(problem: AttributionProblem, other: Ids) -> Float[np.ndarray, "layer unit place"]:
    """Attribution patching: each node's estimated effect on the first target, mean over contexts; `other` is the neutral prompt."""
    heads = problem.runner.shape.n_heads
    found = np.zeros(units.grid_shape(problem))
    for pair in units.pairs(problem, other):
        clean, donors = units.activations(problem, pair.clean), units.activations(problem, pair.corrupted)
        slopes = units.gradients(problem, pair.clean, clean)
        for site in clean:
            effect = ((clean[site] - donors[site]) * slopes[site]).sum(dim=-1)
            here = slice(0, heads) if site.hook == "z" else slice(heads, None)
            for place, mask in enumerate(pair.places):
                found[site.layer, here, place] += (
                    (effect * mask[..., None]).sum(dim=(0, 1)).double().cpu().numpy()
                )
    return found / len(problem.contexts)


def strongest(estimates: Float[np.ndarray, "layer unit place"], top: int) -> list[Key]:
    """The `top` nodes of the largest size, those of size 0 left out; ties by the lower index."""
    order = np.argsort(-np.abs(estimates), axis=None, kind="stable")[:top]
    kept = [np.unravel_index(flat, estimates.shape) for flat in order if estimates.flat[flat] != 0]
    return [(int(layer), int(unit), int(place)) for layer, unit, place in kept]


def exact_effects(problem: AttributionProblem, other: Ids, keys: list[Key]) -> list[float]:
    """Loss of the first target when one node at a time is as in the corrupted run, mean over contexts."""
    lost = np.zeros(len(keys))
    for pair in units.pairs(problem, other):
        donors = units.activations(problem, pair.corrupted)
        plain = units.patched(problem, pair, donors, units.only(problem))
        for k, key in enumerate(keys):
            lost[k] += float(
                (plain - units.patched(problem, pair, donors, units.only(problem, key)))[:, 0].sum()
            )
    return (lost / len(problem.contexts)).tolist()


def agreement_of(nodes: Sequence[CircuitNode]) -> float | None:
    """Rank correlation of estimated and exact effects; None with fewer than 3 nodes, or where one of them does not vary."""
    estimates, exact = [n.estimate for n in nodes], [n.exact or 0.0 for n in nodes]
    if len(nodes) < 3 or np.ptp(exact) == 0 or np.ptp(estimates) == 0:
        return None
    return spearman(estimates, exact)


def make_node(
    problem: AttributionProblem, key: Key, estimated: float, exact: float | None = None
) -> CircuitNode:
    """The node of a key."""
    _, unit, place = key
    heads, prompt = problem.runner.shape.n_heads, len(problem.prompt)
    return CircuitNode(
        units.site_of(problem, key),
        unit if unit < heads else None,
        place if place < prompt else place - prompt - 2,
        estimated,
        exact,
    )
