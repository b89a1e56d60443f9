"""Studies on real weights as one small table: what each condition does to the answers of counterbalanced questions.

Every answer of such a persona is the matching one as often as the other one, so an answer bias cancels over a group. Effects here are over
the groups in which both answers were requested: the mean over each answer's questions, then over the answers, then over groups (95 % t
intervals over groups). `answer_bias`: half of the difference of the changes where the one and where the other answer matches (the first by
the alphabet minus the second), no effect on the persona.

    workbench run docs/examples/qwen_feedback.yaml --model MODELS/qwen2.5-coder-0.5b.gguf --out runs/qwen_suppress
    python -m benchmarks.real_models runs/* --out benchmarks/latest/real_models.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workbench.personas import load_persona
from workbench.runs import read_json, read_yaml, write_json
from workbench.statistics import cluster_interval


def study_table(run: Path) -> dict[str, Any]:
    """One run's settings, its direction's verdict, its cost, and its conditions with their effects."""
    study, comparison = read_yaml(run / "study.yaml"), read_json(run / "comparison.json")
    table = pd.read_parquet(run / "evaluation.parquet")
    matching = {item.id: item.matching for item in load_persona(study["persona"]).items}
    effects = by_condition(table.assign(matching=table["item"].map(matching)))
    entries = {entry["name"]: entry for entry in comparison["conditions"]}
    direction, manifest = read_json(run / "direction.json"), read_json(run / "manifest.json")
    rows = [{"name": name, "kind": entries[name]["kind"], "prompt": entries[name]["prompt"], "nats": entries[name]["fluency"], **found}
            for name, found in effects.items()]  # fmt: skip
    return {
        "study": {key: study[key] for key in ("persona", "sign", "seed", "data", "directions", "search", "conditions")}
        | {"model": Path(study["model"]["name"]).name, "dtype": study["model"]["dtype"]},
        "direction": {key: direction[key] for key in ("site", "method", "auc", "predicts", "shown", "verdict")},
        "seconds": {name: round(stage["seconds"]) for name, stage in manifest["stages"].items()},
        "tflops": {name: round((stage["flops"] or 0) / 1e12, 1) for name, stage in manifest["stages"].items()},
        "peak_memory_mb": max(stage["peak_memory_mb"] or 0 for stage in manifest["stages"].values()),
        "search_warnings": _warnings(run),
        "conditions": rows,
    }


def by_condition(table: pd.DataFrame, baseline: str = "no prompt", neutral: str = "neutral text") -> dict[str, dict[str, Any]]:
    """Effects by condition over the groups in which more than one answer was the matching one.

    table: condition, group, matching, log_odds."""
    complete = table[table.groupby("group")["matching"].transform("nunique") > 1]
    sides = complete.groupby(["condition", "group", "matching"])["log_odds"].mean().unstack("matching")
    means = sides.mean(axis=1).unstack("group")
    answers, found = sorted(table["matching"].unique()), {}
    for name in table["condition"].unique():
        groups = tuple(means.columns)
        one: dict[str, Any] = {"groups": len(groups), "log_odds": _interval(means.loc[name], groups)}
        one["effect"] = _interval(means.loc[name] - means.loc[baseline], groups)
        if neutral in means.index:
            one["beyond_neutral"] = _interval(means.loc[name] - means.loc[neutral], groups)
        if len(answers) == 2:
            change = sides.loc[name] - sides.loc[baseline]
            one["answer_bias"] = float((change[answers[0]] - change[answers[1]]).mean() / 2)
        found[name] = one
    return found


def _interval(values: pd.Series, groups: tuple[str, ...]) -> list[float]:
    found = cluster_interval(np.asarray(values, dtype=float), groups)
    return [round(value, 4) for value in (found.estimate, found.low, found.high)]


def _warnings(run: Path) -> dict[str, list[str]]:
    searches = read_json(run / "search" / "frontier.json")["searches"]
    return {name: search["warnings"] for name, search in searches.items() if search.get("warnings")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    write_json(asked.out, {"runs": {run.name: study_table(run) for run in asked.runs}})


if __name__ == "__main__":
    main()
