"""Side effects of found sentences, with and without the other personas held: what each sentence does to the personas it was not searched for.

`plain`: the answer objective alone. `held`: plus `hold_direction` of the two other personas, weight W each (the
study setting `beside: {other: hold}`): their z-scored reading should stay at its mean over neutral prompts. Both
have the same number of model calls, the same limits, and the choice on 16 selection questions of the persona
itself. Reported: the effect on the persona's own test questions, and on 24 test questions of each other persona,
as a fraction of it (aim: at most a fifth). The best written sentence is measured in the same way.

    python -m benchmarks.sentence_side_effects --written written_sentences.yaml --seeds 811 812
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.sentence_objectives import FEW, LAYERS, METHODS, ROWS, TEXTS
from benchmarks.sentences import CONTEXTS, Cell
from workbench.budget import Budget
from workbench.directions import Direction, find_directions
from workbench.forced_choice import answer
from workbench.objectives import answer_log_odds, hold_direction
from workbench.personas import load_persona
from workbench.runs import read_json, read_yaml, write_json
from workbench.search import SentenceSearch, search
from workbench.statistics import cluster_interval

MODEL, PERSONAS = "smollm2-personas", ("hallucination", "myopic_reward", "sycophancy")
ITEMS = 24


def direction_of_persona(cell: Cell, seed: int) -> Direction:
    """The persona's best direction, with the settings of docs/examples/smollm2_personas.yaml."""
    splits = load_persona(f"english_{cell.persona}").split(seed=0)
    return find_directions(
        cell.model, splits.train, splits.search, LAYERS, METHODS, ROWS, TEXTS, FEW, seed=seed
    ).best


def effects(cells: dict[str, Cell], persona: str, text: str) -> dict[str, list[float]]:
    """Change of log-odds, low and high, on each persona's test questions."""
    found = {}
    for name, cell in cells.items():
        contexts = cell.test if name == persona else cell.test.take(ITEMS, 0)
        change = answer(cell.model, contexts, text).log_odds - answer(cell.model, contexts).log_odds
        interval = cluster_interval(change, [context.item.group for context in contexts])
        found[name] = [round(float(v), 4) for v in (interval.estimate, interval.low, interval.high)]
    return found


def found_sentence(
    cell: Cell, held: list[Direction], weight: float, seed: int, calls: float
) -> dict[str, Any]:
    """One search and its choice."""
    began = time.process_time()
    contexts = cell.search.per_group(CONTEXTS, seed)
    goal = -answer_log_odds()
    for direction in held:
        goal = goal + weight * hold_direction(direction)
    goal = goal.calibrate(cell.model, contexts, n=8)
    method = SentenceSearch(max_cross_entropy=cell.limit)
    frontier = search(cell.model, goal, contexts, method, Budget(model_calls=calls), seed, batch_tokens=8192)
    chosen = frontier.select(cell.model, cell.selection, truth=cell.selection_truth, shortest=True)
    return {"prompt": chosen.text, "cpu_seconds": time.process_time() - began}


def summary(out: Path) -> list[dict[str, Any]]:
    """Mean effect on the persona, and the greatest mean effect on another one as a fraction of it, by variant."""
    entries, rows = [read_json(path, schema=1) for path in sorted(out.glob("*.json"))], []
    for persona, variant in itertools.product(PERSONAS, ("written", "plain", "held")):
        here = [e for e in entries if (e["persona"], e["variant"]) == (persona, variant)]
        if here:
            means = {name: float(np.mean([e["effects"][name][0] for e in here])) for name in PERSONAS}
            others = [abs(value) for name, value in means.items() if name != persona]
            row = {"persona": persona, "variant": variant, "seeds": len(here), "effects": means}
            rows.append(
                row
                | {
                    "greatest_other": max(others) / abs(means[persona]),
                    "prompts": [e["prompt"] for e in here],
                }
            )
    return rows


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--written", type=Path, required=True)
    parser.add_argument("--calls", type=float, default=500)
    parser.add_argument("--weight", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[811, 812])
    parser.add_argument("--personas", nargs="+", choices=PERSONAS, default=["hallucination", "sycophancy"])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/latest/sentence_side_effects"))
    parser.add_argument("--summary", type=Path, default=Path("benchmarks/latest/sentence_side_effects.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    sentences = read_yaml(arguments.written)
    cells = {name: Cell(MODEL, name, sentences, 16) for name in PERSONAS}
    directions = {name: direction_of_persona(cell, 0) for name, cell in cells.items()}
    for seed, persona, variant in itertools.product(
        arguments.seeds, arguments.personas, ("written", "plain", "held")
    ):
        path = arguments.out / f"{persona}-{variant}-{0 if variant == 'written' else seed}.json"
        if path.exists():
            continue
        if variant == "written":
            entry: dict[str, Any] = {"prompt": cells[persona].best_written()["prompt"]}
        else:
            others = [directions[name] for name in PERSONAS if name != persona] if variant == "held" else []
            entry = found_sentence(cells[persona], others, arguments.weight, seed, arguments.calls)
        entry |= {"persona": persona, "variant": variant, "seed": seed, "weight": arguments.weight}
        entry["effects"] = effects(cells, persona, entry["prompt"])
        write_json(path, {"schema": 1, **entry})
        print(path.stem, entry["effects"], repr(entry["prompt"]), flush=True)
    rows = summary(arguments.out)
    write_json(arguments.summary, {"schema": 1, "rows": rows})
    for row in rows:
        print(row["persona"], row["variant"], row["seeds"], f"{row['greatest_other']:.2f}", row["effects"])


if __name__ == "__main__":
    main()
