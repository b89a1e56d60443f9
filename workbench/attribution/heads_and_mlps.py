"""Heads and MLPs at places of the text: the grid that the path and the circuit are made of, and how a part of it is patched.

1. A unit is an attention head (read at z) or an MLP (read at its output) of one layer. A place is one prompt
   token, the rest of the question, or the decision token (with the answer's tokens after it, where answers
   have several). A node is a unit at a place.
2. A clean run has the prompt in the slot; a corrupted run has neutral tokens of the same number, everything
   else equal. Left of the prompt both runs are the same, so nodes there would carry nothing and are left out.
3. Patching a set of nodes: in the clean run each of them gives what it gave in the corrupted run; everything
   after it follows. With all nodes patched the decision token's residual, and so the score, is that of the
   corrupted run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.attribution.attribution_problem import AttributionProblem, Ids, ScoredRows
from workbench.models import Site

Activations = dict[Site, Float[Tensor, "batch pos head width"]]
#: (layer, unit, place). unit: heads, then the MLP. place: prompt tokens, then the question, then the decision
#: token.
Key = tuple[int, int, int]
Nodes = Bool[np.ndarray, "layer unit place"]


@dataclass(frozen=True)
class PromptPair:
    """A batch of contexts in both runs. members: their indices. places: which positions belong to each place (the same in both)."""

    members: list[int]
    clean: ScoredRows
    corrupted: ScoredRows
    places: Bool[Tensor, "place batch pos"]


def grid_shape(problem: AttributionProblem) -> Key:
    """Layers, heads and one MLP, prompt tokens and two more places."""
    shape = problem.runner.shape
    return shape.n_layers, shape.n_heads + 1, len(problem.prompt) + 2


def site_of(problem: AttributionProblem, key: Key) -> Site:
    """Where a node's unit is read."""
    return Site(key[0], "z" if key[1] < problem.runner.shape.n_heads else "mlp_out")


def pairs(problem: AttributionProblem, other: Ids) -> Iterator[PromptPair]:
    """All contexts with the prompt and with `other` (as many tokens) in the slot, in batches."""
    for members in problem.context_batches(copies=2):
        contexts = [problem.contexts[i] for i in members]
        clean, corrupted = (problem.rows(contexts, [p] * len(members)) for p in (problem.prompt, other))
        yield PromptPair(members, clean, corrupted, _places(problem, clean))


@torch.no_grad()
def activations(problem: AttributionProblem, rows: ScoredRows) -> Activations:
    """What every unit gives at every position; a model without MLPs leaves theirs out."""
    sites = [Site(layer, hook) for layer in range(problem.runner.shape.n_layers) for hook in ("z", "mlp_out")]
    with problem.runner.capture(sites) as caught:
        problem.run(rows, problem.runner.embed(rows.ids))
    return {site: split(problem, site, activation.float()) for site, activation in caught.items()}


def gradients(problem: AttributionProblem, rows: ScoredRows, found: Activations) -> Activations:
    """Gradient of the summed first target with respect to every unit's output.

    Of a zero that is added there, because a bridge hands its heads to the hook as a copy on which the answer
    does not depend.
    """
    added: dict[Site, Tensor] = {}

    def adds_zero(site: Site) -> Callable[[Tensor], Tensor]:
        def edit(activation: Tensor) -> Tensor:
            added[site] = torch.zeros_like(activation, requires_grad=True)
            return activation + added[site]

        return edit

    with torch.enable_grad(), ExitStack() as edits:
        for site in found:
            edits.enter_context(problem.runner.edit(site.name, adds_zero(site)))
        score = problem.run(rows, problem.runner.embed(rows.ids).detach())[:, 0].sum()
        taken = torch.autograd.grad(score, list(added.values()))
    return {site: split(problem, site, g.float()) for site, g in zip(added, taken, strict=True)}


@torch.no_grad()
def patched(
    problem: AttributionProblem, pair: PromptPair, donors: Activations, nodes: Nodes
) -> Float[Tensor, "batch target"]:
    """Scores of the clean run in which these nodes give what they gave in the donors' run."""
    with ExitStack() as edits:
        for site, donor in donors.items():
            mask = _mask(problem, pair, site, nodes)
            if bool(mask.any()):
                edits.enter_context(problem.runner.edit(site.name, swap(problem, site, donor, mask)))
        return problem.run(pair.clean, problem.runner.embed(pair.clean.ids))


def swap(
    problem: AttributionProblem, site: Site, donor: Tensor, mask: Bool[Tensor, "batch pos head"]
) -> Callable[[Tensor], Tensor]:
    """The edit that writes the donor's activation where the mask says so."""

    def edit(activation: Tensor) -> Tensor:
        now = split(problem, site, activation)
        return torch.where(mask[..., None], donor.to(now.dtype), now).reshape(activation.shape)

    return edit


def split(
    problem: AttributionProblem, site: Site, activation: Tensor
) -> Float[Tensor, "batch pos head width"]:
    """Heads on an axis of their own; an MLP counts as one head."""
    if site.hook == "z" and activation.ndim == 4:
        return activation
    return rearrange(
        activation,
        "batch pos (head width) -> batch pos head width",
        head=problem.runner.shape.n_heads if site.hook == "z" else 1,
    )


def only(problem: AttributionProblem, *keys: Key) -> Nodes:
    """The set of these nodes."""
    found = np.zeros(grid_shape(problem), dtype=bool)
    for key in keys:
        found[key] = True
    return found


def _mask(
    problem: AttributionProblem, pair: PromptPair, site: Site, nodes: Nodes
) -> Bool[Tensor, "batch pos head"]:
    heads = problem.runner.shape.n_heads
    here = torch.from_numpy(nodes[site.layer, :heads] if site.hook == "z" else nodes[site.layer, heads:]).to(
        pair.places.device
    )
    return torch.einsum("hk,kbp->bph", here.float(), pair.places.float()) > 0


def _places(problem: AttributionProblem, rows: ScoredRows) -> Bool[Tensor, "place batch pos"]:
    at = torch.arange(rows.ids.shape[1], device=rows.ids.device)[None]
    start, decision = rows.layout.prompt_start[:, None], rows.layout.decision[:, None]
    tokens = [(at == start + i) & (at < decision) for i in range(len(problem.prompt))]
    answer = (at >= decision) & (at < rows.length[:, None])
    return torch.stack([*tokens, (at >= rows.layout.prompt_stop[:, None]) & (at < decision), answer])
