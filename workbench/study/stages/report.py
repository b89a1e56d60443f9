"""Report stage: the page about the run."""

from __future__ import annotations

from typing_extensions import override

from workbench.report import write_report
from workbench.study.context import StudyContext
from workbench.study.stages.stage import Stage


class ReportStage(Stage):
    """Stage that writes report.html, again whenever a finished run is run again."""

    name = "report"

    @override
    def files(self, context: StudyContext) -> tuple[str, ...]:
        return ("report.html",)

    @override
    def compute(self, context: StudyContext) -> None:
        write_report(context.directory.path, context.directory.file("report.html"))

    @override
    def is_done(self, context: StudyContext) -> bool:
        return False
