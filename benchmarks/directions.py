"""Do directions and latents read what the organism's words really do? Judged by the planted truth, on the test split.

1. Every planted unit and every decoy of the public world is put alone into the system slot, before the same
   test questions.
2. For the direction that the sweep chooses, for every method at the SAE's layer, and for the ranked latents:
   `truth`, Pearson's correlation of the change of reading with the planted effect; `effect`, Spearman's with
   the measured change of log-odds; `decoy`, the mean |change| of reading by decoys as a fraction of that by
   strong units (planted 1 or more).
3. The same for a growing number of train items, with "own_choice_within" and the published "mean_difference".

    python -m benchmarks.directions --out benchmarks/latest/directions.json [--seeds 3]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import pearsonr, spearmanr

from workbench.directions import DIRECTION_METHODS, Direction, find_directions
from workbench.directions.activation_sampling import ActivationSampler
from workbench.directions.labelled_activations import LabelledActivations
from workbench.latents import rank_latents
from workbench.models import load_model, runner_for
from workbench.personas import Splits, load_persona
from workbench.sae import load_sae
from workbench.world import World

ITEMS = (4, 8, 16, 32, 99)


class Judge:
    """The test questions under every unit and decoy, read once at all layers."""

    def __init__(self, model: Any, persona: str, splits: Splits, world: World, n_contexts: int = 16) -> None:
        units, decoys = list(world.truth.units), [decoy.word for decoy in world.decoys]
        self.planted = np.array([world.effect_of(persona, unit) for unit in units])
        layers = range(runner_for(model).shape.n_layers)
        self.data: LabelledActivations = ActivationSampler(runner_for(model), layers).under_each(
            splits.test, units + decoys, n_contexts
        )
        self.n_rows = len(units) + len(decoys) + 1
        self.effects = self.change(self.data.scores)

    def change(self, values: torch.Tensor) -> np.ndarray:
        """Mean change of a value by each unit and decoy against no system text."""
        table = values.double().numpy().reshape(self.n_rows, -1)
        return (table[1:] - table[0]).mean(axis=1)

    def judge(self, values: torch.Tensor) -> dict[str, float]:
        """truth, effect and decoy of one reading (one value a row)."""
        change, n = self.change(values), len(self.planted)
        strong = np.abs(change[:n][np.abs(self.planted) >= 1]).mean()
        found = {
            "truth": pearsonr(change[:n], self.planted).statistic,
            "effect": spearmanr(change[:n], self.effects[:n]).statistic,
            "decoy": np.abs(change[n:]).mean() / strong,
        }
        return {name: round(float(value), 3) for name, value in found.items()}

    def of(self, direction: Direction) -> dict[str, float]:
        """The same for a direction at its own layer."""
        return self.judge(direction.reading(self.data.states[direction.site.layer]))


def one_persona(model: Any, name: str, world: World, seed: int) -> dict[str, Any]:
    """All figures of one persona and seed."""
    splits = load_persona(name).split(seed=0)
    judge, sae = Judge(model, name, splits, world), load_sae("organism", model)
    layer, began = sae.site.layer, time.perf_counter()
    scan = find_directions(model, splits.train, splits.search, methods=tuple(DIRECTION_METHODS), seed=seed)
    seconds = time.perf_counter() - began
    best = scan.best
    activations = sae.encode(judge.data.states[layer])
    latents = {}
    for labels in ("choice_within", "choice", "answer"):
        found = rank_latents(model, sae, splits.train, k=10, labels=labels, seed=seed)
        latents[labels] = judge.judge(activations[:, found.ids] @ torch.tensor(found.weights))
    return {
        "model_itself": judge.judge(judge.data.scores),
        "chosen": {
            "layer": best.site.layer,
            "method": best.method,
            "predicts": round(float(scan.table["predicts"][0]), 3),
            **judge.of(best),
        },
        "methods": {method: judge.of(scan[layer, method]) for method in DIRECTION_METHODS},
        "latents": latents,
        "items": curve(model, splits, judge, layer, seed),
        "seconds": round(seconds, 1),
    }


def curve(model: Any, splits: Splits, judge: Judge, layer: int, seed: int) -> dict[str, dict[str, float]]:
    """`truth` against the number of train items, other things equal."""
    made: dict[str, dict[str, float]] = {}
    for method in ("own_choice_within", "mean_difference"):
        made[method] = {}
        for n in ITEMS:
            train = splits.train.take(n, seed)
            scan = find_directions(
                model, train, splits.search, [layer], [method], n=min(384, 6 * n), n_contexts=4, seed=seed
            )
            made[method][str(len(train))] = judge.of(scan.best)["truth"]
    return made


def main() -> None:
    """Runs it and writes the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/latest/directions.json"))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    model, world = load_model("organism"), World()
    figures = {
        name: [one_persona(model, name, world, seed) for seed in range(options.seeds)]
        for name in world.personas
    }
    result = {
        "benchmark": "directions",
        "model": runner_for(model).fingerprint,
        "seeds": options.seeds,
        "personas": figures,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
