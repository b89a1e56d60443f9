"""The path: which heads and MLPs, at which token, carry a prompt's effect to the answer. Attribution patching, then exact patches.

1. Clean run: the prompt. Corrupted run: neutral tokens of the same number in its place, everything else equal.
2. A node is a head's output (z) or an MLP's output in one layer, at one place: a prompt token, the question, the decision token.
3. Estimate of a node = (clean activation - corrupted activation) . d answer / d activation in the clean run: what the answer
   would lose, to first order, if this node alone were as in the corrupted run (Nanda 2023; Kramar et al. 2024, AtP*).
4. The strongest nodes are patched for real; their exact effects, and the rank correlation of estimate and exact, stand beside.

Effects of nodes do not add up to the whole: nodes stand in each other's way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import stats
from torch import Tensor

from workbench.attribution.problem import Ids, Problem, Rows
from workbench.attribution.targets import ANSWER, Target, Targets
from workbench.models import Site
from workbench.objectives import answer_log_odds, neutral_prompts

Activations = dict[Site, Float[Tensor, "batch pos head width"]]


@dataclass(frozen=True)
class Node:
    """One part of the model at one place. head: None for an MLP. place: index of the prompt token, or -2 for the rest of the
    question, -1 for the decision token. estimate, exact: mean effect on the answer's log-odds; exact is None where not patched."""

    site: Site
    head: int | None
    place: int
    estimate: float
    exact: float | None = None

    @property
    def name(self) -> str:
        """As `head 3 of layer 2` or `MLP of layer 2`."""
        return f"{'MLP' if self.head is None else f'head {self.head}'} of layer {self.site.layer}"


@dataclass(frozen=True)
class Path:
    """The strongest nodes, by exact effect. agreement: rank correlation of estimate and exact over them (None below 3)."""

    nodes: tuple[Node, ...]
    tokens: tuple[str, ...]
    agreement: float | None

    def to_json(self) -> list[dict[str, object]]:
        """The entries of attribution.json's `nodes`."""
        places = {-2: "the question", -1: "the decision token"}
        return [{"node": n.name, "token": places.get(n.place) or self.tokens[n.place], "estimate": n.estimate, "exact": n.exact} for n in self.nodes]


def path(problem: Problem, top: int = 8, corrupted: int = 2) -> Path:
    """The `top` nodes by estimate, patched exactly. corrupted: neutral prompts that are averaged over. Costs one backward pass
    and `corrupted` forward passes a context, and top x corrupted forward passes a context for the exact effects."""
    answer = replace(problem, targets=Targets((Target(ANSWER, answer_log_odds()),)))
    neutral = neutral_prompts(problem.runner, problem.contexts, corrupted, len(problem.prompt), problem.seed)
    estimates = np.mean([_estimates(answer, other) for other in neutral], axis=0)
    strongest = [flat for flat in np.argsort(-np.abs(estimates), axis=None, kind="stable")[:top] if estimates.flat[flat] != 0]
    keys = [tuple(int(i) for i in np.unravel_index(flat, estimates.shape)) for flat in strongest]
    exact = [float(np.mean([_exact(answer, other, key) for other in neutral])) for key in keys]
    nodes = [_node(answer, key, float(estimates[key]), value) for key, value in zip(keys, exact, strict=True)]
    agreement = None
    if len(nodes) >= 3 and np.ptp(exact) > 0:
        agreement = float(stats.spearmanr([n.estimate for n in nodes], exact).statistic)
    tokens = tuple(problem.runner.decode([token]) for token in problem.prompt)
    return Path(tuple(sorted(nodes, key=lambda node: -abs(node.exact or 0.0))), tokens, agreement)


def _sites(problem: Problem) -> list[Site]:
    """Heads and MLPs of every layer; a model without MLPs leaves theirs out when it runs."""
    return [Site(layer, hook) for layer in range(problem.runner.shape.n_layers) for hook in ("z", "mlp_out")]


def _node(problem: Problem, key: tuple[int, ...], estimate: float, exact: float) -> Node:
    layer, unit, place = key
    heads, prompt = problem.runner.shape.n_heads, len(problem.prompt)
    site = Site(layer, "z" if unit < heads else "mlp_out")
    return Node(site, unit if unit < heads else None, place if place < prompt else place - prompt - 2, estimate, exact)


def _estimates(problem: Problem, other: Ids) -> Float[np.ndarray, "layer unit place"]:
    """Mean over contexts of each node's estimate. unit: heads, then the MLP. place: prompt tokens, question, decision token."""
    shape = problem.runner.shape
    found = np.zeros((shape.n_layers, shape.n_heads + 1, len(problem.prompt) + 2))
    for clean, corrupted in _batches(problem, other):
        activations, gradients = _clean(problem, clean)
        donors = _run(problem, corrupted)
        for site in activations:
            effect = ((activations[site] - donors[site]) * gradients[site]).sum(dim=-1)
            units = slice(0, shape.n_heads) if site.hook == "z" else slice(shape.n_heads, None)
            for place, mask in enumerate(_masks(problem, clean)):
                found[site.layer, units, place] += (effect * mask[..., None]).sum(dim=(0, 1)).double().cpu().numpy()
    return found / len(problem.contexts)


def _exact(problem: Problem, other: Ids, key: tuple[int, ...]) -> float:
    """What the answer's log-odds lose when one node is as in the corrupted run, mean over contexts."""
    layer, unit, place = key
    site = Site(layer, "z" if unit < problem.runner.shape.n_heads else "mlp_out")
    lost = 0.0
    for clean, corrupted in _batches(problem, other):
        donor, mask = _run(problem, corrupted)[site], _masks(problem, clean)[place]
        index = unit if site.hook == "z" else 0

        def edit(activation: Tensor, donor: Tensor = donor, mask: Tensor = mask, index: int = index) -> Tensor:
            split = _split(problem, site, activation).clone()
            split[:, :, index] = torch.where(mask[..., None], donor[:, :, index].to(split.dtype), split[:, :, index])
            return split.reshape(activation.shape)

        with torch.no_grad():
            embedded = problem.runner.embed(clean.ids)
            plain = problem.run(clean, embedded)
            with problem.runner.edit(site.name, edit):
                lost += float((plain - problem.run(clean, embedded)).sum())
    return lost / len(problem.contexts)


def _batches(problem: Problem, other: Ids) -> Iterator[tuple[Rows, Rows]]:
    for members in problem.context_batches(copies=2):
        contexts = [problem.contexts[i] for i in members]
        yield problem.rows(contexts, [problem.prompt] * len(members)), problem.rows(contexts, [other] * len(members))


def _clean(problem: Problem, rows: Rows) -> tuple[Activations, Activations]:
    """Activations of every site, and the gradient of the answer's log-odds with respect to them: of a zero that is added there,
    because a bridge hands its heads to the hook as a copy that does not lie on the way to the answer."""
    activations = _run(problem, rows)
    added: dict[Site, Tensor] = {}

    def adds_zero(site: Site) -> Callable[[Tensor], Tensor]:
        def edit(activation: Tensor) -> Tensor:
            added[site] = torch.zeros_like(activation, requires_grad=True)
            return activation + added[site]

        return edit

    with torch.enable_grad(), ExitStack() as edits:
        for site in activations:
            edits.enter_context(problem.runner.edit(site.name, adds_zero(site)))
        score = problem.run(rows, problem.runner.embed(rows.ids).detach()).sum()
        gradients = torch.autograd.grad(score, list(added.values()))
    return activations, {site: _split(problem, site, g.float()) for site, g in zip(added, gradients, strict=True)}


@torch.no_grad()
def _run(problem: Problem, rows: Rows) -> Activations:
    with problem.runner.capture(_sites(problem)) as caught:
        problem.run(rows, problem.runner.embed(rows.ids))
    return {site: _split(problem, site, activation.float()) for site, activation in caught.items()}


def _split(problem: Problem, site: Site, activation: Tensor) -> Float[Tensor, "batch pos head width"]:
    """Heads on an axis of their own; an MLP counts as one head."""
    batch, pos = activation.shape[:2]
    return activation.reshape(batch, pos, problem.runner.shape.n_heads if site.hook == "z" else 1, -1)


def _masks(problem: Problem, rows: Rows) -> Sequence[Bool[Tensor, "batch pos"]]:
    """Per place, which positions belong to it."""
    at = torch.arange(rows.ids.shape[1], device=rows.ids.device)[None]
    start, decision = rows.layout.prompt_start[:, None], rows.layout.decision[:, None]
    tokens = [(at == start + i) & (at < decision) for i in range(len(problem.prompt))]
    return [*tokens, (at >= rows.layout.prompt_stop[:, None]) & (at < decision), at == decision]
