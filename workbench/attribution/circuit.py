"""The circuit: a graph from the prompt's tokens through heads and MLPs to latents, direction and answer.

1. Nodes: the strongest by attribution patching against neutral prompts of the same length
   (attribution_patching.py), each then patched exactly.
2. Edges: the strongest between tokens and nodes by path patching, direct effects of nodes on direction,
   latents and answer, and effects of direction and latents on the answer (path_patching.py).
3. Evaluation by intervention, as fractions of the whole effect (with the prompt minus with the neutral
   prompt). *Faithfulness*: keep only the circuit, with all other nodes as in the neutral run; it is 1 if the
   circuit is sufficient. *Completeness*: remove only the circuit; it is 1 if no node outside the circuit
   carries any of the effect (Wang et al. 2022, arXiv 2211.00593; Marks et al. 2024, arXiv 2403.19647).
4. Control: random graphs with as many nodes at each place of the text as the circuit has.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch

from workbench.attribution import attribution_patching as nodes
from workbench.attribution import heads_and_mlps as units
from workbench.attribution import path_patching as edges
from workbench.attribution.attribution_patching import CircuitNode, PromptPath
from workbench.attribution.attribution_problem import AttributionProblem, Ids
from workbench.attribution.attribution_targets import AttributionTarget, AttributionTargets
from workbench.attribution.faithfulness import (
    FaithfulnessEvaluation,
    evaluate_circuit,
    mean_entry,
    whole_effect,
)
from workbench.attribution.heads_and_mlps import Key
from workbench.html_text import escape, plain_table
from workbench.models import Site
from workbench.objectives import neutral_prompts
from workbench.plots.svg import circuit_svg
from workbench.schema import CircuitEdgeEntry, CircuitEndEntry, CircuitEntry, CircuitNodeEntry
from workbench.statistics import Interval, cluster_interval

#: Largest number of latents in the graph: those through which most of the effect goes.
MOST_LATENTS = 5


@dataclass(frozen=True)
class CircuitEdge:
    """An edge of a circuit: how much of the prompt's effect goes from one component to another.

    Attributes:
        source: Id of the sending component, as in `Circuit.to_entry`.
        target: Id of the receiving component.
        kind: "path" from a prompt token or a head or MLP into a head or MLP; "direct" from a head, MLP or
            latent to a direction, a latent or the answer; "through" from a direction or latent to the answer.
        effect: How much a quantity falls when the edge is cut; positive means that the edge raises it. The
            quantity is the answer's log-odds for "path" and "through". For "direct" it is the receiver, in
            its own unit.
        share: Effect as a fraction of the prompt's whole change of that quantity; None if the change may be
            zero.
        estimate: First-order estimate of a "path" edge, made before the exact patching; None for other kinds.
    """

    source: str
    target: str
    kind: str
    effect: float
    share: float | None
    estimate: float | None = None


@dataclass(frozen=True, repr=False)
class Circuit:
    """A circuit: heads and MLPs that carry a prompt's effect to the answer, their edges and its evaluation.

    Attributes:
        tokens: The prompt's tokens as text.
        nodes: Heads and MLPs with their estimated and exact effects.
        edges: Edges between tokens, nodes, directions, latents and the answer.
        targets: Directions, latents and the answer as (name, kind, change by the prompt against neutral
            prompts).
        total: Effect of the prompt on the answer's log-odds, against neutral prompts of as many tokens.
        proof: Faithfulness evaluation; None if the total effect may be zero.
        agreement: Rank correlation of the nodes' estimated and exact effects.
        attention: For each head in the circuit, its mean attention weights. The query is the head's place in
            the text. The keys are: everything before the prompt, each prompt token, the question, and the
            decision token (the last token before the answer).
    """

    tokens: tuple[str, ...]
    nodes: tuple[CircuitNode, ...]
    edges: tuple[CircuitEdge, ...]
    targets: tuple[tuple[str, str, float], ...]
    total: Interval
    proof: FaithfulnessEvaluation | None
    agreement: float | None
    attention: dict[str, tuple[float, ...]]

    @property
    def verdict(self) -> str:
        """Summary of the circuit's faithfulness and completeness in one or two sentences."""
        if self.proof is None:
            return f"Against neutral prompts of the same length the prompt may do nothing ({self.total} log-odds): there is no circuit to show."
        p = self.proof
        least = [
            f"{100 * mean:.0f} % (at most {100 * most:.0f} %)"
            for mean, _, most in (p.random_faithfulness, p.random_completeness)
        ]
        return (
            f"{len(self.nodes)} heads and MLPs, kept alone, reproduce {_percent(p.faithfulness)} of the prompt's effect ({self.total} in log-odds "
            f"against neutral prompts); without them {_percent(p.completeness)} of it is gone. Random graphs of the same size and places, "
            f"{p.graphs} of them: {least[0]} and {least[1]}."
        )

    @property
    def path(self) -> PromptPath:
        """Heads and MLPs of the circuit without its edges, strongest exact effect first."""
        return PromptPath(
            tuple(sorted(self.nodes, key=lambda node: -abs(node.exact or 0.0))), self.tokens, self.agreement
        )

    def to_entry(self) -> CircuitEntry:
        """Convert the circuit to the `circuit` entry of attribution.json."""
        nodes = [
            CircuitNodeEntry(
                id=_node_id(n),
                name=n.name,
                layer=n.site.layer,
                head=n.head,
                place=n.place,
                estimate=n.estimate,
                exact=n.exact,
            )
            for n in self.nodes
        ]
        return CircuitEntry(
            tokens=list(self.tokens),
            nodes=nodes,
            edges=[CircuitEdgeEntry(**asdict(edge)) for edge in self.edges],
            targets=[
                CircuitEndEntry(id=f"target:{name}", name=name, kind=kind, change=change)
                for name, kind, change in self.targets
            ],
            total=mean_entry(self.total),
            proof=None if self.proof is None else self.proof.to_entry(),
            agreement=self.agreement,
            attention={name: list(weights) for name, weights in self.attention.items()},
            verdict=self.verdict,
        )

    def svg(self) -> str:
        """Draw the graph as an SVG picture that suits light and dark pages."""
        return circuit_svg(self.to_entry().model_dump())

    def __repr__(self) -> str:
        _, rows = self.path.shown_table()
        return plain_table(rows, self.verdict)

    def _repr_html_(self) -> str:
        style = "<style>.wb-circuit .paper{fill:var(--jp-layout-color0,transparent)}</style>"
        return f'{style}<div class="wb-circuit" style="overflow-x:auto">{self.svg()}<p>{escape(self.verdict)}</p></div>'


def circuit(
    problem: AttributionProblem, size: int = 12, n_edges: int = 10, graphs: int = 8, corrupted: int = 2
) -> Circuit:
    """Find the circuit that carries a prompt's effect to the answer, and evaluate its faithfulness.

    A node is a head or MLP at one place of the text. The cost per context is about corrupted x (size + 3 x
    n_edges + 2 x graphs + 20) forward passes.

    Args:
        problem: Model, prompt, contexts and targets.
        size: Number of nodes in the circuit.
        n_edges: Number of edges from tokens to nodes, and as many between nodes, that are patched exactly.
        graphs: Number of random circuits that serve as a control.
        corrupted: Number of neutral prompts (the corrupted input) to average over.

    Returns:
        The circuit with its nodes, edges and evaluation.
    """
    problem = problem.branched
    answer = nodes.about_answer(problem)
    neutral = neutral_prompts(problem.runner, problem.contexts, corrupted, len(problem.prompt), problem.seed)
    ends = whole_effect(answer, neutral)
    total = cluster_interval(ends[0] - ends[1], problem.contexts.groups)
    estimates = np.mean([nodes.estimate(answer, other) for other in neutral], axis=0)
    keys = nodes.strongest(estimates, size)
    exact = (
        np.mean([nodes.exact_effects(answer, other, keys) for other in neutral], axis=0)
        if keys
        else np.zeros(0)
    )
    made = tuple(
        nodes.make_node(answer, key, float(estimates[key]), float(value))
        for key, value in zip(keys, exact, strict=True)
    )
    tokens = tuple(problem.runner.decode([token]) for token in problem.prompt)
    nothing = total.low <= 0 <= total.high
    found, targets = _edges(problem, answer, neutral, keys, n_edges, None if nothing else total.estimate)
    proof = None if nothing or not keys else evaluate_circuit(answer, neutral, estimates, keys, ends, graphs)
    looks = _attention(problem, [node for node in made if node.head is not None])
    return Circuit(tokens, made, found, targets, total, proof, nodes.agreement_of(made), looks)


def _edges(
    problem: AttributionProblem,
    answer: AttributionProblem,
    neutral: list[Ids],
    keys: list[Key],
    n_edges: int,
    total: float | None,
) -> tuple[tuple[CircuitEdge, ...], tuple[tuple[str, str, float], ...]]:
    """Return all edges, and the directions, latents and answer in the graph with their changes."""
    read = AttributionTargets(
        tuple(
            t
            for t in problem.targets.items
            if t.kind != "objective" and all(s.hook == "resid_post" for s in t.sites)
        )
    )
    grounds = [edges.ground(answer, pair) for other in neutral for pair in units.pairs(answer, other)]
    n, decision = len(answer.contexts) * len(neutral), len(answer.prompt) + 1
    carriers = {t.name: [edges.through(g, t) for g in grounds] for t in read.items if t.kind != "answer"}
    carried = {name: sum(float(effect.sum()) for effect, _ in parts) / n for name, parts in carriers.items()}
    change = np.mean([problem.with_prompt - problem.scores([other])[0] for other in neutral], axis=0).mean(
        axis=0
    )
    changes = {t.name: float(value) for t, value in zip(problem.targets.items, change, strict=True)}
    latents = sorted(
        (t.name for t in read.items if t.kind == "latent" and changes[t.name]),
        key=lambda name: -abs(carried[name]),
    )[:MOST_LATENTS]
    drawn = AttributionTargets(tuple(t for t in read.items if t.kind != "latent" or t.name in latents))
    found = [
        CircuitEdge(_sender_id(answer, s), _key_id(answer, k), "path", exact, _share(exact, total), guess)
        for s, k, guess, exact in edges.strongest_paths(answer, grounds, keys, n_edges)
    ]
    for key in (key for key in keys if key[2] == decision):
        effect = (
            torch.cat([edges.direct_effects(g, drawn, key, edges.change_of(g, key)) for g in grounds])
            .mean(dim=0)
            .tolist()
        )
        found += [
            CircuitEdge(
                _key_id(answer, key), f"target:{t.name}", "direct", value, _share(value, changes[t.name])
            )
            for t, value in zip(drawn.items, effect, strict=True)
            if value
        ]
    name = next(t.name for t in problem.targets.items if t.kind == "answer")
    for target in (t for t in drawn.items if t.kind != "answer"):
        found.append(
            CircuitEdge(
                f"target:{target.name}",
                f"target:{name}",
                "through",
                carried[target.name],
                _share(carried[target.name], total),
            )
        )
        found += _into_directions(target, drawn, carriers, changes, n)
    return tuple(found), tuple((t.name, t.kind, changes[t.name]) for t in drawn.items)


def _into_directions(
    latent: AttributionTarget,
    drawn: AttributionTargets,
    carriers: dict[str, list],
    changes: dict[str, float],
    n: int,
) -> list[CircuitEdge]:
    """Return the edges from a latent to each direction at its layer or a later one.

    The effect is the contribution of the latent's change to the direction's projection.
    """
    if latent.kind != "latent":
        return []
    downstream = [
        t for t in drawn.items if t.kind == "direction" and t.sites[0].layer >= latent.sites[0].layer
    ]
    moved = torch.cat([change for _, change in carriers[latent.name]])
    effects = {t.name: -float((moved @ t.objective.vector.to(moved.device)).sum()) / n for t in downstream}  # type: ignore[attr-defined]
    return [
        CircuitEdge(f"target:{latent.name}", f"target:{name}", "direct", value, _share(value, changes[name]))
        for name, value in effects.items()
    ]


def _attention(problem: AttributionProblem, heads: list[CircuitNode]) -> dict[str, tuple[float, ...]]:
    """Compute each head's mean attention from its place to four kinds of places.

    They are: everything before the prompt, each prompt token, the question, and the decision token.
    """
    sites = sorted({Site(node.site.layer, "pattern") for node in heads})
    if not sites or any(site.name not in problem.runner.hook_names() for site in sites):
        return {}
    sums = {_node_id(node): np.zeros(len(problem.prompt) + 3) for node in heads}
    for pair in units.pairs(problem, problem.prompt):
        with torch.no_grad(), problem.runner.capture(sites) as caught:
            problem.run(pair.clean, problem.runner.embed(pair.clean.ids))
        before = (
            torch.arange(pair.clean.ids.shape[1], device=pair.places.device)
            < pair.clean.layout.prompt_start[:, None]
        )
        keys = torch.cat([before[None], pair.places]).float()
        for node in heads:
            queries = pair.places[node.place].float()
            weights = caught[Site(node.site.layer, "pattern")][:, node.head].float()
            looks = torch.einsum(
                "bq,bqk,pbk->bp", queries / queries.sum(dim=1, keepdim=True).clamp(min=1), weights, keys
            )
            sums[_node_id(node)] += looks.sum(dim=0).double().cpu().numpy()
    return {name: tuple((total / len(problem.contexts)).tolist()) for name, total in sums.items()}


def _share(effect: float, total: float | None) -> float | None:
    return effect / total if total else None


def _sender_id(problem: AttributionProblem, sender: edges.Sender) -> str:
    return f"token:{sender}" if isinstance(sender, int) else _key_id(problem, sender)


def _key_id(problem: AttributionProblem, key: Key) -> str:
    return _node_id(nodes.make_node(problem, key, 0.0))


def _node_id(node: CircuitNode) -> str:
    return f"node:{node.site.layer}:{'mlp' if node.head is None else node.head}:{node.place}"


def _percent(interval: Interval) -> str:
    return f"{100 * interval.estimate:.0f} % ({100 * interval.low:.0f} % to {100 * interval.high:.0f} %)"
