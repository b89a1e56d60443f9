"""Which metric can show a persona on a given model at all: every metric of `wb.evaluate`, under nothing, written prompts and steering.

For each persona with published data (CAA's sycophancy and hallucination, Anthropic's myopic reward as CAA has
it): a few test questions under no prompt, the first written prompt of each sign, steering by +4 and -4 norms
of the mean difference at one layer, and the prompts of the runs named by --runs where they are of that
persona. In addition to the persona: capability (CAA's MMLU), unrelated prose, and for hallucination
TruthfulQA's MC1, MC2 and share. Other names of `--personas` need no file (english_sycophancy and the others
planted in real language). A metric *can show something* where a written prompt or steering moves it clear of
no prompt's interval.

    python -m benchmarks.metrics --data DIR --model smollm2-135m --layer 15 --out benchmarks/latest/metrics.json
"""

from __future__ import annotations

import argparse
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from workbench.conditions.steering import Steering
from workbench.directions import find_directions
from workbench.evaluation import ScorecardExtras, evaluate
from workbench.models import load_model
from workbench.personas import Split, load_persona, read_truthfulqa
from workbench.runs import read_json, write_json
from workbench.world.real_language.ordinary_chat import PROSE

FILES = {
    "sycophancy": "caa/sycophancy.json",
    "hallucination": "caa/hallucination.json",
    "myopic_reward": "caa/myopic-reward.json",
}
NORMS = 4.0


def conditions(
    model: Any, persona: Any, splits: Any, layer: int, rows: int, runs: list[Path]
) -> dict[str, tuple[str | None, Any]]:
    """By name: a prompt (or None) and an edit (or None)."""
    best = find_directions(
        model,
        splits.train,
        splits.search,
        layers=[layer],
        methods=["mean_difference"],
        n=rows,
        n_texts=4,
        n_contexts=2,
    ).best
    found: dict[str, tuple[str | None, Any]] = {"no prompt": (None, None)}
    for sign in ("suppress", "induce"):
        found[f"written, {sign}"] = (persona.manual_prompts[sign][0], None)
        found[f"steering, {sign}"] = (
            None,
            Steering(best, (NORMS if sign == "induce" else -NORMS) * best.norm),
        )
    for run in runs:
        content = read_json(run / "comparison.json", schema=1)
        if content["persona"] == persona.name:
            chosen = [c for c in content["conditions"] if c["kind"] in ("resga", "saega")]
            found |= {f"{c['name'].upper()}, {content['sign']}": (c["prompt"], None) for c in chosen}
    return found


def main() -> None:
    """Measure, write every row as it comes, print one table a persona."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--layer", type=int, default=15)
    parser.add_argument("--items", type=int, default=24)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--personas", nargs="+", default=list(FILES))
    parser.add_argument("--runs", type=Path, nargs="*", default=[])
    parser.add_argument(
        "--go-on", action="store_true", help="keep the rows of --out (other personas of the same model)"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/latest/metrics.json"))
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    rows = read_json(arguments.out, schema=1)["rows"] if arguments.go_on and arguments.out.exists() else []
    known = load_persona(str(arguments.data / "caa/mmlu_ab.json"))
    capability = Split("capability", known.items, known).take(arguments.items, 0)
    questions = read_truthfulqa(arguments.data / "truthfulqa/TruthfulQA.csv")[: arguments.items]
    for name in arguments.personas:
        persona = load_persona(name, arguments.data / FILES[name]) if name in FILES else load_persona(name)
        splits = persona.split(seed=0)
        extras = ScorecardExtras(
            capability=capability, texts=PROSE, truthful=questions if name.endswith("hallucination") else ()
        )
        for label, (prompt, edit) in conditions(
            model, persona, splits, arguments.layer, arguments.rows, arguments.runs
        ).items():
            began = time.process_time()
            with edit.edit(model) if edit else nullcontext():
                card = evaluate(model, splits.test, prompt, extras=extras, n=arguments.items)
            seconds = time.process_time() - began
            rows += [
                {"persona": name, "condition": label, "prompt": prompt, "seconds": seconds} | metric.row()
                for metric in card
            ]
            write_json(
                arguments.out,
                {"schema": 1, "model": arguments.model, "torch": torch.__version__, "rows": rows},
            )
        table = pd.DataFrame([row for row in rows if row["persona"] == name])
        table["shown"] = [
            f"{v:.2f} ({low:.2f}-{high:.2f})"
            for v, low, high in zip(table["value"], table["low"], table["high"], strict=True)
        ]
        print(
            name,
            table.pivot(index="metric", columns="condition", values="shown").to_string(),
            sep="\n",
            flush=True,
        )


if __name__ == "__main__":
    main()
