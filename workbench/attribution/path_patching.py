"""Path patching: how much of the effect goes along each edge of a circuit.

1. A sender is a prompt token's embedding or a node (heads_and_mlps.py). Its change is its write to the
   residual stream in the corrupted run minus that in the clean run, at its place.
2. Sender to node: the node's input is the clean run's plus the sender's change. The node's resulting output
   is patched into the clean run, and everything after it is recomputed. The edge's effect is the loss of the
   answer's log-odds (Wang et al. 2022, arXiv 2211.00593; Goldowsky-Dill et al. 2023, arXiv 2304.05969).
3. All such edges are first estimated: minus the change times the gradient, at the node's input, of the node's
   effect on the answer (Syed et al. 2023, arXiv 2310.10348). The strongest are patched exactly.
4. Node to direction, latent or answer: the receiver's value without and with the node's change at the
   decision token (the last token before the answer), everything between them unchanged (direct effect; the
   final norm is recomputed).
5. Direction or latent to answer: its component of the residual stream at the decision token is replaced by
   that of the corrupted run, and everything after it is recomputed. Latent to direction: the projection of
   that component's change on the direction.

Sign: effect = clean - changed, so positive means that the prompt raises the receiver through this edge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.attribution import heads_and_mlps as units
from workbench.attribution.attribution_problem import AttributionProblem, ScoredRows
from workbench.attribution.attribution_targets import AttributionTarget, AttributionTargets
from workbench.attribution.heads_and_mlps import Activations, Key, PromptPair
from workbench.attribution.mediation import as_mediator
from workbench.models import Site
from workbench.objectives import Readout

#: A prompt token (its index), or a node.
Sender = int | Key
Change = Float[Tensor, "batch pos d_model"]


@dataclass(frozen=True)
class PatchingGround:
    """Activations of one batch of questions, from which the edges of a circuit are measured.

    Attributes:
        problem: The attribution problem with the answer's log-odds as its only target.
        pair: The batch with the prompt (clean) and with neutral tokens (corrupted).
        clean: Outputs of all units (heads and MLPs) in the clean run.
        donors: Outputs of all units in the corrupted run.
        slopes: Gradient of the answer's log-odds with respect to every unit's output in the clean run.
        before: Residual stream of the clean run before each block, and after the last block.
        parts: Residual stream at the decision token after each block, as (clean, corrupted).
        plain: The answer's log-odds in the clean run.
    """

    problem: AttributionProblem
    pair: PromptPair
    clean: Activations
    donors: Activations
    slopes: Activations
    before: tuple[Change, ...]
    parts: dict[Site, tuple[Float[Tensor, "batch d_model"], Float[Tensor, "batch d_model"]]]
    plain: Float[Tensor, " batch"]


def ground(answer: AttributionProblem, pair: PromptPair) -> PatchingGround:
    """Run a batch with the prompt and with neutral tokens, and keep the activations for path patching.

    Args:
        answer: The attribution problem with the answer's log-odds as its only target.
        pair: The batch with the prompt (clean) and with neutral tokens (corrupted).
    """
    layers = range(answer.runner.shape.n_layers)
    clean, donors = units.activations(answer, pair.clean), units.activations(answer, pair.corrupted)
    states = [_residuals(answer, rows) for rows in (pair.clean, pair.corrupted)]
    before = (*(states[0][Site(layer, "resid_pre")] for layer in layers), states[0][Site(layers[-1])])
    everyone = torch.arange(len(pair.members), device=before[0].device)
    at = pair.clean.layout.decision
    parts = {
        Site(layer): (
            states[0][Site(layer)][everyone, at].float(),
            states[1][Site(layer)][everyone, at].float(),
        )
        for layer in layers
    }
    with torch.no_grad():
        plain = answer.run(pair.clean, answer.runner.embed(pair.clean.ids))[:, 0]
    return PatchingGround(
        answer, pair, clean, donors, units.gradients(answer, pair.clean, clean), before, parts, plain
    )


def possible(
    problem: AttributionProblem, senders: list[Sender], nodes: list[Key]
) -> list[tuple[Sender, Key]]:
    """Return all edges along which information can flow in the model, as (sender, node).

    The sender must be earlier in the model than the receiver. A receiving head can read earlier places of the
    text, but an MLP reads its own place only.

    Args:
        problem: Model and prompt.
        senders: Prompt tokens, given by index, and heads and MLPs, as (layer, unit, place).
        nodes: Receiving heads and MLPs, as (layer, unit, place).
    """
    heads = problem.runner.shape.n_heads
    found: list[tuple[Sender, Key]] = []
    for sender in senders:
        layer, unit, place = (-1, 0, sender) if isinstance(sender, int) else sender
        for node in nodes:
            earlier = layer < node[0] or (layer == node[0] and unit < heads == node[1])
            if earlier and (place == node[2] if node[1] == heads else place <= node[2]):
                found.append((sender, node))
    return found


@torch.no_grad()
def change_of(g: PatchingGround, sender: Sender) -> Change:
    """Return how a sender's write to the residual stream changes: corrupted run minus clean run.

    Args:
        g: Activations of a batch in both runs.
        sender: A prompt token, given by index, or a head or MLP, as (layer, unit, place).
    """
    runner = g.problem.runner
    if isinstance(sender, int):
        moved = runner.embed(g.pair.corrupted.ids) - runner.embed(g.pair.clean.ids)
        return moved * g.pair.places[sender][..., None]
    site, place = units.site_of(g.problem, sender), g.pair.places[sender[2]]
    if site.hook == "mlp_out":
        return ((g.donors[site] - g.clean[site])[:, :, 0] * place[..., None]).to(g.before[0].dtype)
    mask = torch.zeros(g.clean[site].shape[:3], dtype=torch.bool, device=place.device)
    mask[:, :, sender[1]] = place
    out = Site(site.layer, "attn_out")
    with runner.edit(site.name, units.swap(g.problem, site, g.donors[site], mask)):
        changed = _block(g, site.layer, out)
    return changed - _block(g, site.layer, out)


def listening(g: PatchingGround, node: Key) -> Change:
    """Compute how the answer depends, through one head or MLP alone, on the residual stream before its block.

    The result is a gradient with respect to that residual stream. It is of the head's or MLP's output times
    the answer's gradient with respect to that output.

    Args:
        g: Activations and gradients of a batch.
        node: The head or MLP, as (layer, unit, place).
    """
    site = units.site_of(g.problem, node)
    with torch.enable_grad():
        added = torch.zeros_like(g.before[node[0]], requires_grad=True)
        heard = _heard(g, node, added)
        weight = g.slopes[site][:, :, _index(site, node)] * g.pair.places[node[2]][..., None]
        (gradient,) = torch.autograd.grad((heard[:, :, _index(site, node)] * weight).sum(), added)
    return gradient.detach()


@torch.no_grad()
def path_effect(g: PatchingGround, change: Change, node: Key) -> Float[Tensor, " batch"]:
    """Measure how much the answer's log-odds fall when one head or MLP alone receives a sender's change.

    Args:
        g: Activations of a batch in the clean and the corrupted run.
        change: Change (corrupted minus clean run) of what the sender writes to the residual stream
            (`change_of`).
        node: The receiving head or MLP, as (layer, unit, place).
    """
    site = units.site_of(g.problem, node)
    mask = torch.zeros(g.clean[site].shape[:3], dtype=torch.bool, device=change.device)
    mask[:, :, _index(site, node)] = g.pair.places[node[2]]
    with g.problem.runner.edit(site.name, units.swap(g.problem, site, _heard(g, node, change), mask)):
        return g.plain - g.problem.run(g.pair.clean, g.before[node[0]], start=node[0])[:, 0]


@torch.no_grad()
def direct_effects(
    g: PatchingGround, targets: AttributionTargets, sender: Key, change: Change
) -> Float[Tensor, "batch target"]:
    """Measure how much each target falls when a sender's change is added directly where the target is read.

    No component between them sees the change. The loss is 0 if the sender writes after the target's layer.

    Args:
        g: Activations of a batch in the clean and the corrupted run.
        targets: The receiving directions, latents and the answer.
        sender: The sending head or MLP, as (layer, unit, place).
        change: Change (corrupted minus clean run) of what the sender writes to the residual stream
            (`change_of`).
    """
    at = g.pair.clean.layout.decision
    here = change[torch.arange(len(at), device=at.device), at].float()
    plain = {site: g.parts[site][0] for site in targets.sites}
    moved = {site: x + here * (sender[0] <= site.layer) for site, x in plain.items()}
    rows, last = torch.arange(len(at), device=at.device), g.before[-1]
    after = last.index_put((rows, at), last[rows, at] + here.to(last.dtype))
    scores = []
    for resid, stream in ((plain, last), (moved, after)):
        single = {site: x[:, None] for site, x in resid.items()}
        scores.append(
            targets.score(
                Readout.of(g.problem.runner, single, stream, at, g.pair.clean.answers, range(len(at)))
            )
        )
    return scores[0] - scores[1]


@torch.no_grad()
def through(
    g: PatchingGround, target: AttributionTarget
) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch d_model"]]:
    """Measure how much the answer's log-odds depend on the prompt's change of a direction or latent.

    At the decision token (the last token before the answer), the component of the residual stream along the
    direction or latent is replaced by that of the corrupted run.

    Args:
        g: Activations of a batch in the clean and the corrupted run.
        target: The direction or latent.

    Returns:
        The loss of the answer's log-odds, and the change of the component.
    """
    mediator = as_mediator(target.name, target.objective)
    clean, corrupted = g.parts[mediator.site]
    moved = mediator.component(corrupted) - mediator.component(clean)
    after, at = mediator.site.layer + 1, g.pair.clean.layout.decision
    resid = g.before[after].clone()
    resid[torch.arange(len(at), device=at.device), at] += moved.to(resid.dtype)
    return g.plain - g.problem.run(g.pair.clean, resid, start=after)[:, 0], moved


def strongest_paths(
    answer: AttributionProblem, grounds: list[PatchingGround], nodes: list[Key], top: int
) -> list[tuple[Sender, Key, float, float]]:
    """Find the edges of a circuit with the strongest estimated effects, and patch them exactly.

    Args:
        answer: The attribution problem with the answer's log-odds as its only target.
        grounds: Activations of all batches in the clean and the corrupted run.
        nodes: Heads and MLPs of the circuit, which can receive and send.
        top: Number of edges from prompt tokens to keep, and as many from heads and MLPs.

    Returns:
        (sender, node, estimate, exact effect) per edge, in log-odds, means over contexts and batches.
    """
    wanted = possible(answer, [*range(len(answer.prompt)), *nodes], nodes)
    n = sum(len(g.pair.members) for g in grounds)
    changes = [
        {sender: change_of(g, sender) for sender in dict.fromkeys(s for s, _ in wanted)} for g in grounds
    ]
    estimates = np.zeros(len(wanted))
    for g, change in zip(grounds, changes, strict=True):
        ears = {node: listening(g, node) for node in dict.fromkeys(node for _, node in wanted)}
        estimates += [-float((change[sender] * ears[node]).sum()) / n for sender, node in wanted]
    order = [int(i) for i in np.argsort(-np.abs(estimates), kind="stable") if estimates[i] != 0]
    kept = [
        i
        for is_token in (True, False)
        for i in [i for i in order if isinstance(wanted[i][0], int) == is_token][:top]
    ]
    exact = [
        sum(
            float(path_effect(g, c[wanted[i][0]], wanted[i][1]).sum())
            for g, c in zip(grounds, changes, strict=True)
        )
        / n
        for i in kept
    ]
    return [(*wanted[i], float(estimates[i]), value) for i, value in zip(kept, exact, strict=True)]


def _heard(g: PatchingGround, node: Key, change: Change) -> Float[Tensor, "batch pos head width"]:
    """Return the output of the node's unit when `change` is added to its clean input."""
    site = units.site_of(g.problem, node)
    if site.hook == "z":
        return units.split(g.problem, site, _block(g, node[0], site, change).float())
    with g.problem.runner.edit(Site(node[0], "resid_mid").name, lambda x: x + change.to(x.dtype)):
        return units.split(g.problem, site, _block(g, node[0], site).float())


def _block(g: PatchingGround, layer: int, site: Site, change: Change | None = None) -> Tensor:
    """Run one block on the clean residual stream plus `change`, and return the activation at `site`."""
    resid = g.before[layer] if change is None else g.before[layer] + change.to(g.before[layer].dtype)
    with g.problem.runner.placed(g.pair.clean.layout), g.problem.runner.capture([site]) as caught:
        g.problem.runner.run(resid, layer, layer + 1)
    return caught[site]


@torch.no_grad()
def _residuals(problem: AttributionProblem, rows: ScoredRows) -> dict[Site, Change]:
    layers = range(problem.runner.shape.n_layers)
    with problem.runner.capture(
        [Site(layer, hook) for layer in layers for hook in ("resid_pre", "resid_post")]
    ) as caught:
        problem.run(rows, problem.runner.embed(rows.ids))
    return dict(caught)


def _index(site: Site, node: Key) -> int:
    return node[1] if site.hook == "z" else 0
