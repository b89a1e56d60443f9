"""How good are the found prompts, where the truth is known? Search against the best planted combination.

For every persona, sign and seed, on the organism's test split:
1. fit the direction and the latents on train and search data (as a study does);
2. search with RESGA, SAEGA, the answer objective, random search (equal token-layers) and random directions
   (also uncorrelated and isotropic ones);
3. choose on selection, read the chosen prompt's mean log-odds on test;
4. the reference: a beam (width 8) over combinations of planted phrases of the right sign, at most as many
   tokens, judged by the trained model on the search contexts; its best combination is read on test too.

`share` is the found effect over the reference's effect, both in mean log-odds against no prompt on test.

    python -m benchmarks.organism --seeds 5 --out benchmarks/latest/organism.json
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from workbench.contexts import Contexts, make_contexts
from workbench.directions import Direction, LayerScan, random_directions
from workbench.forced_choice import answer
from workbench.objectives import (
    Objective,
    ProjectionObjective,
    answer_log_odds,
    latent_activation,
    projection,
)
from workbench.runs import read_json, write_json
from workbench.study import Study
from workbench.study.material import Material
from workbench.study.stages.directions import scan
from workbench.study.stages.latents import ranked_latents
from workbench.study.stages.search import run_search
from workbench.study.study_presets import demo_study
from workbench.world import World

PERSONAS = ("sycophancy", "hallucination", "myopic_reward")


def beam(material: Material, contexts: Contexts, sign: int, length: int, width: int = 8) -> tuple[str, float]:
    """The best combination of planted phrases of one sign, at most `length` words, by mean log-odds on the contexts."""
    phrases = [
        e.phrase
        for e in World(seed=0).effects
        if e.persona == material.persona.name and e.log_odds * sign > 0
    ]
    beams: list[tuple[float, tuple[str, ...]]] = [(-np.inf, ())]
    best = beams[0]
    while True:
        grown = {
            tuple(sorted((*chosen, p))): (*chosen, p)
            for _, chosen in beams
            for p in phrases
            if p not in chosen
        }
        fitting = [c for c in grown.values() if len(" ".join(c).split()) <= length]
        if not fitting:
            return " ".join(best[1]), best[0]
        scored = [
            (sign * float(answer(material.model, contexts, " ".join(c)).log_odds.mean()), c) for c in fitting
        ]
        beams = sorted(scored, reverse=True)[:width]
        best = max(best, beams[0])


def searches(
    material: Material, found: LayerScan, n_random: int, seed: int
) -> dict[str, tuple[Objective, str]]:
    """Objectives by name, not yet calibrated, with the method that climbs them."""
    sae = material.sae
    method = material.study.search.method
    table: dict[str, tuple[Objective, str]] = {
        "resga": (projection(found.best), method),
        "answer_objective": (answer_log_odds(), method),
    }
    if sae is not None:
        ranked = ranked_latents(material)
        table["saega"] = (latent_activation(sae, ranked.ids, ranked.weights), method)
    table["random_search"] = (projection(found.best), "random")
    if n_random:
        for number, direction in enumerate(
            random_directions(found.best, found.activations, n_random, seed, both_signs=False)
        ):
            table[f"random_direction {number}"] = (projection(direction), method)
        for number, direction in enumerate(
            random_directions(found.best, found.activations, -(-n_random // 4), seed + 1000, both_signs=False)
        ):
            table[f"uncorrelated_direction {number}"] = (
                projection(uncorrelated(direction, found.best, found.activations)),
                method,
            )
        for number, direction in enumerate(isotropic(found.best, n_random, seed + 2000)):
            table[f"isotropic_direction {number}"] = (projection(direction), method)
    return table


def uncorrelated(direction: Direction, other: Direction, activations: torch.Tensor) -> Direction:
    """`direction` less its part along `other`, so that the two readings do not correlate over the activations; as long as before.

    What remains of a random direction's effect when it no longer reads the persona: the experiment that tells
    why random directions drawn with the residuals' covariance steer."""
    centred = (activations - activations.mean(0)).double()
    read, aside = centred @ direction.vector.double(), centred @ other.vector.double()
    vector = direction.vector.double() - (read @ aside) / (aside @ aside) * other.vector.double()
    return replace(direction, vector=(vector / vector.norm() * direction.norm).float())


def isotropic(direction: Direction, n: int, seed: int) -> list[Direction]:
    """n directions of even distribution over all angles, as long as `direction`: mostly where the model never goes."""
    drawn = torch.randn(n, len(direction.vector), generator=torch.Generator().manual_seed(seed))
    return [replace(direction, vector=row / row.norm() * direction.norm) for row in drawn]


def reading_correlation(objective: Objective, found: LayerScan) -> float | None:
    """Correlation over the activations of what the objective's direction and the chosen one read; None for other objectives."""
    if not isinstance(objective, ProjectionObjective):
        return None
    readings = [
        found.activations.double() @ vector.double() for vector in (objective.vector, found.best.vector)
    ]
    return float(torch.corrcoef(torch.stack(readings))[0, 1])


def one(study: Study, model: Any, n_random: int, only: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """All searches (or those named in `only`) of one persona, sign and seed: one row each, the reference's and no prompt's figures with it."""
    material = Material.load(study, model)
    sign = 1 if study.sign == "induce" else -1
    test = make_contexts(model, material.splits.test, study.slot)
    bare = float(answer(model, test).log_odds.mean())
    length = study.search.options.get("length", 8)
    planted, _ = beam(material, material.search_contexts, sign, length)
    best = float(answer(model, test, planted).log_odds.mean())
    rows, found = [], scan(material)
    for name, (objective, method) in searches(material, found, n_random, study.seed).items():
        if only and name.split()[0] not in only:
            continue
        began = time.perf_counter()
        frontier = run_search(material, objective, method, None, None)
        chosen = frontier.select(model, material.selection_contexts)
        measured = answer(model, test, chosen.ids)
        rows.append(
            {
                "persona": study.persona,
                "sign": study.sign,
                "seed": study.seed,
                "search": name,
                "prompt": chosen.text,
                "reading_correlation": reading_correlation(objective, found),
                "fluency": chosen.cross_entropy,
                "rate": measured.rate,
                "shift": float(measured.log_odds.mean()) - bare,
                "best_shift": best - bare,
                "share": (float(measured.log_odds.mean()) - bare) / (best - bare),
                "planted": planted,
                "no_prompt": bare,
                "precision": precision(study, chosen.text, sign),
                "model_calls": frontier.cost.model_calls,
                "seconds": time.perf_counter() - began,
                "history": frontier.history[["step", "model_calls", "best_objective"]].to_dict("list"),
            }
        )
    return rows


def precision(study: Study, text: str, sign: int) -> float:
    """Fraction of the prompt's words that belong to a planted phrase of the right sign that is in it."""
    words = text.split()
    good = {e.phrase for e in World(seed=0).effects if e.persona == study.persona and e.log_odds * sign > 0}
    inside = [
        w in good
        or any(f"{a} {w}" in good for a in words[:i][-1:])
        or any(f"{w} {b}" in good for b in words[i + 1 :][:1])
        for i, w in enumerate(words)
    ]
    return float(np.mean(inside))


def control_table(table: pd.DataFrame) -> pd.DataFrame:
    """RESGA's effect next to those of the random directions of the same persona, sign and seed: how many it exceeds (1: all)."""
    rows = []
    for (persona, sign, seed), group in table.groupby(["persona", "sign", "seed"], sort=False):
        way = 1 if sign == "induce" else -1
        own = way * group.loc[group["search"] == "resga", "shift"].iloc[0]
        for kind in ("random_direction", "uncorrelated_direction", "isotropic_direction"):
            some = group[group["search"].str.startswith(kind)]
            if len(some):
                shifts = way * some["shift"]
                rows.append(
                    {
                        "persona": persona,
                        "sign": sign,
                        "seed": seed,
                        "control": kind,
                        "n": len(some),
                        "resga": way * own,
                        "median": way * shifts.median(),
                        "strongest": way * shifts.max(),
                        "exceeds": float((own > shifts).mean()),
                        "shift_by_correlation": some["reading_correlation"]
                        .astype(float)
                        .corr(shifts, method="spearman"),
                    }
                )
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean fraction of the best planted effect over seeds, its range, and mean precision, by persona, sign and search."""
    grouped = table.assign(search=table["search"].str.split(" ").str[0]).groupby(
        ["persona", "sign", "search"], sort=False
    )
    return grouped.agg(
        share=("share", "mean"),
        least=("share", "min"),
        most=("share", "max"),
        precision=("precision", "mean"),
        shift=("shift", "mean"),
        best_shift=("best_shift", "mean"),
        calls=("model_calls", "mean"),
        n=("share", "size"),
    ).reset_index()


def calls_table(table: pd.DataFrame, own: str = "resga", reference: str = "random_search") -> pd.DataFrame:
    """Model calls until `own` first has what `reference` ends with, over all of the reference's calls; inf where it never has. Both climb
    the same objective from the same seed."""
    rows = []
    for (persona, sign, seed), group in table.groupby(["persona", "sign", "seed"], sort=False):
        ours, theirs = (group.loc[group["search"] == name, "history"].iloc[0] for name in (own, reference))
        wanted = max(theirs["best_objective"])
        reached = [
            calls
            for calls, best in zip(ours["model_calls"], ours["best_objective"], strict=True)
            if best >= wanted
        ]
        share = reached[0] / theirs["model_calls"][-1] if reached else float("inf")
        ends = {"end": max(ours["best_objective"]), "reference_end": wanted}
        rows.append({"persona": persona, "sign": sign, "seed": seed, "share_of_calls": share} | ends)
    return pd.DataFrame(rows)


def main() -> None:
    """Run, print the summary, write the rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--random-directions", type=int, default=0)
    parser.add_argument("--personas", nargs="+", default=list(PERSONAS))
    parser.add_argument("--signs", nargs="+", default=["suppress", "induce"])
    parser.add_argument(
        "--go-on", action="store_true", help="keep the rows of --out (made with the same weights and options)"
    )
    parser.add_argument("--searches", nargs="+", default=None, help="only these, by name")
    parser.add_argument("--method", default="epo")
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/latest/organism.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    from workbench.models import load_model

    model = load_model("organism")
    rows = read_json(arguments.out)["rows"] if arguments.go_on and arguments.out.exists() else []
    done = {(row["persona"], row["sign"], row["seed"]) for row in rows}
    for persona in arguments.personas:
        for sign in arguments.signs:
            for seed in range(arguments.seeds):
                if (persona, sign, seed) in done:
                    continue
                study = demo_study(persona, sign, seed)
                changes: dict[str, Any] = {"method": arguments.method}
                if arguments.steps:
                    changes["budget"] = study.search.budget.model_copy(update={"steps": arguments.steps})
                study = study.model_copy(update={"search": study.search.model_copy(update=changes)})
                rows += one(study, model, arguments.random_directions, arguments.searches)
                print(
                    pd.DataFrame(rows[-8:])[
                        ["persona", "sign", "seed", "search", "share", "precision", "prompt"]
                    ].to_string(index=False),
                    flush=True,
                )
                write_json(arguments.out, {"schema": 1, "rows": rows})
    table = pd.DataFrame(rows)
    print(summary(table).to_string(index=False))
    if {"resga", "random_search"} <= set(table["search"]):
        print(calls_table(table).to_string(index=False))
    if arguments.random_directions:
        print(control_table(table).to_string(index=False))


if __name__ == "__main__":
    main()
