"""Quality of a direction against the number of labelled rows, supervised and semi-supervised, on the organism against its truth.

For each persona: own-choice rows of the train split under varied system texts, at the layer requested. `n` of
them keep their label (drawn by seed, both sides present), the others are unlabelled. `truth`: correlation
over the planted words of the direction's change of reading with the planted effect
(benchmarks/directions.py); `auc`: held-out, on the testing words' rows. Mean over draws.

    python -m benchmarks.labels --out benchmarks/latest/labels.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.directions import Judge
from workbench.directions.activation_sampling import ActivationSampler
from workbench.directions.class_split import positive
from workbench.directions.direction_quality import auc
from workbench.directions.methods import logistic_probe, mean_difference
from workbench.directions.semi_supervised import semi_supervised
from workbench.models import load_model, runner_for
from workbench.personas import load_persona
from workbench.world import World

LABELS = (4, 8, 16, 32, 64, 128)
ROWS = 384
METHODS: dict[str, Callable[..., torch.Tensor]] = {
    "mean_difference": lambda x, y, rest: mean_difference(x, y),
    "logistic": lambda x, y, rest: logistic_probe(x, y),
    "semi_supervised": semi_supervised,
}


def one_persona(model: Any, name: str, world: World, layer: int, draws: int) -> dict[str, Any]:
    """`truth` and `auc` by method and number of labels."""
    splits = load_persona(name).split(seed=0)
    judge = Judge(model, name, splits, world)
    data = ActivationSampler(runner_for(model), [layer]).labelled(splits.train, "choice_within", ROWS)
    x, y, held = data.states[layer], data.scores, judge.data
    found: dict[str, dict[str, dict[str, float]]] = {method: {} for method in METHODS}
    for n in (*LABELS, len(x)):
        scores: dict[str, list[tuple[float, float]]] = {method: [] for method in METHODS}
        for draw in range(draws if n < len(x) else 1):
            chosen = labelled_rows(y, n, draw)
            rest = x[~torch.isin(torch.arange(len(x)), chosen)]
            for method, fit in METHODS.items():
                vector = fit(x[chosen], y[chosen], rest)
                reading = held.states[layer] @ vector
                scores[method].append((judge.judge(reading)["truth"], auc(reading, positive(held.scores))))
        for method, pairs in scores.items():
            (truth, area), spread = np.mean(pairs, axis=0), np.std([p[0] for p in pairs])
            found[method][str(n)] = {
                name: round(float(v), 3) for name, v in (("truth", truth), ("sd", spread), ("auc", area))
            }
    return found


def labelled_rows(y: torch.Tensor, n: int, seed: int) -> torch.Tensor:
    """n row numbers, half of them from each side (as far as there are so many)."""
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    shown = positive(y)[order]
    first, second = order[shown][: (n + 1) // 2], order[~shown][: n // 2]
    spare = order[~torch.isin(order, torch.cat([first, second]))][: n - len(first) - len(second)]
    return torch.cat([first, second, spare])


def main() -> None:
    """Runs it and writes the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/latest/labels.json"))
    parser.add_argument("--layer", type=int, default=3)
    parser.add_argument("--draws", type=int, default=10)
    options = parser.parse_args()
    model, world = load_model("organism"), World()
    figures = {name: one_persona(model, name, world, options.layer, options.draws) for name in world.personas}
    about = {
        "benchmark": "labels",
        "model": runner_for(model).fingerprint,
        "layer": options.layer,
        "draws": options.draws,
        "rows": ROWS,
    }
    options.out.write_text(json.dumps({**about, "personas": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
