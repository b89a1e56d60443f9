"""`run(study, out)`: the stages in order, each done once, saved, and loaded again when the run is resumed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from workbench.errors import UserError
from workbench.models.memory_in_use import telling_lost_devices
from workbench.runs import RunDirectory
from workbench.study.context import Report, StudyContext, Watch
from workbench.study.stages.attribution import AttributionStage
from workbench.study.stages.comparison import ComparisonStage
from workbench.study.stages.directions import DirectionsStage, OtherDirectionsStage
from workbench.study.stages.latents import LatentsStage
from workbench.study.stages.report import ReportStage
from workbench.study.stages.search import search_stages
from workbench.study.stages.stage import Stage
from workbench.study.study_settings import Study

#: A stage, or a function that gives stages which depend on what earlier ones found.
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
    """A whole study: directions, latents, searches, comparison on the test split, attribution, report.

    Args:
        study: The settings.
        out: A new directory, or the run in it with `resume`.
        resume: Go on with a run; what was finished before stays and is not done again.
        report: Called with a stage's name and the fraction of it that is done, 0 to 1.
        model: A loaded model (sweeps load it once); the study's own otherwise.
        watch: Called with a stage's name and the progress after each step of a search.
        force: Resume with other data, weights or SAE than the finished stages had; the report says so.

    Returns:
        The run directory.

    Raises:
        UserError: What the user can correct.

    Example:
        >>> wb.run(wb.Study(persona="sycophancy"), "runs/mine").file("report.html")  # doctest: +SKIP
    """
    study = study.checked()
    directory = out if isinstance(out, RunDirectory) else RunDirectory.create(out, resume)
    with directory.lock():
        try:
            context = StudyContext.begin(study, directory, model, report, watch, force)
            with context.rendering(), telling_lost_devices():
                for entry in STAGES:
                    for stage in [entry] if isinstance(entry, Stage) else entry(context):
                        context = stage.run(context)
        except UserError:
            directory.discard_if_unused()  # some settings are first looked at inside the first stage
            raise
        if context.recorder:
            context.recorder.close()
    return directory
