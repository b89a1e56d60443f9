"""How good is each search method for its money? Every method on the same objective, contexts, seeds and budget, on the organism.

1. A setting is a persona and a sign: RESGA's objective (direction fitted on train and search data, z-scored
   over neutral prompts), a few search contexts, the world's ordinary words.
2. Every method runs on the same seeds until the same number of model calls is spent. After each step the
   curve keeps model calls, the process's CPU seconds, the best objective, and the frontier's hypervolume over
   (0 SD, ln d_vocab nats): better than a neutral prompt and more fluent than drawing tokens evenly.
3. Equal calls: the end of the curves. Equal time: each curve where the fastest method of that seed ended.
   Differences to EPO are paired by seed. Held-out effect: the prompt that the selection split chooses, mean
   log-odds there against no prompt.
4. `cheaper`: the calls (seconds) in which EPO and random search came to their final objective, over those in
   which the method did.
5. The best planted prompt: a beam over combinations of planted phrases under the same objective; `found`:
   fraction of seeds that reach its value, `found_calls`: median calls until then.

    OMP_NUM_THREADS=1 python -m benchmarks.search_quality --seeds 5
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from workbench.budget import Budget
from workbench.contexts import Contexts, make_contexts
from workbench.directions import find_directions
from workbench.errors import UserError
from workbench.forced_choice import answer
from workbench.models import load_model, runner_for
from workbench.objectives import Objective, projection
from workbench.personas import load_persona
from workbench.prompt_tokens import encode_prompt, lexicon
from workbench.runs import write_json
from workbench.search import (
    EPO,
    GCG,
    Beam,
    Guided,
    RandomSearch,
    Scorer,
    SearchMethod,
    SearchProgress,
    hypervolume,
    search,
)
from workbench.statistics import over_seeds
from workbench.world import World

#: Equal numbers of children a step; EPO and GCG consider the same fraction of the words (48 of about 440) as
#: in the demo.
METHODS: dict[str, SearchMethod] = {
    "epo": EPO(population=6, children=12, top_k=48, restart_every=0, gradient_contexts=4),
    "gcg": GCG(children=72, top_k=48, gradient_contexts=4),
    "beam": Beam(population=6, children=12),
    "random": RandomSearch(population=6, children=12),
    "guided": Guided(population=6, children=12, gradient_contexts=4),
}
COLUMNS = ("calls", "seconds", "objective", "hypervolume")


@dataclass(frozen=True)
class Setting:
    """One persona and sign: what is maximised, on what, and the objective of the best planted combination."""

    name: str
    sign: int
    model: Any
    goal: Objective
    contexts: Contexts
    selection: Contexts
    words: torch.Tensor
    planted: float
    planted_text: str


def make_setting(persona: str, sign: str, n_contexts: int, length: int = 8) -> Setting:
    """Directions, contexts and the planted reference, all of world seed 0, nothing from the test split."""
    model, data, direction = (
        load_model("organism"),
        load_persona(persona).split(seed=0),
        1 if sign == "induce" else -1,
    )
    best = find_directions(model, data.train, data.search, n=64, n_texts=8, n_contexts=6).best
    contexts = make_contexts(model, data.search).per_group(n_contexts, 0)
    selection = make_contexts(model, data.selection).per_group(16, 0)
    goal = direction * projection(best).calibrate(model, contexts)
    planted, text = best_planted(model, goal, contexts, persona, direction, length)
    return Setting(
        f"{persona}, {sign}",
        direction,
        model,
        goal,
        contexts,
        selection,
        lexicon(model, World().lexicon.ordinary_words),
        planted,
        text,
    )


def best_planted(
    model: Any, goal: Objective, contexts: Contexts, persona: str, sign: int, length: int, width: int = 4
) -> tuple[float, str]:
    """The greatest objective over combinations of planted phrases of one sign, at most `length` words (a beam), and its text."""
    phrases = [e.phrase for e in World().effects if e.persona == persona and e.log_odds * sign > 0]
    scorer, beams, best = Scorer(runner_for(model), goal, contexts), [""], (-np.inf, "")
    while beams:
        grown = {f"{beam} {p}".strip() for beam in beams for p in phrases if p not in beam}
        texts = sorted(text for text in grown if len(text.split()) <= length)
        scored = []
        for size in sorted({len(text.split()) for text in texts}):
            same = [text for text in texts if len(text.split()) == size]
            ids = torch.tensor([encode_prompt(model, contexts, text) for text in same])
            scored += zip(scorer.score(ids).objective.tolist(), same, strict=True)
        best = max([best, *scored])
        beams = [text for _, text in sorted(scored, reverse=True)[:width]]
    return best


def run(setting: Setting, method: SearchMethod, seed: int, calls: float) -> dict[str, Any]:
    """One search: its curve (one row a step) and the held-out effect of the prompt that selection chooses."""
    curve, began = [], time.process_time()
    worst = float(np.log(runner_for(setting.model).shape.d_vocab))

    def keep(progress: SearchProgress) -> None:
        now = time.process_time() - began
        area = hypervolume(
            progress.frontier.objective.numpy(), progress.frontier.cross_entropy.numpy(), (0.0, worst)
        )
        curve.append([progress.model_calls, now, progress.best_objective, area])

    found = search(
        setting.model,
        setting.goal,
        setting.contexts,
        method,
        Budget(model_calls=calls),
        seed,
        lexicon=setting.words,
        on_step=keep,
    )
    bare = float(answer(setting.model, setting.selection).log_odds.mean())
    chosen = found.select(setting.model, setting.selection)
    shift = setting.sign * ((chosen.selection_log_odds or 0.0) - bare)
    return {
        "setting": setting.name,
        "seed": seed,
        "curve": curve,
        "shift": shift,
        "prompt": chosen.text,
        "planted": setting.planted,
    }


def at(curve: list[list[float]], column: str, limit: float, by: str = "calls") -> float:
    """A curve's value when `limit` calls (seconds) were spent: of the last step that ended by then, 0 before the first."""
    rows = [row for row in curve if row[COLUMNS.index(by)] <= limit]
    return rows[-1][COLUMNS.index(column)] if rows else 0.0


def until(curve: list[list[float]], value: float, by: str = "calls") -> float:
    """Calls (seconds) until the best objective reached a value; inf if it never did."""
    return next((row[COLUMNS.index(by)] for row in curve if row[2] >= value), np.inf)


def summary(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """One row a setting and method: means over seeds, paired differences to EPO with intervals, and how much cheaper."""
    if len({row["seed"] for row in rows}) < 2:
        raise UserError("a summary needs at least two seeds")
    table = []
    for name in dict.fromkeys(row["setting"] for row in rows):
        mine = [row for row in rows if row["setting"] == name]
        runs = {
            method: [row for row in mine if row["method"] == method]
            for method in dict.fromkeys(row["method"] for row in mine)
        }
        table += [{"setting": name, "method": method} | _figures(runs, method) for method in runs]
    return pd.DataFrame(table)


def _figures(runs: dict[str, list[dict[str, Any]]], method: str) -> dict[str, Any]:
    mine, epo = runs[method], runs["epo"]
    calls = min(row["curve"][-1][0] for every in runs.values() for row in every)
    shortest = [min(every[i]["curve"][-1][1] for every in runs.values()) for i in range(len(mine))]
    timed = lambda column: lambda row, i: at(row["curve"], column, shortest[i], "seconds")  # noqa: E731
    measures: dict[str, Callable[[dict[str, Any], int], float]] = {
        "objective": lambda row, i: at(row["curve"], "objective", calls),
        "hypervolume": lambda row, i: at(row["curve"], "hypervolume", calls),
        "hypervolume_equal_time": timed("hypervolume"),
        "shift": lambda row, i: row["shift"],
    }
    figures: dict[str, Any] = {
        "calls": calls,
        "seconds": float(np.mean([row["curve"][-1][1] for row in mine])),
    }
    for name, measure in measures.items():
        own = [measure(row, i) for i, row in enumerate(mine)]
        spread = over_seeds(own)
        difference = over_seeds(
            [value - measure(row, i) for i, (value, row) in enumerate(zip(own, epo, strict=True))]
        )
        figures[name] = [spread.interval.estimate, spread.interval.low, spread.interval.high]
        figures[f"{name} - epo"] = [
            difference.interval.estimate,
            difference.interval.low,
            difference.interval.high,
        ]
    for other in ("epo", "random"):
        for by in ("calls", "seconds"):
            figures[f"{other}'s {by} / own"] = _cheaper(runs[other], mine, by)
    reached = [until(row["curve"], row["planted"]) for row in mine]
    figures["found"] = float(np.mean(np.isfinite(reached)))
    figures["found_calls"] = float(np.median(reached)) if np.isfinite(np.median(reached)) else None
    return figures


def _cheaper(others: list[dict[str, Any]], mine: list[dict[str, Any]], by: str) -> float:
    """Median over seeds: what the other spent to come to its final objective, over what this one spent to come there; 0: never came."""
    ends = [max(row[2] for row in other["curve"]) for other in others]
    ratios = [
        until(o["curve"], end, by) / until(m["curve"], end, by)
        for o, m, end in zip(others, mine, ends, strict=True)
    ]
    return float(np.median(ratios))


def main() -> None:
    """Run, print the summary, write rows and summary as JSON after every run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--calls", type=float, default=6000)
    parser.add_argument("--contexts", type=int, default=6)
    parser.add_argument("--settings", nargs="+", default=["sycophancy:suppress", "hallucination:suppress"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/latest/search_quality.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    settings = [make_setting(*name.split(":"), arguments.contexts) for name in arguments.settings]
    for seed in range(arguments.seeds):
        for setting in settings:
            for name in arguments.methods:
                rows.append({"method": name} | run(setting, METHODS[name], seed, arguments.calls))
                end = rows[-1]["curve"][-1]
                print(
                    f"{setting.name} seed {seed} {name}: objective {end[2]:.2f}, hypervolume {end[3]:.2f}, {end[1]:.0f} s",
                    flush=True,
                )
    planted = {
        setting.name: {"objective": setting.planted, "text": setting.planted_text} for setting in settings
    }
    table = summary(rows)
    write_json(
        arguments.out,
        {
            "schema": 1,
            "columns": COLUMNS,
            "planted": planted,
            "rows": rows,
            "summary": table.to_dict("records"),
        },
    )
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
