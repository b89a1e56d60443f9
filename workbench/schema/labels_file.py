"""labels.json: what users call latents. It is written after the study, by `workbench label`, the panel or `wb.label_latents`."""

from __future__ import annotations

from pydantic import Field

from workbench.schema.run_file import Entry, RunFile


class LabelEntry(Entry):
    """A user's name for a latent. source: who gave it; written: when, ISO 8601."""

    latent: int = Field(ge=0)
    label: str
    source: str = ""
    written: str = ""


class LabelsFile(RunFile):
    """labels.json. sae: whose latents they are."""

    sae: str = ""
    labels: list[LabelEntry] = Field(default_factory=list)
