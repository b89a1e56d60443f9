"""Results from a notebook as the files of a run directory, so that one page serves both."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.attribution import Ledger
from workbench.comparison import Comparison
from workbench.directions import LayerScan
from workbench.errors import UserError
from workbench.latents import LatentCards, LatentRanking
from workbench.runs import write_json, write_parquet
from workbench.search import Frontier


def save_results(results: Sequence[Any], directory: Path) -> None:
    """Writes comparisons, ledgers, frontiers, latents and scans as a run directory has them. UserError for anything else, and
    for a second one of a kind (several frontiers are fine)."""
    seen: set[type] = set()
    for result in results:
        kind = next((kind for kind in SAVERS if isinstance(result, kind)), None)
        if kind is None:
            raise UserError(f"a report is made of {', '.join(k.__name__ for k in SAVERS)}; found {type(result).__name__}")
        if kind in seen and kind is not Frontier:
            raise UserError(f"a report shows one {kind.__name__}: found two")
        if kind not in seen:
            SAVERS[kind](directory, result if kind is not Frontier else [r for r in results if isinstance(r, Frontier)])
        seen.add(kind)


def _comparison(directory: Path, result: Comparison) -> None:
    write_json(directory / "comparison.json", result.to_json())
    write_parquet(directory / "evaluation.parquet", result.rows)


def _ledger(directory: Path, result: Ledger) -> None:
    write_json(directory / "attribution.json", {"schema": 1, **result.summary()})
    write_parquet(directory / "attribution.parquet", result.table)


def _frontiers(directory: Path, results: list[Frontier]) -> None:
    names = [f"{i + 1} {result.method}" if len(results) > 1 else result.method for i, result in enumerate(results)]
    write_json(directory / "search/frontier.json", {"schema": 1, "searches": {n: r.to_json() for n, r in zip(names, results, strict=True)}})
    history = pd.concat([r.history.assign(search=n) for n, r in zip(names, results, strict=True)], ignore_index=True)
    write_parquet(directory / "search/history.parquet", history)


def _latents(directory: Path, result: LatentRanking) -> None:
    write_json(directory / "latents.json", result.to_json())


def _cards(directory: Path, result: LatentCards) -> None:
    write_json(directory / "cards.json", result.to_json())


def _scan(directory: Path, result: LayerScan) -> None:
    best, table = result.best, json.loads(result.table.to_json(orient="records"))
    facts = {"site": best.site.name, "method": best.method, "norm": best.norm, "auc": best.auc, "predicts": table[0].get("predicts")}
    (directory / "direction.json").write_text(json.dumps({"schema": 1, **facts, "table": table}), encoding="utf-8")


SAVERS: dict[type, Callable[[Path, Any], None]] = {
    Comparison: _comparison, Ledger: _ledger, Frontier: _frontiers, LatentRanking: _latents, LatentCards: _cards, LayerScan: _scan,
}  # fmt: skip
