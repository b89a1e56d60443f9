"""Commands of many studies and of many models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from workbench.cli.app import Json, Sign, app
from workbench.cli.output_tables import print_frame, say
from workbench.errors import UserError


@app.command
def sweep(
    file: Path | None = None,
    *,
    ablation: Annotated[list[str] | None, Parameter(name=("--ablation", "--preset"))] = None,
    study: Path | None = None,
    persona: list[str] | None = None,
    seed: list[int] | None = None,
    sign: Sign = "suppress",
    flops: float | None = None,
    out: Path | None = None,
    workers: int | None = None,
    address: str | None = None,
    threads: int | None = None,
    rerun_failed: bool = False,
    as_json: Json = False,
) -> None:
    """Many studies, each run once: from a sweep file, or the paper's ablations (docs/sweeps.md). Run again, it does what is left.

    Args:
        file: the sweep file; without one, --ablation says what varies.
        ablation: layer, length, latents, fluency, random_direction, random_updates, warm_start, population,
            contexts, labels, budget.
        study: what the ablations change; the demo's study when not given.
        persona: of the ablations; several may be given.
        seed: of the ablations; several may be given.
        sign: of the ablations.
        flops: of the ablations, the same for each search, in place of the study's budget.
        out: the sweep's directory; runs/NAME when not given.
        workers: processes on this machine, or of the cluster; more than one needs Ray.
        address: of a Ray cluster ("auto", "host:port").
        threads: of each worker's sums; 1 when not given, so that any number of workers gives the same bits.
        rerun_failed: try failed studies again.
    """
    from workbench.sweep import Sweep, ablation_sweep
    from workbench.sweep import sweep as run_sweep

    if (file is None) == (not ablation):
        raise UserError("expected a sweep file or --ablation, not both and not neither")
    asked = (
        Sweep.load(file)
        if file
        else ablation_sweep(ablation or [], study, persona or ["sycophancy"], seed or [0], sign, flops)
    )
    found = run_sweep(asked, out, workers, address, rerun_failed, threads)
    print_frame(found.studies, as_json)
    if not as_json:
        say(f"overview: {found.path / 'overview.html'}")
    if found.counts.get("failed"):
        raise SystemExit(1)


@app.command
def transfer(runs: list[Path], *, model: list[str], out: Path | None = None, as_json: Json = False) -> None:
    """Prompts found on one model, scored on others, with intervals.

    Args:
        runs: finished runs whose chosen prompts are put to the other models.
        model: name or directory; several may be given.
        out: where to write the table, as Parquet.
    """
    from workbench.runs import write_parquet
    from workbench.sweep import transfer as transfer_prompts

    table = transfer_prompts(runs, model).table
    if out is not None:
        write_parquet(out, table)
    print_frame(table, as_json)
