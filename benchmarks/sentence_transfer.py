"""Transfer of found prompts: what sentences, word salad and written sentences found on one model do on another.

Every prompt of the sentences grid (benchmarks.sentences, --out) is asked on the test questions of its persona
by other models: the other organism, the base model without adapter, and a real instruction model where one is
given. One row a persona, target model and method: mean effect over the prompts (seeds) with the two-level
interval of the grid, and the fraction of the effect on the model of the search.

    python -m benchmarks.sentence_transfer --grid benchmarks/latest/sentences --models smollm2-sycophant smollm2-135m qwen.gguf
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.sentences import CELLS, two_level
from workbench.contexts import make_contexts
from workbench.forced_choice import answer
from workbench.models import load_model
from workbench.personas import load_persona
from workbench.runs import read_json, write_json

METHODS = ("sentences", "epo", "best_of_n", "written")


def prompts_of(grid: Path, model: str, persona: str) -> dict[str, list[dict[str, Any]]]:
    """The grid's prompts of one cell by method, with their effects on the searched model."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(grid.glob(f"{model}-{persona}-*-*.json")):
        content = read_json(path, schema=1)
        if content.get("persona") == persona and content.get("method") in METHODS:
            found.setdefault(content["method"], []).append(content)
    found["written"] = [read_json(grid / f"{model}-{persona}-written.json", schema=1)["written"]]
    return found


def rows_of(grid: Path, name: str, dtype: str, items: int) -> list[dict[str, Any]]:
    """Every cell that was searched on another model, asked of this one."""
    model, rows = load_model(name, dtype=dtype), []
    for source, persona in CELLS:
        if source == name or not list(grid.glob(f"{source}-{persona}-*.json")):
            continue
        contexts = make_contexts(model, load_persona(f"english_{persona}").split(seed=0).test).take(items, 0)
        bare = answer(model, contexts)
        for method, entries in prompts_of(grid, source, persona).items():
            effects = [
                (answer(model, contexts, entry["prompt"]).log_odds - bare.log_odds).tolist()
                for entry in entries
            ]
            mean, low, high = two_level(effects, list(bare.group))
            own = float(np.mean([np.mean(entry["effects"]) for entry in entries]))
            row = {
                "from": source,
                "to": Path(name).stem,
                "persona": persona,
                "method": method,
                "prompts": len(entries),
                "questions": len(contexts),
            }
            rows.append(
                row
                | {
                    "base": float(bare.log_odds.mean()),
                    "effect": mean,
                    "low": low,
                    "high": high,
                    "own": own,
                    "kept": mean / own,
                }
            )
            print(
                f"{source} -> {row['to']} {persona} {method}: {mean:+.2f} ({low:+.2f}, {high:+.2f}), {mean / own:.0%} of {own:+.2f}",
                flush=True,
            )
    return rows


def main() -> None:
    """Ask every model, write one file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--grid", type=Path, default=Path("benchmarks/latest/sentences"))
    parser.add_argument(
        "--models", nargs="+", default=["smollm2-sycophant", "smollm2-personas", "smollm2-135m"]
    )
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--items", type=int, default=24)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/latest/sentence_transfer.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    known = read_json(arguments.out, schema=1)["rows"] if arguments.out.exists() else []
    for name in arguments.models:
        rows = rows_of(arguments.grid, name, arguments.dtype, arguments.items)
        known = [row for row in known if row["to"] != Path(name).stem] + rows
        write_json(arguments.out, {"schema": 1, "rows": known})


if __name__ == "__main__":
    main()
