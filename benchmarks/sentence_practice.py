"""What a user of the sentence search gets: the best of several searches, chosen on questions that none of them read, and its paraphrases.

1. *Best of the seeds.* Of all sentences that the searches of one cell found (one a seed), the one that lowers
   the log-odds most on the selection split; the best written sentence is chosen on the same questions. Both are
   compared on the test split: one sentence against one, 95 % interval over question groups. True statements are
   counted too.
2. *Paraphrases* of found and written sentences (`sentence_paraphrases.yaml`), with the same content words and
   with synonyms: the part of the effect that stays, on the first test questions.

    python -m benchmarks.sentence_practice --written written_sentences.yaml --found benchmarks/latest/sentences_1500
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.sentences import CELLS, Cell
from workbench.evaluation import prompt_robustness
from workbench.forced_choice import answer
from workbench.personas import load_persona
from workbench.runs import read_json, read_yaml, write_json
from workbench.statistics import cluster_interval

METHODS = ("sentences", "strict_ending", "epo", "best_of_n")
PARAPHRASES = Path(__file__).with_name("sentence_paraphrases.yaml")


def found_sentences(found: Path, model: str, persona: str, methods: tuple[str, ...]) -> list[str]:
    """The prompts of one cell, one a search."""
    paths = [path for method in methods for path in sorted(found.glob(f"{model}-{persona}-{method}-*.json"))]
    return [read_json(path, schema=1)["prompt"] for path in paths]


def best_of_seeds(cell: Cell, found: Path) -> dict[str, Any]:
    """For each method the sentence chosen on selection, its effect, and its difference from the best written sentence."""
    written = cell.best_written()
    groups = written["groups"]
    rows: dict[str, Any] = {"written": _row(written, None, groups)}
    for methods in (
        ("sentences",),
        ("strict_ending",),
        ("sentences", "strict_ending"),
        ("epo",),
        ("best_of_n",),
    ):
        prompts = found_sentences(found, cell.name, cell.persona, methods)
        if len(prompts) > 1:
            chosen = min(
                prompts, key=lambda text: float(answer(cell.model, cell.selection, text).log_odds.mean())
            )
            measured = cell.measured(chosen)
            rows[" and ".join(methods)] = {"searches": len(prompts)} | _row(measured, written, groups)
    return rows


def _row(measured: dict[str, Any], written: dict[str, Any] | None, groups: list[str]) -> dict[str, Any]:
    effects = np.array(measured["effects"])
    kept = {
        key: measured[key]
        for key in ("prompt", "truth", "truth_without", "cross_entropy", "cross_entropy_by_base")
    }
    found = kept | {"effect": _interval(effects, groups)}
    return (
        found
        if written is None
        else found | {"over_written": _interval(effects - np.array(written["effects"]), groups)}
    )


def _interval(values: np.ndarray, groups: list[str]) -> list[float]:
    """Mean, low, high."""
    interval = cluster_interval(values, groups)
    return [round(float(value), 4) for value in (interval.estimate, interval.low, interval.high)]


def paraphrased(cell: Cell, found: Path, items: int) -> list[dict[str, Any]]:
    """Each sentence of the cell that has paraphrases: its effect and the part of it that each paraphrase keeps."""
    own = {*found_sentences(found, cell.name, cell.persona, METHODS), cell.best_written()["prompt"]}
    split, rows = load_persona(f"english_{cell.persona}").split(seed=0).test, []
    for entry in read_yaml(PARAPHRASES):
        if entry["prompt"] in own:
            kinds = {text: kind for kind in ("same_words", "other_words") for text in entry[kind]}
            table = prompt_robustness(cell.model, split, entry["prompt"], list(kinds), n=items).rows
            given = table[table["form"].str.startswith("paraphrase")]
            shares = [
                {"kind": kinds[r.prompt], "prompt": r.prompt, "share": round(r.share, 3)}
                for r in given.itertuples()
            ]
            effect = float(table[table["form"] == "as it is"]["effect"].iloc[0])
            rows.append(
                {
                    "prompt": entry["prompt"],
                    "written": entry["prompt"] in cell.written,
                    "effect": round(effect, 3),
                    "paraphrases": shares,
                }
            )
    return rows


def main() -> None:
    """Both tables of all cells."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--written", type=Path, required=True)
    parser.add_argument("--found", type=Path, default=Path("benchmarks/latest/sentences_1500"))
    parser.add_argument("--selection", type=int, default=60, help="contexts of the selection split")
    parser.add_argument("--items", type=int, default=8, help="test questions under each paraphrase")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/latest/sentence_practice.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sentences, cells = read_yaml(arguments.written), []
    for model, persona in CELLS:
        cell = Cell(model, persona, sentences, arguments.selection)
        entry = {"model": model, "persona": persona, "best_of_seeds": best_of_seeds(cell, arguments.found)}
        cells.append(entry | {"paraphrases": paraphrased(cell, arguments.found, arguments.items)})
        write_json(arguments.out, {"schema": 1, "cells": cells})
        for name, row in entry["best_of_seeds"].items():
            print(
                model,
                persona,
                name,
                row["effect"],
                row.get("over_written", ""),
                repr(row["prompt"]),
                flush=True,
            )
        for row in cells[-1]["paraphrases"]:
            print(
                "  ",
                row["effect"],
                row["prompt"],
                [(p["kind"], p["share"]) for p in row["paraphrases"]],
                flush=True,
            )


if __name__ == "__main__":
    main()
