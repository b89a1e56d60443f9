"""Does successive halving over contexts end at the same frontier, and how many FLOPs does it save?

On the organism: EPO with the same seeds, contexts and number of steps, every child scored on all contexts
(share 1) or first on a fraction of them (`Optimizations.halving`), where the worse half goes after each
round. Shown: FLOPs of the search against share 1, hypervolume and best objective minus share 1's (t intervals
over seeds), and the held-out effect of the prompt that selection chooses.

    OMP_NUM_THREADS=1 python -m benchmarks.halving --seeds 5
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.search_quality import Setting, make_setting
from workbench.budget import Budget
from workbench.forced_choice import answer
from workbench.models import runner_for
from workbench.runs import write_json
from workbench.search import EPO, Optimizations, hypervolume, search
from workbench.statistics import over_seeds


def run(setting: Setting, share: float, seed: int, steps: int) -> dict[str, Any]:
    """One search of `steps` steps: its FLOPs and where it ended."""
    method = EPO(population=6, children=12, top_k=48, restart_every=0, gradient_contexts=4)
    optimizations, budget = Optimizations(halving=share if share < 1 else 0.0), Budget(steps=steps)
    found = search(
        setting.model,
        setting.goal,
        setting.contexts,
        method,
        budget,
        seed,
        optimizations=optimizations,
        lexicon=setting.words,
    )
    worst = float(np.log(runner_for(setting.model).shape.d_vocab))
    objective, cross_entropy = (
        np.array([getattr(c, name) for c in found.candidates]) for name in ("objective", "cross_entropy")
    )
    bare = float(answer(setting.model, setting.selection).log_odds.mean())
    shift = (found.select(setting.model, setting.selection).selection_log_odds or 0.0) - bare
    return {
        "setting": setting.name,
        "share": share,
        "seed": seed,
        "flops": found.cost.flops,
        "objective": float(objective.max()),
        "hypervolume": hypervolume(objective, cross_entropy, (0.0, worst)),
        "shift": setting.sign * shift,
    }


def summary(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """One row a setting and share, differences to share 1 paired by seed: estimate, low, high."""
    table = []
    frame = pd.DataFrame(rows).set_index("seed")
    for (setting, share), mine in frame.groupby(["setting", "share"], sort=False):
        whole = frame[(frame["setting"] == setting) & (frame["share"] == 1.0)]
        saved = float((whole["flops"] / mine["flops"]).mean())
        line = {
            "setting": setting,
            "share": share,
            "flops saved": saved,
            "hypervolume": mine["hypervolume"].mean(),
        }
        for name in ("hypervolume", "objective", "shift"):
            spread = over_seeds((mine[name] - whole[name]).tolist()).interval
            line[f"{name} - share 1"] = f"{spread.estimate:+.2f} ({spread.low:+.2f} to {spread.high:+.2f})"
        table.append(line)
    return pd.DataFrame(table)


def main() -> None:
    """Run, print the summary, write rows and summary as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--contexts", type=int, default=16)
    parser.add_argument("--shares", nargs="+", type=float, default=[1.0, 0.5, 0.25, 0.125])
    parser.add_argument("--settings", nargs="+", default=["sycophancy:suppress", "hallucination:suppress"])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/latest/halving.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = [make_setting(*name.split(":"), arguments.contexts) for name in arguments.settings]
    rows: list[dict[str, Any]] = []
    for setting in settings:
        for seed in range(arguments.seeds):
            for share in arguments.shares:
                rows.append(run(setting, share, seed, arguments.steps))
                print(*rows[-1].values(), flush=True)
    table = summary(rows)
    write_json(arguments.out, {"schema": 1, "rows": rows, "summary": table.to_dict("records")})
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
