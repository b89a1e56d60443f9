"""Model of labels.json: users' names for latents.

The file is written after the study, by `workbench label`, the panel or `wb.label_latents`.
"""

from __future__ import annotations

from pydantic import Field

from workbench.schema.run_file import Entry, RunFile


class LabelEntry(Entry):
    """A user's name for a latent.

    Attributes:
        latent: Index of the latent.
        label: The name.
        source: Who gave it.
        written: When it was given, ISO 8601.
    """

    latent: int = Field(ge=0)
    label: str
    source: str = ""
    written: str = ""


class LabelsFile(RunFile):
    """The file labels.json: users' names for the latents of one SAE.

    Attributes:
        sae: Name of the SAE.
        labels: One entry per named latent.
    """

    sae: str = ""
    labels: list[LabelEntry] = Field(default_factory=list)
