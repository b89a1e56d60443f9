"""Base class of a study's stages: the files that a stage writes, how they are computed and loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from workbench.study.context import StudyContext


class Stage(ABC):
    """One stage of a study, such as a search, which computes results and writes files to the run directory.

    A resumed run loads the files of a finished stage instead of computing them again.

    Example:
        `stages/latents.py` is a complete stage with one file.
    """

    #: Name in the manifest, the log and the progress bars.
    name: ClassVar[str]

    @abstractmethod
    def files(self, context: StudyContext) -> tuple[str, ...]:
        """Return the names of the files that the stage writes; empty if the study does not need the stage.

        Args:
            context: State of the study.
        """

    @abstractmethod
    def compute(self, context: StudyContext) -> None:
        """Compute the stage's results and write its files.

        Args:
            context: State of the study, with the results of earlier stages.
        """

    def load(self, context: StudyContext) -> StudyContext:
        """Return the state of the study, extended by the results in this stage's files.

        The state is unchanged if no later stage needs these results.

        Args:
            context: State of the study.
        """
        return context

    def is_done(self, context: StudyContext) -> bool:
        """Whether an earlier run of the same study finished the stage and its files are unchanged.

        Args:
            context: State of the study.

        Raises:
            UserError: A file is missing or was changed.
        """
        return context.directory.done(self.name)

    def run(self, context: StudyContext) -> StudyContext:
        """Compute the stage if it is not done yet, and return the study's state with its results.

        Args:
            context: State of the study.
        """
        files = self.files(context)
        if files and not self.is_done(context):
            context.report(self.name, 0.0)
            with context.directory.stage(self.name, files, lambda: context.runner.meter.flops):
                self.compute(context)
        context.report(self.name, 1.0)
        return self.load(context) if files else context
