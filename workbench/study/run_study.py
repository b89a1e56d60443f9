"""`run(study, out)`: run the stages in order; each is saved, and loaded when the run is resumed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from workbench.errors import UserError
from workbench.models.memory_in_use import telling_lost_devices
from workbench.runs import RunDirectory
from workbench.study.context import Report, StudyContext, Watch
from workbench.study.room_for_study import refuse_without_room
from workbench.study.search_processes import run_searches
from workbench.study.stages.attribution import AttributionStage
from workbench.study.stages.comparison import ComparisonStage
from workbench.study.stages.directions import DirectionsStage, OtherDirectionsStage
from workbench.study.stages.latents import LatentsStage
from workbench.study.stages.report import ReportStage
from workbench.study.stages.search import search_stages
from workbench.study.stages.stage import Stage
from workbench.study.study_settings import Study

#: Stages in order. A function returns stages that depend on the findings of earlier ones.
STAGES: Sequence[Stage | Callable[[StudyContext], list[Stage]]] = (
    DirectionsStage(),
    LatentsStage(),
    OtherDirectionsStage(),
    search_stages,
    ComparisonStage(),
    AttributionStage(),
    ReportStage(),
)


def run(
    study: Study,
    out: str | Path | RunDirectory,
    resume: bool = False,
    report: Report | None = None,
    model: Any = None,
    watch: Watch | None = None,
    force: bool = False,
) -> RunDirectory:
    """Run a whole study of a persona and write its results and report to a run directory.

    The stages are: directions, SAE latents, searches for prompts, comparison on test questions, attribution,
    report.

    Args:
        study: The settings.
        out: A new directory; with `resume`, the directory of the run.
        resume: Whether to continue a run. Finished stages are kept and not repeated.
        report: Called with a stage's name and the fraction of the stage that is done, 0 to 1.
        model: A loaded model (sweeps load it once); None to load the study's own.
        watch: Called after each step of a search with the stage's name and the search's progress.
        force: Whether to resume with data, weights or an SAE that differ from those of the finished stages;
            the report then says so.

    Returns:
        The run directory.

    Raises:
        UserError: A setting or an input is invalid, or the GPU that is to hold the model has too little
            memory for the plan; the message says what to change.

    Example:
        >>> wb.run(wb.Study(persona="sycophancy"), "runs/mine").file("report.html")  # doctest: +SKIP
    """
    study = study.checked()
    directory = _run_directory(study, out, resume, loads=model is None)
    with directory.lock():
        try:
            context = StudyContext.begin(study, directory, model, report, watch, force)
            with context.rendering(), telling_lost_devices():
                for entry in STAGES:
                    if isinstance(entry, Stage):
                        context = entry.run(context)
                    else:
                        context = run_searches(context, entry(context))
        except UserError:
            directory.discard_if_unused()  # some settings are only checked inside the first stage
            raise
        if context.recorder:
            context.recorder.close()
    return directory


def _run_directory(study: Study, out: str | Path | RunDirectory, resume: bool, loads: bool) -> RunDirectory:
    """Make or open the run directory, after checking that the model which is to be loaded has room."""
    try:
        if loads:
            refuse_without_room(study, _done(out, resume))
    except UserError:
        if isinstance(out, RunDirectory):
            out.discard_if_unused()
        raise
    return out if isinstance(out, RunDirectory) else RunDirectory.create(out, resume)


def _done(out: str | Path | RunDirectory, resume: bool) -> Collection[str]:
    """Return the names of the stages that a run has finished; none for a new run."""
    if isinstance(out, RunDirectory):
        return out.manifest().stages
    path = Path(out).expanduser()
    return RunDirectory.open(path).manifest().stages if resume and (path / "manifest.json").is_file() else ()
