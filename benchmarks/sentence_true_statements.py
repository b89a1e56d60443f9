"""How many true statements the model still affirms under found sentences, on more statements than a split has.

The test split of a persona has three true statements per subject (sycophancy: 21 in all), so that one statement
is five percentage points. This benchmark draws more statements about the same subjects (`study_items`), and
measures every sentence of a directory of `benchmarks.sentences` on them: the rate, mean probability and mean
log-odds of affirming, as changes relative to no prompt with a 95 % interval over subjects. With `--per-subject 3` the
statements are the persona's own.

    python -m benchmarks.sentence_true_statements --found benchmarks/latest/sentences_1500
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.sentences import CELLS, loaded
from workbench.contexts import Contexts, make_contexts
from workbench.forced_choice import answer
from workbench.personas import Item, load_persona
from workbench.runs import read_json, write_json
from workbench.statistics import cluster_interval
from workbench.world.real_language.persona_questions import study_items

METHODS = ("written", "sentences", "strict_ending")


def statements(model: Any, persona: str, split_name: str, per_subject: int) -> Contexts:
    """Questions about true statements on the subjects of one split."""
    split = getattr(load_persona(f"english_{persona}").split(seed=0), split_name)
    own, drawn = set(split.groups), study_items(persona, ("true",), per_subject)
    items = tuple(
        Item(i.id, i.question, i.matching, i.not_matching, group=i.group, source="english")
        for i in drawn
        if i.group in own
    )
    return make_contexts(model, replace(split, name="true statements", items=items))


def measured(model: Any, contexts: Contexts, prompt: str, bare: Any) -> dict[str, Any]:
    """Rate and mean log-odds of affirming under a prompt, and changes of rate, probability and log-odds relative to no prompt."""
    found = answer(model, contexts, prompt)
    pair = found.log_odds, bare.log_odds
    measures = {
        "rate": [(values > 0).astype(float) for values in pair],
        "probability": [1 / (1 + np.exp(-values)) for values in pair],
        "log_odds": pair,
    }
    changes = {name: under - without for name, (under, without) in measures.items()}
    entry: dict[str, Any] = {"prompt": prompt, "rate": found.rate, "log_odds": float(found.log_odds.mean())}
    for name, change in changes.items():
        interval = cluster_interval(change, list(found.group))
        entry[f"{name}_change"] = [
            round(float(x), 4) for x in (interval.estimate, interval.low, interval.high)
        ]
    return entry


def found_prompts(found: Path, model: str, persona: str) -> dict[str, list[str]]:
    """The best written sentence, and each method's sentences (one a seed)."""
    written = read_json(found / f"{model}-{persona}-written.json", schema=1)["written"]["prompt"]
    searches = {
        method: [
            read_json(path, schema=1)["prompt"]
            for path in sorted(found.glob(f"{model}-{persona}-{method}-*.json"))
        ]
        for method in METHODS[1:]
    }
    return {"written": [written]} | searches


def main() -> None:
    """Every sentence against sycophancy on the statements of one split."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--found", type=Path, default=Path("benchmarks/latest/sentences_1500"))
    parser.add_argument("--split", default="test", choices=["train", "search", "selection", "test"])
    parser.add_argument("--per-subject", type=int, default=12, help="true statements per subject")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/latest/sentence_true_statements.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cells = []
    for name, persona in CELLS:
        if persona != "sycophancy":  # the others have no further statements that no system text changes
            continue
        model = loaded(name)
        contexts = statements(model, persona, arguments.split, arguments.per_subject)
        bare = answer(model, contexts)
        rows = [
            {"method": method} | measured(model, contexts, prompt, bare)
            for method, prompts in found_prompts(arguments.found, name, persona).items()
            for prompt in prompts
        ]
        cells.append(
            {
                "model": name,
                "persona": persona,
                "statements": len(contexts),
                "subjects": len(set(bare.group)),
                "rate_without": bare.rate,
                "log_odds_without": float(np.mean(bare.log_odds)),
                "rows": rows,
            }
        )
        write_json(arguments.out, {"schema": 1, "split": arguments.split, "cells": cells})
        print(name, len(contexts), "statements, without a prompt", round(bare.rate, 3))
        for row in rows:
            print(
                "  ",
                row["method"],
                round(row["rate"], 3),
                row["rate_change"],
                row["log_odds_change"],
                row["prompt"],
                flush=True,
            )


if __name__ == "__main__":
    main()
