"""The grid of heads and MLPs at places of the text, and how a set of them is patched.

1. A unit is an attention head (read at z) or an MLP (read at its output) of one layer. A place is one prompt
   token, the rest of the question, or the decision token (the last token before the answer, together with the
   answer's tokens if there are several). A node is a unit at a place.
2. The clean run has the prompt in its slot; the corrupted run has the same number of neutral tokens and is
   otherwise equal. Before the prompt both runs are the same, so there are no nodes there.
3. Patching a set of nodes: the clean run is repeated, but each of these nodes outputs what it did in the
   corrupted run, and everything after it is recomputed. With all nodes patched, the score is that of the
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
#: A node as (layer, unit, place). Units: the heads, then the MLP. Places: the prompt tokens, then the
#: question, then the decision token.
Key = tuple[int, int, int]
Nodes = Bool[np.ndarray, "layer unit place"]


@dataclass(frozen=True)
class PromptPair:
    """A batch of contexts in the clean run (with the prompt) and the corrupted run (with neutral tokens).

    Attributes:
        members: Indices of the contexts.
        clean: Rows with the prompt.
        corrupted: Rows with the neutral tokens.
        places: Which positions belong to each place of the text; the same in both runs.
    """

    members: list[int]
    clean: ScoredRows
    corrupted: ScoredRows
    places: Bool[Tensor, "place batch pos"]


def grid_shape(problem: AttributionProblem) -> Key:
    """Return the grid's shape: layers, units (heads and one MLP), places (prompt tokens and two more)."""
    shape = problem.runner.shape
    return shape.n_layers, shape.n_heads + 1, len(problem.prompt) + 2


def site_of(problem: AttributionProblem, key: Key) -> Site:
    """Return the site at which a head or MLP, given as (layer, unit, place), is read."""
    return Site(key[0], "z" if key[1] < problem.runner.shape.n_heads else "mlp_out")


def pairs(problem: AttributionProblem, other: Ids) -> Iterator[PromptPair]:
    """Yield all contexts in batches, with the prompt and with as many neutral tokens (`other`)."""
    for members in problem.context_batches(copies=2):
        contexts = [problem.contexts[i] for i in members]
        clean, corrupted = (problem.rows(contexts, [p] * len(members)) for p in (problem.prompt, other))
        yield PromptPair(members, clean, corrupted, _places(problem, clean))


@torch.no_grad()
def activations(problem: AttributionProblem, rows: ScoredRows) -> Activations:
    """Return the output of every unit at every position; MLP outputs are missing if the model has no MLPs."""
    sites = [Site(layer, hook) for layer in range(problem.runner.shape.n_layers) for hook in ("z", "mlp_out")]
    with problem.runner.capture(sites) as caught:
        problem.run(rows, problem.runner.embed(rows.ids))
    return {site: split(problem, site, activation.float()) for site, activation in caught.items()}


def gradients(problem: AttributionProblem, rows: ScoredRows, found: Activations) -> Activations:
    """Compute the gradient of the first target with respect to the output of every head and MLP.

    The gradient is taken at a zero tensor that is added to each output. A bridge passes the head outputs to
    the hook as a copy on which the answer does not depend, so their own gradient would be missing.

    Args:
        problem: Model, prompt, contexts and targets.
        rows: The batch; the target is summed over it.
        found: Outputs of the units in this batch, whose sites are used.
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
    """Score the clean run with the outputs of some heads and MLPs replaced by those of another run.

    Args:
        problem: Model, prompt, contexts and targets.
        pair: The batch.
        donors: Outputs of all units in the other run.
        nodes: The nodes to replace.

    Returns:
        Scores, each in its target's unit.
    """
    with ExitStack() as edits:
        for site, donor in donors.items():
            mask = _mask(problem, pair, site, nodes)
            if bool(mask.any()):
                edits.enter_context(problem.runner.edit(site.name, swap(problem, site, donor, mask)))
        return problem.run(pair.clean, problem.runner.embed(pair.clean.ids))


def swap(
    problem: AttributionProblem, site: Site, donor: Tensor, mask: Bool[Tensor, "batch pos head"]
) -> Callable[[Tensor], Tensor]:
    """Build the edit that replaces an activation at a site by a donor's.

    Args:
        problem: The problem.
        site: Site of the heads or of the MLP.
        donor: Activation of another run.
        mask: Where to replace.
    """

    def edit(activation: Tensor) -> Tensor:
        now = split(problem, site, activation)
        return torch.where(mask[..., None], donor.to(now.dtype), now).reshape(activation.shape)

    return edit


def split(
    problem: AttributionProblem, site: Site, activation: Tensor
) -> Float[Tensor, "batch pos head width"]:
    """Reshape the activation of a site so that the heads have their own axis; an MLP counts as one head."""
    if site.hook == "z" and activation.ndim == 4:
        return activation
    return rearrange(
        activation,
        "batch pos (head width) -> batch pos head width",
        head=problem.runner.shape.n_heads if site.hook == "z" else 1,
    )


def only(problem: AttributionProblem, *keys: Key) -> Nodes:
    """Build the set of heads and MLPs that contains exactly the given (layer, unit, place) keys."""
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
