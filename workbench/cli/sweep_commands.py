"""Commands that run many studies, or score prompts on several models."""

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
    """Run many studies that differ in some settings: those of a sweep file, or ablations of one study.

    If a sweep is run again, only the studies that are not finished are run. See docs/sweeps.md.

    Args:
        file: Sweep file. Without one, --ablation names what varies.
        ablation: layer, length, latents, fluency, random_direction, random_updates, warm_start, population,
            contexts, labels or budget; several may be given.
        study: Study file that the ablations change. Default: the demo's study.
        persona: Persona of the ablations; several may be given.
        seed: Seed of the ablations; several may be given.
        sign: Aim of the ablations: less of the persona (suppress) or more (induce).
        flops: Budget of each search in the ablations, instead of the study's.
        out: Directory of the sweep. Default: runs/NAME.
        workers: Number of processes on this machine or on the cluster; more than one needs Ray.
        address: Address of a Ray cluster ("auto", "host:port").
        threads: Threads of each worker. Default: 1, so that any number of workers gives the same bits.
        rerun_failed: Run failed studies again.
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
    """Score prompts that were found on one model on other models.

    Scores have confidence intervals.

    Args:
        runs: Finished runs, whose chosen prompts are scored.
        model: Name or directory of a model to score them on; several may be given.
        out: Parquet file for the table.
    """
    from workbench.runs import write_parquet
    from workbench.sweep import transfer as transfer_prompts

    table = transfer_prompts(runs, model).table
    if out is not None:
        write_parquet(out, table)
    print_frame(table, as_json)
