"""progress.json: the progress of a running study, for `workbench watch`.

The file exists only while the study runs, or after the study was interrupted.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from workbench.runs import RunDirectory
from workbench.runs.atomic_writing import TEMPORARY
from workbench.schema import ProgressEntry, ProgressFile
from workbench.search import SearchProgress
from workbench.search.live_frontier import line

#: Smallest number of seconds between two writes.
EVERY = 1.0
#: Number of the frontier's prompts that are shown, the strongest first.
SHOWN = 5


@dataclass
class ProgressRecorder:
    """Writer of a study's progress, at most once per second, and when a stage begins.

    Attributes:
        directory: The run directory.
        decode: Function from a prompt's token ids to its text; None before a model is loaded.
    """

    directory: RunDirectory
    decode: Callable[[Sequence[int]], str] | None = None
    _written: float = field(default=-1e9, init=False)
    _begun: set[str] = field(default_factory=set, init=False)

    def report(self, stage: str, share: float) -> None:
        """Record the progress of a stage.

        Args:
            stage: Name of the stage.
            share: Fraction of the stage that is done, 0 to 1.
        """
        if stage not in self._begun or time.monotonic() - self._written >= EVERY:
            self._write(ProgressFile(stage=stage, share=share, updated=time.time()))

    def step(self, stage: str, progress: SearchProgress) -> None:
        """Record the progress of a search after one of its steps.

        Args:
            stage: Name of the stage.
            progress: The search's progress.
        """
        if time.monotonic() - self._written < EVERY and progress.used < 1:
            return
        found, frontier = [], progress.frontier
        for row in frontier.objective.argsort(descending=True)[:SHOWN].tolist():
            ids = [int(token) for token in frontier.ids[row] if token >= 0]
            text = self.decode(ids) if self.decode else ""
            found.append(
                ProgressEntry(
                    text=text,
                    objective=float(frontier.objective[row]),
                    fluency=float(frontier.cross_entropy[row]),
                )
            )
        self._write(
            ProgressFile(
                stage=stage,
                share=min(progress.used, 0.999),
                updated=time.time(),
                line=line(progress),
                frontier=found,
            )
        )

    def close(self) -> None:
        """Delete progress.json, because the study is finished."""
        with contextlib.suppress(OSError):
            self.directory.file("progress.json").unlink()

    def _write(self, content: ProgressFile) -> None:
        """Write the file completely or not at all; errors are ignored, so that the study goes on."""
        self._written = time.monotonic()
        self._begun.add(content.stage)
        target = self.directory.file("progress.json")
        temporary = target.with_name(f".progress.json{TEMPORARY}")
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps(content.to_json(), ensure_ascii=True), encoding="utf-8")
            temporary.rename(target)
