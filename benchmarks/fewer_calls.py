"""Ways to have random search's final objective for a quarter of its model calls, on the organism with RESGA's objective.

For every persona, sign and seed: random search to the demo's 24 steps; then each way from the same seed with
half of its calls. Kept: the fraction of random search's calls after which a method had all, 99 % and 95 % of
random search's final objective (null: not within half).

Ways: EPO as in the demo; `Guided` (what scored children say of words); `MeanGradient` (EPO, but the gradient
is averaged over places, parents and past steps, since a word's effect hardly depends on its place);
`Screened` (first prompts that together hold every word, then Guided's draws by a regression of all scores on
the words that each prompt holds).

    python -m benchmarks.fewer_calls --seeds 5 --out benchmarks/latest/fewer_calls.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import Field

from benchmarks.organism import PERSONAS
from workbench.budget import Budget
from workbench.models import load_model
from workbench.objectives import projection
from workbench.runs import write_json
from workbench.search import (
    EPO,
    ChildProposals,
    Frontier,
    Guided,
    RandomSearch,
    ScoredPrompts,
    SearchMethod,
    SearchToolkit,
    hypervolume,
    search,
)
from workbench.search.scoring.cross_entropy import PreparedParents
from workbench.search.scoring.prefix_cache import Optimizations
from workbench.study.material import Material
from workbench.study.stages.directions import scan
from workbench.study.study_presets import demo_study

LEVELS = (1.0, 0.99, 0.95)


class MeanGradient(EPO):
    """EPO with one gradient for all places: the mean over places, parents and (fading by `keep` a step) the steps before."""

    keep: float = Field(0.8, ge=0, lt=1)

    def propose(self, bench: SearchToolkit, prepared: PreparedParents, step: int) -> ChildProposals:
        """Swaps among the top tokens by the mean gradient and the own fluency gradient."""
        weights = torch.tensor(self.weights, device=prepared.ids.device)[: len(prepared.ids), None, None]
        slope = bench.scorer.gradients(prepared.ids, self.gradient_contexts, step * self.gradient_contexts)
        bench.memory["mean"] = self.keep * bench.memory.get(
            "mean", torch.zeros(slope.shape[-1])
        ) + slope.mean((0, 1))
        slope = bench.memory["mean"].expand_as(slope) - weights * bench.scorer.cross_entropy_gradients(
            prepared.ids
        )
        best = [
            self._best(bench, prepared.parent(i), slope[i : i + 1], weights[i])
            for i in range(len(prepared.ids))
        ]
        return bench.swap(prepared.ids, torch.cat(best), self.children)


class Screened(Guided):
    """Guided that begins with `screen` steps of prompts which hold every allowed word about equally often, and knows words by a ridge
    regression of all scores on the words of each prompt (posterior mean and variance; noise: variance that
    words do not explain)."""

    screen: int = Field(1, ge=0)
    noise: float = Field(0.3, gt=0)
    fluent_start: float = 0.0

    def propose(self, bench: SearchToolkit, prepared: PreparedParents, step: int) -> ChildProposals:
        """Covering prompts first, then Guided's children."""
        if step >= self.screen:
            return super().propose(bench, prepared, step)
        choices, total = torch.nonzero(bench.allowed.cpu())[:, 0], self.children * len(prepared.ids)
        rounds = -(-total * self.length // len(choices))
        order = torch.cat(
            [choices[torch.randperm(len(choices), generator=bench.generator)] for _ in range(rounds)]
        )
        bench.memory["slope"] = bench.scorer.gradients(prepared.ids, self.gradient_contexts, 0)
        rows = order[: total * self.length].reshape(total, self.length).tolist()
        return bench.from_list(
            [(i % len(prepared.ids), tuple(row)) for i, row in enumerate(rows)], prepared.ids
        )

    def learn(
        self,
        bench: SearchToolkit,
        prepared: PreparedParents,
        proposals: ChildProposals,
        parents: ScoredPrompts,
        children: ScoredPrompts,
    ) -> None:
        """What Guided learns of the gradient, and the regression in place of its filter."""
        super().learn(bench, prepared, proposals, parents, children)
        ids, values = (
            torch.cat([parents.ids, children.ids]).cpu(),
            torch.cat([parents.objective, children.objective]).cpu(),
        )
        alive, memory = values.isfinite(), bench.memory
        memory["rows"] = torch.cat([memory["rows"], ids[alive]]) if "rows" in memory else ids[alive]
        memory["values"] = (
            torch.cat([memory["values"], values[alive]]) if "values" in memory else values[alive]
        )
        tokens, which = memory["rows"].unique(return_inverse=True)
        held = torch.zeros(len(which), len(tokens), dtype=torch.float64).scatter_add_(
            1, which, torch.ones(which.shape, dtype=torch.float64)
        )
        held, target = held - held.mean(0), memory["values"].double() - memory["values"].double().mean()
        spread = float(target.var()) / self.length
        precision = (held.T @ held / self.noise + torch.eye(len(tokens), dtype=torch.float64)) / spread
        factor = torch.linalg.cholesky(precision)
        memory["effect"][:], memory["variance"][:] = 0.0, 1.0
        memory["effect"][tokens] = torch.cholesky_solve(
            (held.T @ target / (self.noise * spread))[:, None], factor
        )[:, 0].float()
        memory["variance"][tokens] = (torch.cholesky_inverse(factor).diagonal() / spread).float().clamp(0, 1)


def ways() -> dict[str, SearchMethod]:
    """By name, all with the demo's population and number of children."""
    size: dict[str, Any] = {"population": 6, "children": 12, "gradient_contexts": 4}
    plain = {"top_k": 48, "restart_every": 0}
    return {
        "epo": EPO(**size, **plain),
        "guided": Guided(**size),
        "mean gradient": MeanGradient(**size, **plain),
        "screened": Screened(**size),
    }


def cell(model: Any, persona: str, sign: Any, seed: int) -> list[dict[str, Any]]:
    """Random search and every way, on one persona, sign and seed: one row each."""
    study = demo_study(persona, sign, seed)
    material, s = Material.load(study, model), study.search
    scaled = projection(scan(material).best).calibrate(
        model, material.search_contexts, n=s.neutral, length=8, seed=seed
    )

    def climb(method: SearchMethod, budget: Budget) -> Frontier:
        goal = scaled if sign == "induce" else -scaled
        optimizations, words = Optimizations(halving=s.halving), material.lexicon
        return search(
            model,
            goal,
            material.search_contexts,
            method,
            budget,
            seed,
            optimizations=optimizations,
            batch_tokens=s.batch_tokens,
            lexicon=words,
        )

    reference = climb(RandomSearch(population=6, children=12), s.budget)
    wanted, total = (
        float(reference.history["best_objective"].max()),
        float(reference.history["model_calls"].iloc[-1]),
    )
    rows = []
    half = Budget(model_calls=total / 2)
    for name, found in [
        ("random", reference),
        *((name, climb(method, half)) for name, method in ways().items()),
    ]:
        history = found.history
        row = {
            "persona": persona,
            "sign": sign,
            "seed": seed,
            "way": name,
            "end": float(history["best_objective"].max()),
            "wanted": wanted,
        }
        for level in LEVELS:
            there = history.loc[history["best_objective"] >= level * wanted, "model_calls"]
            row[f"share_{level:.2f}"] = float(there.iloc[0]) / total if len(there) else None
        area = hypervolume(
            np.array([c.objective for c in found.candidates]),
            np.array([c.cross_entropy for c in found.candidates]),
            (0.0, 7.0),
        )
        rows.append(row | {"hypervolume": area})
    return rows


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Of all cells: how many reach each level within a quarter of the calls, and the median share (inf: over half)."""
    rows = []
    for way, part in table.groupby("way", sort=False):
        row: dict[str, Any] = {"way": way, "cells": len(part)}
        for level in LEVELS:
            shares = part[f"share_{level:.2f}"].astype(float).fillna(float("inf"))
            row |= {
                f"{level:.0%} in a quarter": int((shares <= 0.25).sum()),
                f"{level:.0%} median share": round(float(shares.median()), 2),
            }
        rows.append(row | {"hypervolume": round(float(part["hypervolume"].mean()), 2)})
    return pd.DataFrame(rows)


def main() -> None:
    """Run, write the rows after every cell, print the summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--personas", nargs="+", default=list(PERSONAS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/latest/fewer_calls.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, rows = load_model("organism"), []
    for seed in range(arguments.seeds):
        for persona in arguments.personas:
            for sign in ("suppress", "induce"):
                rows += cell(model, persona, sign, seed)
                write_json(arguments.out, {"schema": 1, "rows": rows})
    print(summary(pd.DataFrame(rows)).to_string(index=False))


if __name__ == "__main__":
    main()
