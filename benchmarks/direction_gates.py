"""How often is a direction shown that is none, and how weak a planted one is still found? Calibration of `SiteGates`.

Activations and log-odds of the embedded model (planted personas) are drawn once for each of a few seeds.
Then, many times:

1. *Wrong labels*: the two answers of each question are exchanged with probability q, in train and search data
   alike. q = 0: the planted persona. q = 0.5: labels that mean nothing, which may show a direction in at most
   5 %. Between: power.
2. *Wrong texts*: labels right, but each testing text is given the log-odds of another one: texts do move the
   answer, and no reading can go with what they do but by chance; at most 5 %.

    python -m benchmarks.direction_gates --repeats 200 --out benchmarks/latest/direction_gates.json
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workbench.directions.activation_sampling import ActivationSampler
from workbench.directions.direction_method import DIRECTION_METHODS, default_methods
from workbench.directions.labelled_activations import LabelledActivations
from workbench.directions.layer_scan import ScanData, draw_scan_data, scan_sites
from workbench.models import load_model, runner_for
from workbench.personas import load_persona
from workbench.runs import write_json

SHARES = (0.0, 0.1, 0.2, 0.3, 0.35, 0.4, 0.45, 0.5)
#: Rows, testing texts and contexts of a sweep: the default, and a small one.
SIZES = {"default": (384, 24, 24), "small": (96, 12, 12)}


def exchanged(data: ScanData, share: float, seed: int) -> ScanData:
    """The same data with the two answers of each question exchanged with this probability."""
    rng, signs = np.random.default_rng(seed), {}

    def turn(part: LabelledActivations) -> LabelledActivations:
        items = [name.rsplit(" ", 1)[0] for name in part.context_ids]
        for item in items:
            signs.setdefault(item, -1.0 if rng.random() < share else 1.0)
        return replace(part, scores=part.scores * torch.tensor([signs[item] for item in items]))

    trained = {kind: turn(part) for kind, part in data.trained.items()}
    choices = turn(data.choices)
    held_out = {
        kind: choices if kind in ("choice", "choice_within") else turn(part)
        for kind, part in data.held_out.items()
    }
    return ScanData(data.persona, trained, choices, held_out, data.texts)


def other_texts(data: ScanData, seed: int) -> ScanData:
    """The same data with the log-odds of every testing text given to another one."""
    blocks = data.choices.scores.reshape(len(data.texts) + 1, -1)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(data.texts)) + 1)
    choices = replace(data.choices, scores=torch.cat([blocks[:1], blocks[order]]).flatten())
    held_out = {
        kind: choices if kind in ("choice", "choice_within") else part for kind, part in data.held_out.items()
    }
    return replace(data, choices=choices, held_out=held_out)


def rate(repeats: int, one: Callable[[int], Any]) -> dict[str, Any]:
    """Fraction of repeats in which a direction is shown, and in which each test lets a site through."""
    found = [one(k) for k in range(repeats)]
    tests = {
        test: float(np.mean([(scan.table[f"p_{test}"] <= scan.gates.alpha).any() for scan in found]))
        for test in ("association", "labels")
    }
    return {"shown": float(np.mean([scan.shown is True for scan in found])), "repeats": repeats, **tests}


def measure(persona: str, size: str, repeats: int, draws: int) -> list[dict[str, Any]]:
    """Rows of one persona and size of sweep."""
    runner = runner_for(load_model("organism"))
    splits = load_persona(persona).split(0, (0.3, 0.15, 0.15, 0.4))
    methods = [
        replace(DIRECTION_METHODS[m] if isinstance(m, str) else m, replicates=0) for m in default_methods()
    ]
    layers, kinds = range(runner.shape.n_layers), {m.labels for m in methods}
    data = [
        draw_scan_data(
            ActivationSampler(runner, layers, seed=seed), splits.train, splits.search, kinds, *SIZES[size]
        )
        for seed in range(draws)
    ]
    rows = []
    for share in SHARES:
        n = repeats if share == 0.5 else max(20, repeats // 4)
        result = rate(
            n, lambda k, share=share: scan_sites(exchanged(data[k % draws], share, k), methods, seed=k)
        )
        rows.append({"persona": persona, "size": size, "null": "labels", "exchanged": share, **result})
        print(rows[-1], flush=True)
    result = rate(repeats, lambda k: scan_sites(other_texts(data[k % draws], k), methods, seed=k))
    rows.append({"persona": persona, "size": size, "null": "texts", "exchanged": 0.0, **result})
    print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Writes all rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--personas", nargs="+", default=["sycophancy", "hallucination", "myopic_reward"])
    parser.add_argument("--sizes", nargs="+", default=list(SIZES))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/latest/direction_gates.json"))
    options = parser.parse_args()
    rows = [
        row
        for persona in options.personas
        for size in options.sizes
        for row in measure(persona, size, options.repeats, options.draws)
    ]
    write_json(options.out, {"schema": 1, "rows": rows})


if __name__ == "__main__":
    main()
