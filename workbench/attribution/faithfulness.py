"""How much of a prompt's effect a set of heads and MLPs keeps (faithfulness) and how much is lost without it (completeness).

Both are fractions of the whole effect, with the prompt minus with a neutral prompt of the same length,
measured by intervention: *faithfulness*: every node outside the set as in the neutral run; *completeness*:
every node in the set as in the neutral run (Wang et al. 2022, arXiv 2211.00593). The control are random sets
with as many nodes at each place of the text.

On a model of a few layers a dozen nodes keep most of an effect. On a language model of thirty layers they
keep none of it, although the effect is lost without them: what carries it is spread over hundreds of nodes.
`faithfulness_curve` says how many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from workbench.attribution import attribution_patching as nodes
from workbench.attribution import heads_and_mlps as units
from workbench.attribution.attribution_problem import AttributionProblem, Ids
from workbench.attribution.heads_and_mlps import Key, Nodes
from workbench.objectives import neutral_prompts
from workbench.schema import FaithfulnessEntry, MeanEntry
from workbench.statistics import Interval, cluster_interval

#: Sizes of the strongest nodes' curve; those beyond the number of nodes are left out.
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)


@dataclass(frozen=True)
class FaithfulnessEvaluation:
    """How much of the prompt's effect a circuit keeps, and how much is lost without it.

    faithfulness, completeness: fractions of the whole effect with intervals over contexts. random_*: mean,
    least and most over the `graphs` random graphs. curve: (nodes, faithfulness, completeness) of the
    strongest so many nodes.
    """

    faithfulness: Interval
    completeness: Interval
    random_faithfulness: tuple[float, float, float]
    random_completeness: tuple[float, float, float]
    graphs: int
    curve: tuple[tuple[int, float, float], ...]

    def to_entry(self) -> FaithfulnessEntry:
        """The circuit's `proof` in attribution.json."""
        fields: dict[str, Any] = asdict(self)
        fields.update(faithfulness=mean_entry(self.faithfulness), completeness=mean_entry(self.completeness))
        return FaithfulnessEntry(**fields)


@dataclass(frozen=True)
class FaithfulnessPoint:
    """The `size` strongest nodes by attribution patching, next to random sets of the same size and places.

    Attributes:
        size: Number of nodes.
        of: Nodes whose estimate is not 0.
        faithfulness: Fraction of the effect that these nodes alone keep, with its 95 % interval over question
            groups.
        completeness: Fraction that is lost without them.
        random_faithfulness: Mean, least and most over the random sets.
        random_completeness: The same.
    """

    size: int
    of: int
    faithfulness: Interval
    completeness: Interval
    random_faithfulness: tuple[float, float, float]
    random_completeness: tuple[float, float, float]


def faithfulness_curve(
    problem: AttributionProblem, sizes: Sequence[int] = SIZES, graphs: int = 3, corrupted: int = 2
) -> list[FaithfulnessPoint]:
    """How many nodes a circuit needs: faithfulness and completeness of the strongest ones by size, against random sets.

    Nodes are ordered by attribution patching alone, none is patched by itself: about corrupted x sizes x 2 (1
    + graphs) forward passes a context.

    Args:
        problem: The prompt, contexts and model.
        sizes: Numbers of nodes; those beyond the number of nodes are left out.
        graphs: Random sets for each size.
        corrupted: Neutral prompts that are averaged over.

    Returns:
        A point for each size. Empty where the whole effect may be zero, against neutral prompts.

    Example:
        >>> curve = faithfulness_curve(problem)                                      # doctest: +SKIP
        >>> next(point.size for point in curve if point.faithfulness.estimate > 0.8)  # doctest: +SKIP
        256
    """
    answer = nodes.about_answer(problem)
    neutral = neutral_prompts(answer.runner, answer.contexts, corrupted, len(answer.prompt), answer.seed)
    estimates = np.mean([nodes.estimate(answer, other) for other in neutral], axis=0)
    ends = whole_effect(answer, neutral)
    total, there = (
        cluster_interval(ends[0] - ends[1], answer.contexts.groups),
        int(np.count_nonzero(estimates)),
    )
    if total.low <= 0 <= total.high:
        return []
    found = []
    for size in (n for n in sizes if n <= there):
        keys = nodes.strongest(estimates, size)
        figures = evaluate_circuit(answer, neutral, estimates, keys, ends, graphs, sizes=())
        chance = (figures.random_faithfulness, figures.random_completeness)
        found.append(FaithfulnessPoint(size, there, figures.faithfulness, figures.completeness, *chance))
    return found


def whole_effect(answer: AttributionProblem, neutral: list[Ids]) -> Float[np.ndarray, "2 context"]:
    """The answer's log-odds with the prompt, and with all nodes as in the neutral run; mean over the neutral prompts."""
    nothing = units.only(answer)
    return np.mean([many_scores(answer, other, [nothing, ~nothing]) for other in neutral], axis=0)


def many_scores(
    answer: AttributionProblem, other: Ids, sets: list[Nodes]
) -> Float[np.ndarray, "set context"]:
    """The answer's log-odds of the prompt with each set's nodes as in the neutral run."""
    found = np.zeros((len(sets), len(answer.contexts)))
    for pair in units.pairs(answer, other):
        donors = units.activations(answer, pair.corrupted)
        for i, nodes_ in enumerate(sets):
            found[i, pair.members] = units.patched(answer, pair, donors, nodes_)[:, 0].double().cpu().numpy()
    return found


def evaluate_circuit(
    answer: AttributionProblem,
    neutral: list[Ids],
    estimates: Float[np.ndarray, "layer unit place"],
    keys: list[Key],
    ends: Float[np.ndarray, "2 context"],
    graphs: int,
    sizes: Sequence[int] = SIZES,
) -> FaithfulnessEvaluation:
    """Faithfulness and completeness of these nodes, of `graphs` random sets, and of the strongest nodes by size.

    Args:
        answer: The problem scored on the answer alone (`about_answer`).
        neutral: Neutral prompts as token ids.
        estimates: Attribution patching, mean over the neutral prompts.
        keys: The nodes.
        ends: `whole_effect`.
        graphs: Random sets.
        sizes: Of the curve.

    Returns:
        The evaluation; its curve has the strongest nodes by `estimates`, whatever `keys` are.
    """
    sizes = [n for n in sizes if n <= np.count_nonzero(estimates)]
    strongest = [units.only(answer, *nodes.strongest(estimates, n)) for n in sizes]
    rng = np.random.default_rng(answer.seed)
    drawn = [_random_graph(answer, keys, rng) for _ in range(graphs)]
    sets = [units.only(answer, *keys), *drawn, *strongest]
    kept = (
        np.mean([many_scores(answer, other, [~nodes_ for nodes_ in sets]) for other in neutral], axis=0)
        - ends[1]
    )
    lost = ends[0] - np.mean([many_scores(answer, other, sets) for other in neutral], axis=0)
    whole, groups = ends[0] - ends[1], answer.contexts.groups
    shares = [part.mean(axis=1) / whole.mean() for part in (kept, lost)]
    spread = [
        (float(s[1 : 1 + graphs].mean()), float(s[1 : 1 + graphs].min()), float(s[1 : 1 + graphs].max()))
        for s in shares
    ]
    curve = tuple(
        (n, float(shares[0][1 + graphs + i]), float(shares[1][1 + graphs + i])) for i, n in enumerate(sizes)
    )
    return FaithfulnessEvaluation(
        share_interval(kept[0], whole, groups),
        share_interval(lost[0], whole, groups),
        spread[0],
        spread[1],
        graphs,
        curve,
    )


def _random_graph(answer: AttributionProblem, keys: list[Key], rng: np.random.Generator) -> Nodes:
    """A random graph: as many nodes at each place as the circuit has, of any layer and unit."""
    found = units.only(answer)
    layers, width, _ = units.grid_shape(answer)
    for place in sorted({key[2] for key in keys}):
        count = sum(key[2] == place for key in keys)
        flat = rng.choice(layers * width, count, replace=False)
        found[flat // width, flat % width, place] = True
    return found


def share_interval(
    part: Float[np.ndarray, " context"], whole: Float[np.ndarray, " context"], groups: tuple[str, ...]
) -> Interval:
    """mean(part) / mean(whole) with its interval, by linearising the ratio (delta method)."""
    share = part.mean() / whole.mean()
    return cluster_interval(share + (part - share * whole) / whole.mean(), groups)


def mean_entry(interval: Interval) -> MeanEntry:
    """As a run's files have it."""
    low, high = interval.to_json()
    return MeanEntry(mean=interval.estimate, low=low, high=high)
