"""progress.json: where a running study is."""

from __future__ import annotations

from pydantic import Field

from workbench.schema.run_file import Entry, Number, RunFile


class ProgressEntry(Entry):
    """A prompt on the frontier of the running search. fluency: its cross-entropy, nats per token."""

    text: str = ""
    objective: Number = None
    fluency: Number = None


class ProgressFile(RunFile):
    """progress.json. share: of the stage, 0 to 1; updated: seconds since 1970; line: the search's step, speed and time left."""

    stage: str
    share: float = 0.0
    updated: float = 0.0
    line: str = ""
    frontier: list[ProgressEntry] = Field(default_factory=list)
