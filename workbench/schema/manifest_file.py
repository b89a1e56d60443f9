"""Model of manifest.json: how a run was made, and which stages are done."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from workbench.schema.run_file import Entry, RunFile


class StageRecord(Entry):
    """Record of a completed stage.

    Attributes:
        seconds: Wall-clock time.
        finished: When it ended (UTC).
        peak_memory_mb: Peak memory of the process until then, MB, with everything that ran in the process.
        flops: The model's FLOPs as counted by its runner.
        files: File -> sha256 of the files that the stage wrote.
        versions: Versions of the packages and of the code that ran it.
    """

    seconds: float = Field(ge=0)
    finished: str
    peak_memory_mb: float | None = None
    flops: float | None = Field(default=None, ge=0)
    files: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)


class RunManifest(RunFile):
    """Settings, versions and progress of a run.

    Unknown keys are errors, because the manifest is read in order to be written again.

    Attributes:
        created: When the run was made (UTC).
        versions: Versions of packages.
        git: Commit of the workbench's checkout.
        device: Device of the run.
        seeds: Seeds by name.
        hashes: Hashes of the model and the data.
        notes: Values that were resolved once, such as batch sizes.
        stages: Completed stages by name.
        test_reads: How often a test split was read.
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
