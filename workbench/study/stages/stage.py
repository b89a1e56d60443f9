"""What a stage of a study is: files that it leaves, how they are computed, how they are read again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from workbench.study.context import StudyContext


class Stage(ABC):
    """One stage. It is done once: a resumed run loads what it left.

    Example:
        A stage of one file is the whole of `stages/latents.py`.
    """

    #: In the manifest, the log and the progress bars.
    name: ClassVar[str]

    @abstractmethod
    def files(self, context: StudyContext) -> tuple[str, ...]:
        """The files that the stage leaves in the run directory; none where this study has no use for it."""

    @abstractmethod
    def compute(self, context: StudyContext) -> None:
        """Writes them."""

    def load(self, context: StudyContext) -> StudyContext:
        """The context with the content of this stage's files; unchanged if no later stage reads them."""
        return context

    def is_done(self, context: StudyContext) -> bool:
        """Did an earlier run leave the files? UserError where one of them is gone or was changed."""
        return context.directory.done(self.name)

    def run(self, context: StudyContext) -> StudyContext:
        """Computes what is not done yet, and loads it."""
        files = self.files(context)
        if files and not self.is_done(context):
            context.report(self.name, 0.0)
            with context.directory.stage(self.name, files, lambda: context.runner.meter.flops):
                self.compute(context)
        context.report(self.name, 1.0)
        return self.load(context) if files else context
