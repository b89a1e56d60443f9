"""Model of manifest.json: how a run was made, and which stages are done."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from workbench.schema.run_file import Entry, RunFile


class StageRecord(Entry):
    """Record of a completed stage of a study, such as its search.

    Attributes:
        seconds: Wall-clock time.
        finished: When it ended (UTC).
        peak_memory_mb: Peak memory of the process until then, MB, with everything that ran in the process.
        flops: The model's FLOPs as counted by its runner.
        files: Hash (sha256) of each file that the stage wrote, by the file's name.
        versions: Versions of the packages and of the code with which the stage was computed.
    """

    seconds: float = Field(ge=0)
    finished: str
    peak_memory_mb: float | None = None
    flops: float | None = Field(default=None, ge=0)
    files: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)


class RunManifest(RunFile):
    """The file manifest.json: versions, seeds, hashes and completed stages of a run.

    Unknown keys are errors, because the manifest is read in order to be written again.

    Attributes:
        created: When the run was made (UTC).
        versions: Versions of packages.
        git: Commit of the workbench's checkout.
        device: Device of the run.
        seeds: Seeds by name.
        hashes: Hashes of the model and the data.
        notes: Values that were chosen during the run and are used again if it is resumed, such as batch
            sizes.
        stages: Completed stages by name.
        test_reads: How many times questions of the test split were used.
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
