"""Model of progress.json: the state of a running study."""

from __future__ import annotations

from pydantic import Field

from workbench.schema.run_file import Entry, Number, RunFile


class ProgressEntry(Entry):
    """A prompt on the running search's frontier (prompts that no other one beats in objective and fluency).

    Attributes:
        text: The prompt.
        objective: Value of the maximised objective.
        fluency: Its cross-entropy, nats per token (lower is more fluent).
    """

    text: str = ""
    objective: Number = None
    fluency: Number = None


class ProgressFile(RunFile):
    """The file progress.json: the stage that runs and how far it is.

    Attributes:
        stage: Name of the stage.
        share: Fraction of the stage that is done, 0 to 1.
        updated: Time of the last update, seconds since 1970.
        line: Step, speed and remaining time of the search.
        frontier: The strongest prompts so far.
    """

    stage: str
    share: float = 0.0
    updated: float = 0.0
    line: str = ""
    frontier: list[ProgressEntry] = Field(default_factory=list)
