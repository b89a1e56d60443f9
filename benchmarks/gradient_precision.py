"""Does the gradient find the swaps that help? All one-word swaps of a few prompts, scored exactly, next to their first-order gains.

For every prompt (random ones, and the one that a short random search ends with):
1. score each of the length x words swaps on the contexts; the true gain is the objective's change;
2. rank them by gradient . (new embedding - old embedding); `top_k`: mean and greatest true gain of the k best
   ranked, next to the mean greatest of k swaps drawn evenly; `rank_correlation`: Spearman over all swaps;
3. `word_share`: fraction of the true gains' variance that is the new word's mean over the places;
   `place_share`: that of the place's mean.

    OMP_NUM_THREADS=1 python -m benchmarks.gradient_precision --personas sycophancy --prompts 2
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from benchmarks.search_quality import METHODS, Setting, make_setting
from workbench.budget import Budget
from workbench.models import runner_for
from workbench.runs import write_json
from workbench.search import ChildProposals, Scorer, SearchToolkit, search
from workbench.search.scoring.cross_entropy import PreparedParents


def prompts(setting: Setting, bench: SearchToolkit, n: int) -> torch.Tensor:
    """n random prompts, and the strongest one of ten steps of random search."""
    found = search(
        setting.model,
        setting.goal,
        setting.contexts,
        METHODS["random"],
        Budget(steps=10),
        lexicon=setting.words,
    )
    return torch.cat([bench.random_prompts(n, METHODS["random"].length), torch.tensor([found.best.ids])])


def swaps_of(bench: SearchToolkit, prepared: PreparedParents, row: int) -> tuple[np.ndarray, np.ndarray]:
    """(true gains, first-order gains) of every swap of one parent, places x words."""
    words, parent = torch.nonzero(bench.allowed)[:, 0], prepared.ids[row]
    places = torch.arange(len(parent)).repeat_interleave(len(words))
    children = parent.repeat(len(places), 1)
    children[torch.arange(len(places)), places] = words.repeat(len(parent))
    proposals = ChildProposals(children, torch.full((len(places),), row), places)
    parents, scored = bench.scorer.score_children(
        prepared, proposals, lambda _, objective, __: torch.full_like(objective, -1.0)
    )
    slope = bench.scorer.gradients(parent[None])
    return (
        (scored.objective - parents.objective[row]).view(len(parent), -1).numpy(),
        bench.gains(prepared.parent(row), slope)[0][:, words].numpy(),
    )


def figures(true: np.ndarray, first_order: np.ndarray, ks: tuple[int, ...] = (8, 32, 128)) -> dict[str, Any]:
    """What stands in the table for one prompt."""
    flat, order, rng = true.ravel(), np.argsort(-first_order.ravel(), kind="stable"), np.random.default_rng(0)
    chance = {
        k: float(np.mean([flat[rng.choice(flat.size, k, replace=False)].max() for _ in range(200)]))
        for k in ks
    }
    return {
        "rank_correlation": float(spearmanr(flat, first_order.ravel()).statistic),
        "greatest": float(flat.max()),
        "word_share": float(true.mean(0).var() / true.var()),
        "place_share": float(true.mean(1).var() / true.var()),
        "top_k": {
            k: {
                "mean": float(flat[order[:k]].mean()),
                "greatest": float(flat[order[:k]].max()),
                "by_chance": chance[k],
            }
            for k in ks
        },
    }


def main() -> None:
    """Print and write the figures of every prompt."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--personas", nargs="+", default=["sycophancy", "hallucination"])
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--contexts", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/latest/gradient_precision.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for persona in arguments.personas:
        setting = make_setting(persona, "suppress", arguments.contexts)
        bench = SearchToolkit.make(
            Scorer(runner_for(setting.model), setting.goal, setting.contexts), 0, setting.words
        )
        prepared = bench.scorer.prepare(prompts(setting, bench, arguments.prompts))
        for row, ids in enumerate(prepared.ids.tolist()):
            rows.append(
                {"persona": persona, "prompt": bench.scorer.runner.decode(ids)}
                | figures(*swaps_of(bench, prepared, row))
            )
            print(rows[-1], flush=True)
            write_json(arguments.out, {"schema": 1, "rows": rows})


if __name__ == "__main__":
    main()
