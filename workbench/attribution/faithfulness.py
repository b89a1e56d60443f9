"""Faithfulness and completeness of a set of heads and MLPs: how much of a prompt's effect the set carries.

Both are fractions of the whole effect: the score with the prompt minus the score with a neutral prompt of the
same length. They are measured by intervention. *Faithfulness*: every node outside the set is as in the
neutral run. *Completeness*: every node in the set is as in the neutral run, and the loss is counted (Wang et
al. 2022, arXiv 2211.00593). The control is random sets with as many nodes at each place of the text.

On a model of a few layers, a dozen nodes keep most of an effect. On a language model of thirty layers they
keep none of the effect, although the effect is lost without them: it is spread over hundreds of nodes.
`faithfulness_curve` measures how many.
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

#: Numbers of strongest nodes for which the curve is measured, up to the number of nodes there are.
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)


@dataclass(frozen=True)
class FaithfulnessEvaluation:
    """Faithfulness and completeness of a circuit, next to random graphs of the same size.

    Attributes:
        faithfulness: Fraction of the prompt's effect that the circuit alone keeps, with its interval over
            contexts.
        completeness: Fraction of the effect that is lost without the circuit, with its interval.
        random_faithfulness: Mean, minimum and maximum of the faithfulness over the random graphs.
        random_completeness: Mean, minimum and maximum of the completeness over the random graphs.
        graphs: Number of random graphs.
        curve: (number of nodes, faithfulness, completeness) for growing sets of the strongest nodes.
    """

    faithfulness: Interval
    completeness: Interval
    random_faithfulness: tuple[float, float, float]
    random_completeness: tuple[float, float, float]
    graphs: int
    curve: tuple[tuple[int, float, float], ...]

    def to_entry(self) -> FaithfulnessEntry:
        """Convert the evaluation to the field `proof` of the circuit in attribution.json."""
        fields: dict[str, Any] = asdict(self)
        fields.update(faithfulness=mean_entry(self.faithfulness), completeness=mean_entry(self.completeness))
        return FaithfulnessEntry(**fields)


@dataclass(frozen=True)
class FaithfulnessPoint:
    """Faithfulness and completeness of the strongest nodes, for one number of nodes.

    A node is a head or MLP at one place of the text; the strongest are those of attribution patching.

    Attributes:
        size: Number of nodes in the set.
        of: Number of nodes of the model whose estimated effect is not 0.
        faithfulness: Fraction of the prompt's effect that these nodes alone keep, with its 95 % interval over
            question groups.
        completeness: Fraction of the effect that is lost without these nodes, with its 95 % interval.
        random_faithfulness: Mean, minimum and maximum of the faithfulness over random sets of nodes. Each has
            as many nodes at each prompt token, at the question and at the answer as this set.
        random_completeness: Mean, minimum and maximum of the completeness over the same random sets.
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
    """Measure faithfulness and completeness of a circuit as a function of its number of nodes.

    A node is a head or MLP at one place of the text. Nodes are ordered by attribution patching alone; none is
    patched individually. The cost per context is about corrupted x sizes x 2 (1 + graphs) forward passes.

    Args:
        problem: Model, prompt and contexts.
        sizes: Numbers of nodes to measure. Those above the number of nodes with an estimated effect are left
            out.
        graphs: Number of random sets of nodes, as a control, for each size.
        corrupted: Number of neutral prompts to average over.

    Returns:
        One point for each size. Empty if the interval of the prompt's whole effect (against neutral prompts)
        contains zero.

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
    """Return the answer's log-odds with the prompt and with a neutral prompt's activations everywhere.

    Row 0 is the run with the prompt. In row 1, every head and MLP has its output of the run with a neutral
    prompt. Their difference is the whole effect.

    Args:
        answer: The attribution problem with the answer's log-odds as its first target.
        neutral: Neutral prompts as token ids; both rows are means over them.
    """
    nothing = units.only(answer)
    return np.mean([many_scores(answer, other, [nothing, ~nothing]) for other in neutral], axis=0)


def many_scores(
    answer: AttributionProblem, other: Ids, sets: list[Nodes]
) -> Float[np.ndarray, "set context"]:
    """Score the prompt with different sets of heads and MLPs patched from the run with a neutral prompt.

    Args:
        answer: The attribution problem with the answer's log-odds as its first target.
        other: Token ids of the neutral prompt.
        sets: Sets of heads and MLPs at places of the text; one set is patched at a time.

    Returns:
        The answer's log-odds for each set in each context.
    """
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
    """Measure faithfulness and completeness of a circuit, of random circuits and of growing sets of nodes.

    A node is a head or MLP at one place of the text.

    Args:
        answer: The attribution problem with the answer's log-odds as its only target.
        neutral: Neutral prompts as token ids, whose activations replace those of removed nodes.
        estimates: Effect of each node by attribution patching, mean over the neutral prompts.
        keys: The circuit's nodes as (layer, unit, place).
        ends: The answer's log-odds with the prompt and with all nodes replaced, from `whole_effect`.
        graphs: Number of random circuits, each with as many nodes at each place of the text.
        sizes: Numbers of nodes of the growing sets, which have the strongest nodes by `estimates`.

    Returns:
        The evaluation. Its curve is about the growing sets and does not depend on `keys`.
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
    """Draw as many random heads and MLPs (of any layer) at each place as the circuit has at that place."""
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
    """Estimate mean(part) / mean(whole) with its interval, by linearising the ratio (delta method).

    Args:
        part: Part of the effect in each context.
        whole: Whole effect in each context.
        groups: Question group of each context; the interval is clustered by group.
    """
    share = part.mean() / whole.mean()
    return cluster_interval(share + (part - share * whole) / whole.mean(), groups)


def mean_entry(interval: Interval) -> MeanEntry:
    """Convert an interval to the entry with mean, low and high that result files use."""
    low, high = interval.to_json()
    return MeanEntry(mean=interval.estimate, low=low, high=high)
