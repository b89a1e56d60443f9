"""Base class of a study's stages: the files that a stage writes, how they are computed and loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from workbench.study.context import StudyContext


class Stage(ABC):
    """One stage of a study. It runs once; a resumed run loads its files.

    Example:
        `stages/latents.py` is a complete stage with one file.
    """

    #: Name in the manifest, the log and the progress bars.
    name: ClassVar[str]

    @abstractmethod
    def files(self, context: StudyContext) -> tuple[str, ...]:
        """Return the names of the files that the stage writes; empty if the study does not need the stage."""

    @abstractmethod
    def compute(self, context: StudyContext) -> None:
        """Compute the stage's results and write its files."""

    def load(self, context: StudyContext) -> StudyContext:
        """Return the context with the contents of this stage's files; unchanged if none is needed later."""
        return context

    def is_done(self, context: StudyContext) -> bool:
        """Whether an earlier run wrote the stage's files.

        Raises:
            UserError: A file is missing or was changed.
        """
        return context.directory.done(self.name)

    def run(self, context: StudyContext) -> StudyContext:
        """Compute the stage if it is not done yet, and return the context with its results."""
        files = self.files(context)
        if files and not self.is_done(context):
            context.report(self.name, 0.0)
            with context.directory.stage(self.name, files, lambda: context.runner.meter.flops):
                self.compute(context)
        context.report(self.name, 1.0)
        return self.load(context) if files else context
