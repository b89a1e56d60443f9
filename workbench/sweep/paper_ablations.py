"""The paper's ablations as ready variants of a study: each name means a few changes of one setting.

The paper (arXiv 2601.02896) varies layer, prompt length, number of latents, fluency weights, a random
direction and the start from a sentence. Added are random updates, population, contexts, labels and budget. If
a change affects the cost per step (length, population, contexts), compare at a fixed number of floating point
operations: `search.budget: {flops: ...}`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workbench.models.model_directory import open_model_directory
from workbench.models.model_sources import find_source
from workbench.search import RandomSearch
from workbench.study import Study

Change = dict[str, Any]


def _layers(study: Study) -> list[Change]:
    """Make one change per block of the model: the direction comes from that block only.

    SAEGA's latents stay at the layer of their SAE.
    """
    checkpoint = open_model_directory(find_source(study.model.name, study.model.revision).directory)
    return [{"directions.layers": [layer]} for layer in range(checkpoint.config.num_hidden_layers)]


def _each(name: str, *values: Any) -> Callable[[Study], list[Change]]:
    return lambda study: [{name: value} for value in values]


def _budgets(study: Study) -> list[Change]:
    """Make budgets of a quarter to four times the study's, with every limit scaled."""
    limits = study.search.budget.model_dump(exclude_none=True)
    scaled = [
        {k: max(1, round(v * share)) if k == "steps" else v * share for k, v in limits.items()}
        for share in (0.25, 0.5, 1.0, 2.0, 4.0)
    ]
    return [{"search.budget": budget} for budget in scaled]


def _random_direction(study: Study) -> list[Change]:
    """Make the change that adds searches along four random directions of equal norm and covariance."""
    conditions = [*study.conditions, *(c for c in ("resga", "random_direction") if c not in study.conditions)]
    return [{"conditions": conditions, "random_directions": 4}]


def _random_updates(study: Study) -> list[Change]:
    """Make the change to random instead of gradient-chosen swaps.

    Population, fluency weights and scoring of the study's method stay; options that only gradient methods
    have are left out.
    """
    kept = {name: value for name, value in study.search.options.items() if name in RandomSearch.model_fields}
    return [{"search.method": "random", "search.options": kept}]


def _cross_entropy(study: Study) -> list[Change]:
    """Make changes to loose, medium and strict fluency weights, each ten times the one before.

    The method's own range of weights is scaled, so that any method's default fits.
    """
    low, high = (
        float(study.search.options.get(name, usual))
        for name, usual in (("fluency_low", 0.02), ("fluency_high", 2.0))
    )
    ends = [(low * scale, high * scale) for scale in (0.1, 1.0, 10.0)]
    return [
        {"search.options.fluency_low": round(a, 9), "search.options.fluency_high": round(b, 9)}
        for a, b in ends
    ]


#: Changes of each ablation by its name; each change makes one study of the sweep.
ABLATIONS: dict[str, Callable[[Study], list[Change]]] = {
    "layer": _layers,
    "length": _each("search.options.length", 2, 4, 8, 16),
    "latents": _each("latents", 1, 3, 10, 30, 100),
    "fluency": _cross_entropy,
    "random_direction": _random_direction,
    "random_updates": _random_updates,
    "warm_start": _each("search.start", "random", "manual"),
    "population": _each("search.options.population", 1, 4, 8, 16),
    "contexts": _each("search.contexts", 1, 4, 16, 64),
    "labels": _each("data.train_items", 8, 16, 32, 64),
    "budget": _budgets,
}
