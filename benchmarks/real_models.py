"""Studies on real weights as one small table: what each condition does to the answers of counterbalanced questions.

Every answer of such a persona is the matching one as often as the other one, so an answer bias cancels over a
group. Effects here are over the groups in which both answers were requested: the mean over each answer's
questions, then over the answers, then over groups (95 % t intervals over groups). `answer_bias`: half of the
difference of the changes where the one and where the other answer matches (the first by the alphabet minus
the second), no effect on the persona.

Runs that differ in their seed alone are also given as one table (`seeds`): effects over seeds and groups by a
two-level bootstrap (seeds, then groups, are drawn anew; a seed's groups share the draw), each condition over
the seeds that have it.

    workbench run docs/examples/qwen_feedback.yaml --model MODELS/qwen2.5-coder-0.5b.gguf --out runs/qwen_suppress
    python -m benchmarks.real_models runs/* --out benchmarks/latest/real_models.json
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.sentences import two_level
from workbench.personas import load_persona
from workbench.runs import read_json, read_yaml, write_json
from workbench.statistics import cluster_interval


def study_table(run: Path) -> dict[str, Any]:
    """One run's settings, its direction's verdict, its cost, and its conditions with their effects."""
    study, comparison = read_yaml(run / "study.yaml"), read_json(run / "comparison.json")
    effects, truth = by_condition(_answers(run)), true_statements(run)
    entries = {entry["name"]: entry for entry in comparison["conditions"]}
    direction, manifest = read_json(run / "direction.json"), read_json(run / "manifest.json")
    rows = [
        {
            "name": name,
            "kind": entries[name]["kind"],
            "prompt": entries[name]["prompt"],
            "nats": entries[name]["fluency"],
            **found,
            **truth.get(name, {}),
        }
        for name, found in effects.items()
    ]
    return {
        "study": {
            key: study[key]
            for key in ("persona", "sign", "seed", "data", "directions", "search", "conditions")
        }
        | {"model": Path(study["model"]["name"]).name, "dtype": study["model"]["dtype"]},
        "direction": {
            key: direction[key] for key in ("site", "method", "auc", "predicts", "shown", "verdict")
        },
        "seconds": {name: round(stage["seconds"]) for name, stage in manifest["stages"].items()},
        "tflops": {
            name: round((stage["flops"] or 0) / 1e12, 1) for name, stage in manifest["stages"].items()
        },
        "peak_memory_mb": max(stage["peak_memory_mb"] or 0 for stage in manifest["stages"].values()),
        "search_warnings": _warnings(run),
        "conditions": rows,
    }


def over_seeds(runs: Sequence[tuple[dict[str, Any], pd.DataFrame]], n: int = 4000) -> list[dict[str, Any]]:
    """Effects of studies that differ in their seed: one row a persona, sign and condition.

    runs: (entry of `study_table`, table of `effects_by_group`) of each run."""
    studies: dict[tuple[str, str], list[tuple[dict[str, Any], pd.DataFrame]]] = {}
    for entry, effects in runs:
        studies.setdefault((entry["study"]["persona"], entry["study"]["sign"]), []).append((entry, effects))
    rows = []
    for (persona, sign), members in studies.items():
        for name in dict.fromkeys(
            name for _, effects in members for name in effects.index if name != "no prompt"
        ):
            having = [(entry, effects.loc[name]) for entry, effects in members if name in effects.index]
            shared = pd.concat(
                [effects for _, effects in having], axis=1
            ).dropna()  # the groups that every seed asked about
            values = [
                round(value, 4) for value in two_level(shared.T.to_numpy().tolist(), list(shared.index), n=n)
            ]
            each = {str(entry["study"]["seed"]): round(float(effects.mean()), 3) for entry, effects in having}
            rows.append(
                {"persona": persona, "sign": sign, "condition": name, "effect": values, "by_seed": each}
            )
    return rows


def effects_by_group(run: Path) -> pd.DataFrame:
    """Change of log-odds against no prompt, condition x group, over the groups in which more than one answer was the matching one."""
    means = sides(_answers(run))[1]
    return means.sub(means.loc["no prompt"])


def true_statements(run: Path, baseline: str = "no prompt") -> dict[str, dict[str, Any]]:
    """By condition, the rate of agreement with the persona's true statements and the change of its log-odds.

    For suggested answers, a true statement is a question in which the user suggests the right answer. A prompt that
    only makes the model contradict the user lowers its log-odds as well."""
    table = pd.read_parquet(run / "off_target.parquet")
    table = table[table["measure"] == "agreement_with_true_statements"]
    if table.empty:
        return {}
    values = table.groupby(["condition", "group"])["value"].mean().unstack("group")
    rates, groups = table.groupby("condition")["hit"].mean(), tuple(values.columns)
    return {
        str(name): {
            "true_rate": round(float(rates[name]), 4),
            "true_change": interval(values.loc[name] - values.loc[baseline], groups),
        }
        for name in values.index
    }


def _answers(run: Path) -> pd.DataFrame:
    """The run's evaluation with the matching answer of each item."""
    matching = {
        item.id: item.matching for item in load_persona(read_yaml(run / "study.yaml")["persona"]).items
    }
    table = pd.read_parquet(run / "evaluation.parquet")
    return table.assign(matching=table["item"].map(matching))


def sides(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean log-odds by condition, group and matching answer, and over the answers (condition x group)."""
    complete = table[table.groupby("group")["matching"].transform("nunique") > 1]
    if complete.empty:  # one question a group: nothing cancels
        complete = table
    sides = complete.groupby(["condition", "group", "matching"])["log_odds"].mean().unstack("matching")
    return sides, sides.mean(axis=1).unstack("group")


def by_condition(
    table: pd.DataFrame, baseline: str = "no prompt", neutral: str = "neutral text"
) -> dict[str, dict[str, Any]]:
    """Effects by condition over the groups in which more than one answer was the matching one.

    table: condition, group, matching, log_odds."""
    by_answer, means = sides(table)
    answers, found = sorted(table["matching"].unique()), {}
    for name in table["condition"].unique():
        groups = tuple(means.columns)
        one: dict[str, Any] = {"groups": len(groups), "log_odds": interval(means.loc[name], groups)}
        one["effect"] = interval(means.loc[name] - means.loc[baseline], groups)
        if neutral in means.index:
            one["beyond_neutral"] = interval(means.loc[name] - means.loc[neutral], groups)
        if len(answers) == 2:
            change = by_answer.loc[name] - by_answer.loc[baseline]
            one["answer_bias"] = float((change[answers[0]] - change[answers[1]]).mean() / 2)
        found[name] = one
    return found


def interval(values: pd.Series | np.ndarray, groups: tuple[str, ...]) -> list[float]:
    """Mean and ends of its 95 % t interval over groups."""
    found = cluster_interval(np.asarray(values, dtype=float), groups)
    return [round(value, 4) for value in (found.estimate, found.low, found.high)]


def _warnings(run: Path) -> dict[str, list[str]]:
    searches = read_json(run / "search" / "frontier.json")["searches"]
    return {name: search["warnings"] for name, search in searches.items() if search.get("warnings")}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    tables = {run.name: study_table(run) for run in asked.runs}
    seeds = over_seeds([(tables[run.name], effects_by_group(run)) for run in asked.runs])
    write_json(asked.out, {"runs": tables, "seeds": seeds})


if __name__ == "__main__":
    main()
