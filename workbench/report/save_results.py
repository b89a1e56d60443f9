"""Save results from a notebook as the files of a run directory, so that they get the same report page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from workbench.attribution import Ledger
from workbench.comparison import Comparison
from workbench.directions import LayerScan
from workbench.errors import UserError
from workbench.latents import LatentCards, LatentRanking
from workbench.runs import write_run_file, write_table
from workbench.schema import AttributionRow, EvaluationRow, OffTargetRow, QuestionRow
from workbench.search import Frontier, write_frontiers


def save_results(results: Sequence[Any], directory: Path) -> None:
    """Write results from a notebook as the files of a run directory.

    Args:
        results: Comparison, ledger (effects of prompt tokens), frontiers (prompts of searches), latents and
            layer scan. Only frontiers may occur more than once.
        directory: The run directory.

    Raises:
        UserError: A result is of another type, or a type other than `Frontier` occurs twice.
    """
    seen: set[type] = set()
    for result in results:
        kind = next((kind for kind in SAVERS if isinstance(result, kind)), None)
        if kind is None:
            raise UserError(
                f"a report is made of {', '.join(k.__name__ for k in SAVERS)}; found {type(result).__name__}"
            )
        if kind in seen and kind is not Frontier:
            raise UserError(f"a report shows one {kind.__name__}: found two")
        if kind not in seen:
            SAVERS[kind](
                directory, result if kind is not Frontier else [r for r in results if isinstance(r, Frontier)]
            )
        seen.add(kind)


def _comparison(directory: Path, result: Comparison) -> None:
    write_run_file(directory / "comparison.json", result.to_file())
    write_table(directory / "evaluation.parquet", result.rows, EvaluationRow)
    if len(questions := result.question_rows):
        write_table(directory / "questions.parquet", questions, QuestionRow)
    if len(rows := result.off_target_rows):
        write_table(directory / "off_target.parquet", rows, OffTargetRow)


def _ledger(directory: Path, result: Ledger) -> None:
    write_run_file(directory / "attribution.json", result.to_file())
    write_table(directory / "attribution.parquet", result.table, AttributionRow)


def _frontiers(directory: Path, results: list[Frontier]) -> None:
    names = [
        f"{i + 1} {result.method}" if len(results) > 1 else result.method for i, result in enumerate(results)
    ]
    write_frontiers(directory, dict(zip(names, results, strict=True)))


def _latents(directory: Path, result: LatentRanking) -> None:
    write_run_file(directory / "latents.json", result.to_file())


def _cards(directory: Path, result: LatentCards) -> None:
    write_run_file(directory / "cards.json", result.to_file())


def _scan(directory: Path, result: LayerScan) -> None:
    write_run_file(directory / "direction.json", result.to_file())


SAVERS: dict[type, Callable[[Path, Any], None]] = {
    Comparison: _comparison,
    Ledger: _ledger,
    Frontier: _frontiers,
    LatentRanking: _latents,
    LatentCards: _cards,
    LayerScan: _scan,
}
