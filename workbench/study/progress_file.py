"""progress.json: where a running study is, for `workbench watch`. It is there only while the study runs, or after it was cut off."""

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

#: Seconds between two writings.
EVERY = 1.0
#: Prompts of the frontier that are shown, the strongest first.
SHOWN = 5


@dataclass
class ProgressRecorder:
    """Writes a study's progress at most once a second. decode: from a prompt's ids to its text, once a model is loaded."""

    directory: RunDirectory
    decode: Callable[[Sequence[int]], str] | None = None
    _written: float = field(default=-1e9, init=False)
    _stage: str = field(default="", init=False)

    def report(self, stage: str, share: float) -> None:
        """A stage and how much of it is done, 0 to 1."""
        if stage != self._stage or time.monotonic() - self._written >= EVERY:
            self._write(ProgressFile(stage=stage, share=share, updated=time.time()))

    def step(self, stage: str, progress: SearchProgress) -> None:
        """A search after one of its steps."""
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
        """The study is done: the file goes."""
        with contextlib.suppress(OSError):
            self.directory.file("progress.json").unlink()

    def _write(self, content: ProgressFile) -> None:
        """Whole or not at all; a study does not fail because its progress cannot be shown."""
        self._written, self._stage = time.monotonic(), content.stage
        target = self.directory.file("progress.json")
        temporary = target.with_name(f".progress.json{TEMPORARY}")
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps(content.to_json(), ensure_ascii=True), encoding="utf-8")
            temporary.rename(target)
