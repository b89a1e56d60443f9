"""Why found sentences work: tokens, direction and circuit of each sentence of the grid, every estimate against exact removal.

For every sentence of benchmarks.sentences (--grid; the found ones of --methods, and the best written one of
each cell), on selection questions: (1) the rank correlation of each estimator's token effects on the answer
with those of exact removal; (2) the part of the effect that goes through the persona's direction, next to
random directions of the activations' covariance; (3) faithfulness and completeness of the strongest heads and
MLPs by --sizes, with intervals, against random sets of the same size and places.

One JSON file a sentence in --out; what is there already is not run again.

    python -m benchmarks.sentence_mechanism --grid benchmarks/latest/sentences_1500 --cells 0 1 2
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.sentences import CELLS, loaded
from workbench.attribution import (
    AttributionOptions,
    AttributionProblem,
    FaithfulnessPoint,
    IntegratedGradients,
    Ledger,
    TokenReplacement,
    attribute,
    faithfulness_curve,
)
from workbench.attribution.attribution_targets import as_targets
from workbench.contexts import make_contexts
from workbench.directions import find_directions, random_directions
from workbench.models import runner_for
from workbench.personas import load_persona
from workbench.runs import read_json, write_json
from workbench.statistics import cluster_interval, spearman

ESTIMATORS = ("gradient_x_input", IntegratedGradients(steps=6), "relevance", TokenReplacement(draws=2))
#: Blocks that are read for directions, of 30.
LAYERS = (10, 15, 20)


class Place:
    """One cell: selection contexts, the persona's direction and random ones."""

    def __init__(self, number: int, n: int) -> None:
        name, persona = CELLS[number]
        self.model, splits = loaded(name), load_persona(f"english_{persona}").split(seed=0)
        self.contexts = make_contexts(self.model, splits.selection, n=n)
        scan = find_directions(
            self.model, splits.train, splits.search, list(LAYERS), n=96, n_texts=12, n_contexts=6
        )
        self.direction, self.randoms = (
            scan.best,
            random_directions(scan.best, scan.activations, 4, both_signs=False),
        )

    def entry(self, prompt: str, sizes: list[int]) -> dict[str, Any]:
        """Figures of one sentence."""
        began = time.process_time()
        options = AttributionOptions(pairs=0, nodes=0, controls=self.randoms)
        ledger = attribute(
            self.model, prompt, {"direction": self.direction}, self.contexts, ESTIMATORS, options=options
        )
        through = [one.to_entry().model_dump(mode="json", exclude={"verdict"}) for one in ledger.mediation]
        found = {
            "prompt": prompt,
            "layer": self.direction.site.layer,
            "tokens": list(ledger.tokens),
            "mediation": through,
        }
        found["removal"] = ledger.means()[:, 0].round(4).tolist()
        found["agreement"] = {name: agreement(ledger, name) for name in ledger.estimates if name != "removal"}
        problem = AttributionProblem(runner_for(self.model), ledger.prompt_ids, self.contexts, as_targets({}))
        found["curve"] = circuit_entry(faithfulness_curve(problem, sizes, graphs=1, corrupted=1))
        return found | {"seconds": ledger.seconds, "cpu_seconds": time.process_time() - began}


def agreement(ledger: Ledger, name: str) -> dict[str, float]:
    """Rank correlation of the tokens' effects on the answer and on the direction with exact removal's."""
    columns = {"answer": 0, "direction": 1}
    return {key: spearman(ledger.means(name)[:, i], ledger.means()[:, i]) for key, i in columns.items()}


def circuit_entry(points: list[FaithfulnessPoint]) -> list[dict[str, Any]]:
    """The curve as plain data."""
    return [
        asdict(point)
        | {
            "faithfulness": point.faithfulness.estimate,
            "faithfulness_interval": point.faithfulness.to_json(),
            "completeness": point.completeness.estimate,
            "completeness_interval": point.completeness.to_json(),
        }
        for point in points
    ]


def run(grid: Path, out: Path, cells: list[int], methods: list[str], contexts: int, sizes: list[int]) -> None:
    """Whatever is missing, cell by cell."""
    place = cache(lambda number: Place(number, contexts))
    for number in cells:
        model, persona = CELLS[number]
        files = [
            grid / f"{model}-{persona}-written.json",
            *(f for m in methods for f in sorted(grid.glob(f"{model}-{persona}-{m}-*.json"))),
        ]
        for file in files:
            path, content = out / file.name, read_json(file, schema=1)
            if not path.exists():
                entry = content.get("written", content)
                figures = place(number).entry(entry["prompt"], sizes)
                method = content.get("method", "written")
                write_json(
                    path,
                    {
                        "schema": 1,
                        "model": model,
                        "persona": persona,
                        "method": method,
                        "effect": float(np.mean(entry["effects"])),
                    }
                    | figures,
                )
                print(f"{path.stem}: {figures['agreement']}", flush=True)


def summary(out: Path) -> dict[str, Any]:
    """Means over sentences with 95 % intervals, by written or found."""
    entries = [read_json(path, schema=1) for path in sorted(out.glob("*.json"))]
    rows = []
    for kind, members in (
        ("found", [e for e in entries if e["method"] != "written"]),
        ("written", [e for e in entries if e["method"] == "written"]),
    ):
        for target in ("answer", "direction"):
            for name in members[0]["agreement"] if members else ():
                rows.append(
                    {"kind": kind, "figure": f"{name} against removal, {target}"}
                    | mean([e["agreement"][name][target] for e in members])
                )
        for size in sorted({point["size"] for e in members for point in e["curve"]}):
            points = [point for e in members for point in e["curve"] if point["size"] == size]
            for key in ("faithfulness", "completeness"):
                rows.append(
                    {"kind": kind, "figure": f"{key}, {size} nodes"} | mean([one[key] for one in points])
                )
                rows.append(
                    {"kind": kind, "figure": f"{key}, {size} random nodes"}
                    | mean([one[f"random_{key}"][0] for one in points])
                )
    return {"schema": 1, "sentences": entries, "rows": rows}


def mean(values: list[float]) -> dict[str, Any]:
    """Mean and 95 % interval over sentences."""
    if len(values) < 2:
        return {"n": len(values), "mean": values[0] if values else None, "low": None, "high": None}
    interval = cluster_interval(values, range(len(values)))
    return {"n": len(values), "mean": interval.estimate, "low": interval.low, "high": interval.high}


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--grid", type=Path, default=Path("benchmarks/latest/sentences_1500"))
    parser.add_argument("--cells", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--methods", nargs="+", default=["sentences"])
    parser.add_argument("--contexts", type=int, default=4)
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 64, 256, 512, 1024])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/latest/sentence_mechanism"))
    parser.add_argument("--summary", type=Path, default=Path("benchmarks/latest/sentence_mechanism.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    run(
        arguments.grid, arguments.out, arguments.cells, arguments.methods, arguments.contexts, arguments.sizes
    )
    table = summary(arguments.out)
    write_json(arguments.summary, table)
    for row in table["rows"]:
        print(row)


if __name__ == "__main__":
    main()
