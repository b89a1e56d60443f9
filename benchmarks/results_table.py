"""The table and the pictures of docs/results.md out of a sweep's results: every condition over seeds, never a best run.

    python -m benchmarks.results_table runs/vault/results.parquet --figures docs/images/vault

Effects are mean log-odds against no prompt; intervals are t intervals over seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from workbench.comparison import RunsTable
from workbench.report import figures
from workbench.report.verdict import label

#: Kinds in the order of the table; a constant answer's log-odds are arbitrary.
KINDS = (
    "manual",
    "resga",
    "saega",
    "answer_objective",
    "random_search",
    "random_direction",
    "random_prompt",
    "random_text",
    "steering",
)


def shifts(table: pd.DataFrame) -> pd.DataFrame:
    """`RunsTable.by_condition` of the sweep, one row a persona, sign and kind, with the rate without a prompt. Where a run has several conditions
    of one kind (random directions), their mean is the run's value."""
    kept = table[table["kind"].isin(KINDS)]
    runs = (
        kept.groupby(["persona", "model", "sign", "kind", "seed"], sort=False)[["rate", "shift"]]
        .mean()
        .reset_index()
    )
    found = RunsTable(runs.assign(condition=[label(kind) for kind in runs["kind"]])).by_condition
    bare = table[table["kind"] == "none"].groupby(["persona", "sign"])["rate"].mean()
    found["no_prompt"] = [bare[key] for key in zip(found["persona"], found["sign"])]
    return found.sort_values("kind", key=lambda kinds: kinds.map(KINDS.index), kind="stable")


def markdown(found: pd.DataFrame) -> str:
    """Conditions by persona and sign: rate, mean effect and its interval over seeds."""
    cells = {
        (r.persona, r.sign): f"{r.persona.replace('_', ' ')}, {r.sign} ({r.no_prompt:.2f})"
        for r in found.itertuples()
    }
    lines = ["| condition | " + " | ".join(cells.values()) + " |", "|---" * (len(cells) + 1) + "|"]
    for condition in dict.fromkeys(found["condition"]):
        own = found[found["condition"] == condition].set_index(["persona", "sign"])
        found_rows = [own.loc[key] if key in own.index else None for key in cells]
        texts = [
            ""
            if r is None
            else f"{r['rate']:.2f}, {r['shift']:+.2f} ({r['shift_low']:+.2f} to {r['shift_high']:+.2f})"
            for r in found_rows
        ]
        lines.append(f"| {condition} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the Markdown, draw the effects over seeds and against fluency."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--figures", type=Path, default=None, help="beginning of the pictures' names")
    parser.add_argument("--against", default="cross_entropy")
    arguments = parser.parse_args()
    table = pd.read_parquet(arguments.results)
    print(markdown(shifts(table)))
    if arguments.figures is not None:
        figures.seeds(table).save(f"{arguments.figures}_seeds.png", scale_factor=1.5)
        figures.against(table, arguments.against).save(
            f"{arguments.figures}_{arguments.against}.png", scale_factor=1.5
        )


if __name__ == "__main__":
    main()
