"""Data of the ledger for the page: one grid of cells per estimator, from the table attribution.parquet."""
# ruff: noqa: RUF001  (typographic signs are meant)

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from workbench.html_text import shorten, visible
from workbench.schema import AttributionFile

MAX_TOKENS = 300
MAX_TARGETS = 240
MAX_CELLS = 24_000
#: Names of the estimators on the page.
NAMES = {
    "removal": "removing the token (exact)",
    "replacement": "replacing the token",
    "gradient_x_input": "gradient × input (estimate)",
    "relevance": "relevance through attention (estimate)",
    "integrated_gradients": "integrated gradients (estimate)",
    "shapley": "Shapley value (sampled)",
}


def view(frame: pd.DataFrame, summary: AttributionFile | None, missing: list[str]) -> dict[str, Any]:
    """Convert the effects of prompt tokens on targets to the data of the report's token table.

    Args:
        frame: Contents of attribution.parquet, one row per token, target and estimator.
        summary: Contents of attribution.json; None if the file is missing.
        missing: List to which a line is added for everything that is left out.

    Returns:
        A dictionary with the tokens, targets and estimators, and the figures of attribution.json. Its `cells`
        has for each estimator a nested list [target][token] of [mean, low, high, sd]; None if there is no
        effect.
    """
    if frame.empty:
        raise ValueError("the table has no rows")
    facts = summary or AttributionFile()
    positions = sorted(int(p) for p in frame["position"].unique())
    targets = _targets(frame, facts)
    estimators = _estimators(frame, facts)
    positions, targets = _cut(positions, targets, len(estimators), missing)
    return {
        "tokens": _tokens(frame, positions, facts),
        "positions": positions,
        "targets": targets,
        "estimators": [{"key": key, "name": NAMES.get(key, key)} for key in estimators],
        "cells": {
            key: _grid(frame.loc[frame["estimator"] == key], positions, [t["name"] for t in targets])
            for key in estimators
        },
        "rank_correlation": facts.rank_correlation,
        "n_contexts": facts.n_contexts,
        "prompt": facts.prompt,
        "search": facts.search,
        "totals": [total.model_dump() for total in facts.totals],
        "pairs": [pair.model_dump() for pair in facts.pairs[:60]],
        "mediation": [entry.model_dump() for entry in facts.mediation[:40]],
        "nodes": [node.model_dump() for node in facts.nodes[:60]],
        "nodes_agreement": facts.nodes_agreement,
        "notes": facts.notes[:20],
    }


def _targets(frame: pd.DataFrame, facts: AttributionFile) -> list[dict[str, str]]:
    known = {target.name: target.kind for target in facts.targets}
    names = list(dict.fromkeys([*known, *frame["target"].astype(str)]))
    present = set(frame["target"].astype(str))
    rank = {"answer": 0, "direction": 1}
    rows = [{"name": name, "kind": known.get(name, _guess(name))} for name in names if name in present]
    return sorted(rows, key=lambda row: rank.get(row["kind"], 2))


def _guess(name: str) -> str:
    return "answer" if "answer" in name else "direction" if "direction" in name else "latent"


def _estimators(frame: pd.DataFrame, facts: AttributionFile) -> list[str]:
    present = list(dict.fromkeys(frame["estimator"].astype(str)))
    ordered = [key for key in [*facts.estimators, *present] if key in present]
    return list(dict.fromkeys(ordered))


def _cut(
    positions: list[int], targets: list[dict[str, str]], estimators: int, missing: list[str]
) -> tuple[list[int], list[dict[str, str]]]:
    kept_positions = positions[:MAX_TOKENS]
    room = max(4, MAX_CELLS // (len(kept_positions) * max(1, estimators)))
    kept_targets = targets[: min(MAX_TARGETS, room)]
    if len(kept_positions) < len(positions):
        missing.append(
            f"Of the {len(positions):,} tokens in the token by token view, the first {len(kept_positions):,} are shown."
        )
    if len(kept_targets) < len(targets):
        missing.append(
            f"Of the {len(targets):,} rows in the token by token view, {len(kept_targets):,} are shown."
        )
    return kept_positions, kept_targets


def _tokens(frame: pd.DataFrame, positions: list[int], facts: AttributionFile) -> list[str]:
    """Return the tokens as displayed, from attribution.json if possible (Parquet cannot hold all)."""
    by_position = frame.drop_duplicates("position").set_index("position")["token"]
    exact = facts.tokens or []
    texts = [exact[p] if 0 <= p < len(exact) else str(by_position[p]) for p in positions]
    return [shorten(visible(text), 120) for text in texts]


def _grid(
    cells: pd.DataFrame, positions: list[int], targets: list[str]
) -> list[list[list[float | None] | None]]:
    row_of, column_of = {name: i for i, name in enumerate(targets)}, {p: i for i, p in enumerate(positions)}
    grid: list[list[list[float | None] | None]] = [[None] * len(positions) for _ in targets]
    frame = cells.reindex(columns=["position", "target", "mean", "low", "high", "sd"])
    for position, target, *numbers in frame.itertuples(index=False, name=None):
        row, column = row_of.get(str(target)), column_of.get(int(position))
        if row is not None and column is not None and np.isfinite(float(numbers[0])):
            grid[row][column] = [_rounded(number) for number in numbers]
    return grid


def _rounded(number: Any) -> float | None:
    return float(f"{float(number):.4g}") if number is not None and np.isfinite(float(number)) else None
