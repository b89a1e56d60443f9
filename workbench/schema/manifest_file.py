"""manifest.json: with what a run was made, and which stages are done."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from workbench.schema.run_file import Entry, RunFile


class StageRecord(Entry):
    """A stage that is done.

    Its wall-clock seconds, when it ended (UTC), the process's peak memory until then (MB; of all that ran in
    the process), the model's FLOPs as its runner counted them, sha256 of the files it left, and by which
    versions of packages and code.
    """

    seconds: float = Field(ge=0)
    finished: str
    peak_memory_mb: float | None = None
    flops: float | None = Field(default=None, ge=0)
    files: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)


class RunManifest(RunFile):
    """Settings, versions and progress of a run.

    `hashes`: of the model and the data; `notes`: anything resolved once, such as batch sizes; `test_reads`:
    how often a test split was read. It is read to be written again, so it may hold nothing unknown.
    """

    unknown_keys: ClassVar[Literal["ignore", "forbid"]] = "forbid"

    created: str
    versions: dict[str, str]
    git: str | None = None
    device: str | None = None
    seeds: dict[str, int] = Field(default_factory=dict)
    hashes: dict[str, str] = Field(default_factory=dict)
    notes: dict[str, Any] = Field(default_factory=dict)
    stages: dict[str, StageRecord] = Field(default_factory=dict)
    test_reads: int = Field(default=0, ge=0)
