"""Find the heads and MLPs that carry a prompt's effect to the answer, by attribution patching.

1. The clean run has the prompt; the corrupted run has the same number of neutral tokens in its place and is
   otherwise equal.
2. A node is the output of one attention head (z) or one MLP at one place: a prompt token, the rest of the
   question, or the decision token (the last token before the answer).
3. Estimate of a node = (clean activation - corrupted activation) . d answer / d activation in the clean run.
   To first order, this is how much log-odds the answer would lose if only this node were as in the corrupted
   run (Nanda 2023; Kramar et al. 2024, AtP*).
4. The nodes with the strongest estimates are patched; the result has their exact effects and the rank
   correlation between estimate and exact effect.

Effects of nodes do not add up to the whole effect, because nodes are not independent.
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
    """An attention head or MLP at one place of the text, with its effect on the answer.

    Attributes:
        site: Layer and hook at which the node's output is read.
        head: Index of the head; None for an MLP.
        place: Index of the prompt token; -2 for the rest of the question, -1 for the decision token (the last
            one before the answer).
        estimate: Effect on the answer's log-odds by attribution patching, mean over contexts.
        exact: Effect on the answer's log-odds by exact patching, mean over contexts; None if not patched.
    """

    site: Site
    head: int | None
    place: int
    estimate: float
    exact: float | None = None

    @property
    def name(self) -> str:
        """Name of the node, such as `head 3 of layer 2` or `MLP of layer 2`."""
        return f"{'MLP' if self.head is None else f'head {self.head}'} of layer {self.site.layer}"


@dataclass(frozen=True, repr=False)
class PromptPath(ShowsTable):
    """The heads and MLPs that carry most of a prompt's effect, strongest exact effect first.

    Attributes:
        nodes: The heads and MLPs.
        tokens: The prompt's tokens as text.
        agreement: Rank correlation over the nodes of effects estimated with gradients and effects of exact
            patching; None for fewer than 3 nodes.
    """

    nodes: tuple[CircuitNode, ...]
    tokens: tuple[str, ...]
    agreement: float | None

    def to_entries(self) -> list[PatchedNodeEntry]:
        """Convert the nodes to the entries of `nodes` in attribution.json."""
        places = {-2: "the question", -1: "the decision token"}
        named = [(n, places.get(n.place) or self.tokens[n.place]) for n in self.nodes]
        return [
            PatchedNodeEntry(node=n.name, token=token, estimate=n.estimate, exact=n.exact)
            for n, token in named
        ]

    def shown_table(self) -> tuple[str, pd.DataFrame]:
        """Return a caption and a table with one row per node: name, token, estimated and exact effect."""
        agreement = (
            ""
            if self.agreement is None
            else f"; estimate and exact effect agree with a rank correlation of {self.agreement:.2f}"
        )
        rows = pd.DataFrame([entry.model_dump() for entry in self.to_entries()])
        return f"Heads and MLPs that carry the effect on the answer's log-odds{agreement}", rows


def path(problem: AttributionProblem, top: int = 8, corrupted: int = 2) -> PromptPath:
    """Find the heads and MLPs that carry most of a prompt's effect, by attribution patching.

    Each effect is first estimated with gradients, against neutral prompts (random or sampled text of as many
    tokens). The strongest heads and MLPs are then patched exactly. The cost per context is one backward pass
    and `corrupted` forward passes for the estimates, and top x corrupted forward passes for the exact
    effects.

    Args:
        problem: Model, prompt and contexts; effects are measured on the answer's log-odds.
        top: Number of nodes to return (a node is a head or an MLP at one place of the text).
        corrupted: Number of neutral prompts to average over.

    Returns:
        The nodes, strongest exact effect first.
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
    """Return the problem with the answer's log-odds as its only target.

    If answers have several tokens, the contexts are expanded to one row per sequence that is scored.

    Args:
        problem: Model, prompt, contexts and any targets.
    """
    return replace(
        problem, targets=AttributionTargets((AttributionTarget(ANSWER, answer_log_odds()),))
    ).branched


def estimate(problem: AttributionProblem, other: Ids) -> Float[np.ndarray, "layer unit place"]:
    """Estimate the effect of every head and MLP on the problem's first target, by attribution patching.

    The clean run has the prompt. The corrupted run has a neutral prompt of as many tokens.

    Args:
        problem: Model, prompt, contexts and targets.
        other: Token ids of the neutral prompt.

    Returns:
        How much the target falls if only this head or MLP, at this place of the text, has its output of the
        corrupted run. This is a first-order estimate, averaged over contexts.
    """
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
    """Select the heads and MLPs with the largest absolute estimated effects.

    Ties go to the lower index. Estimates of exactly 0 are left out.

    Args:
        estimates: Estimated effect of each unit (attention head or MLP) at each place of the text.
        top: Number of units to return.

    Returns:
        (layer, unit, place) of each, strongest first.
    """
    order = np.argsort(-np.abs(estimates), axis=None, kind="stable")[:top]
    kept = [np.unravel_index(flat, estimates.shape) for flat in order if estimates.flat[flat] != 0]
    return [(int(layer), int(unit), int(place)) for layer, unit, place in kept]


def exact_effects(problem: AttributionProblem, other: Ids, keys: list[Key]) -> list[float]:
    """Measure the effect of some heads and MLPs on the problem's first target, by patching one at a time.

    Args:
        problem: Model, prompt, contexts and targets.
        other: Token ids of a neutral prompt, whose run gives the patched outputs.
        keys: The heads and MLPs, as (layer, unit, place of the text).

    Returns:
        For each, how much the target falls when its output is that of the neutral run, as a mean over
        contexts in the target's unit.
    """
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
    """Return the rank correlation of estimated and exact effects over some heads and MLPs.

    None for fewer than 3 nodes, or if all estimates or all exact effects are equal.
    """
    estimates, exact = [n.estimate for n in nodes], [n.exact or 0.0 for n in nodes]
    if len(nodes) < 3 or np.ptp(exact) == 0 or np.ptp(estimates) == 0:
        return None
    return spearman(estimates, exact)


def make_node(
    problem: AttributionProblem, key: Key, estimated: float, exact: float | None = None
) -> CircuitNode:
    """Build a `CircuitNode` (a head or MLP with its effect) from its indices.

    Args:
        problem: The attribution problem, which gives the number of heads and prompt tokens.
        key: The head or MLP at one place of the text, as (layer, unit, place).
        estimated: Estimated effect on the answer's log-odds.
        exact: Exact effect; None if not patched.
    """
    _, unit, place = key
    heads, prompt = problem.runner.shape.n_heads, len(problem.prompt)
    return CircuitNode(
        units.site_of(problem, key),
        unit if unit < heads else None,
        place if place < prompt else place - prompt - 2,
        estimated,
        exact,
    )
