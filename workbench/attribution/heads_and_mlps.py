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
    """A batch of questions, once with the prompt (clean run) and once with neutral tokens (corrupted run).

    Attributes:
        members: Indices of the contexts (questions in their chat template).
        clean: The token sequences with the prompt.
        corrupted: The token sequences with the neutral tokens.
        places: Which token positions belong to each place of the text (each prompt token, the rest of the
            question, the decision token); the same in both runs.
    """

    members: list[int]
    clean: ScoredRows
    corrupted: ScoredRows
    places: Bool[Tensor, "place batch pos"]


def grid_shape(problem: AttributionProblem) -> Key:
    """Return the numbers of layers, of units per layer and of places of the text.

    Units are the attention heads and one MLP. Places are the prompt's tokens, the rest of the question and
    the decision token (the last token before the answer).

    Args:
        problem: Attribution problem with a model and a prompt.
    """
    shape = problem.runner.shape
    return shape.n_layers, shape.n_heads + 1, len(problem.prompt) + 2


def site_of(problem: AttributionProblem, key: Key) -> Site:
    """Return the site (layer and hook) at which the output of a head or MLP is read.

    Args:
        problem: Attribution problem, from which the model is taken.
        key: The head or MLP as (layer, unit, place of the text).
    """
    return Site(key[0], "z" if key[1] < problem.runner.shape.n_heads else "mlp_out")


def pairs(problem: AttributionProblem, other: Ids) -> Iterator[PromptPair]:
    """Yield all questions in batches, each with the prompt and with neutral tokens in its place.

    Args:
        problem: Model, prompt and contexts.
        other: Token ids of the neutral prompt, as many as the prompt has.
    """
    for members in problem.context_batches(copies=2):
        contexts = [problem.contexts[i] for i in members]
        clean, corrupted = (problem.rows(contexts, [p] * len(members)) for p in (problem.prompt, other))
        yield PromptPair(members, clean, corrupted, _places(problem, clean))


@torch.no_grad()
def activations(problem: AttributionProblem, rows: ScoredRows) -> Activations:
    """Run a batch and return the output of every attention head and MLP at every position.

    Args:
        problem: Attribution problem, from which the model is taken. A model without MLPs gives no MLP
            outputs.
        rows: The batch of token sequences.
    """
    sites = [Site(layer, hook) for layer in range(problem.runner.shape.n_layers) for hook in ("z", "mlp_out")]
    with problem.runner.capture(sites) as caught:
        problem.run(rows, problem.runner.embed(rows.ids))
    return {site: split(problem, site, activation.float()) for site, activation in caught.items()}


def gradients(problem: AttributionProblem, rows: ScoredRows, found: Activations) -> Activations:
    """Compute the gradient of the first target with respect to the output of every head and MLP.

    The gradient is taken at a zero tensor that is added to each output. The gradient of the output alone
    would be missing on a TransformerBridge, which passes the head outputs to the hook as a copy.

    Args:
        problem: Model, prompt, contexts and targets.
        rows: The batch of token sequences; the target is summed over it.
        found: Outputs of all heads and MLPs in this batch; only their sites are used.
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
    """Score the prompt with the outputs of some heads and MLPs replaced by those of another run.

    Args:
        problem: Model, prompt, contexts and targets.
        pair: The batch in both runs; the run with the prompt is scored.
        donors: Outputs of all heads and MLPs in the other run.
        nodes: Mask of the heads and MLPs to replace, at places of the text.

    Returns:
        Score of each target for each question, in the target's unit.
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
    """Build a hook function that replaces parts of an activation by those of another run.

    Args:
        problem: Attribution problem, from which the model is taken.
        site: Site (layer and hook) of the heads or of the MLP.
        donor: Activation of the other run at the same site.
        mask: Positions and heads at which the activation is replaced.
    """

    def edit(activation: Tensor) -> Tensor:
        now = split(problem, site, activation)
        return torch.where(mask[..., None], donor.to(now.dtype), now).reshape(activation.shape)

    return edit


def split(
    problem: AttributionProblem, site: Site, activation: Tensor
) -> Float[Tensor, "batch pos head width"]:
    """Reshape an activation so that attention heads have their own axis.

    Args:
        problem: Attribution problem, from which the model is taken.
        site: Site (layer and hook) of the activation.
        activation: Head outputs with or without their own axis, or an MLP output, which counts as one head.
    """
    if site.hook == "z" and activation.ndim == 4:
        return activation
    return rearrange(
        activation,
        "batch pos (head width) -> batch pos head width",
        head=problem.runner.shape.n_heads if site.hook == "z" else 1,
    )


def only(problem: AttributionProblem, *keys: Key) -> Nodes:
    """Build a mask that is true for the given heads and MLPs only.

    Args:
        problem: Model and prompt, which determine the mask's shape.
        keys: The heads and MLPs as (layer, unit, place of the text).
    """
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
