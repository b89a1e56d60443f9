"""latents.json: the SAE latents that carry the persona."""

from __future__ import annotations

from pydantic import Field

from workbench.schema.run_file import Entry, Number, RunFile


class LatentEntry(Entry):
    """One latent: see `workbench.latents.RankedLatent`.

    density is a fraction of tokens, decision_share one of ranking rows. top: (activation, text) of the
    contexts in which it fires most.
    """

    latent: int
    weight: Number = None
    effect_size: Number = None
    auc: Number = None
    density: Number = None
    decision_share: Number = None
    mean: Number = None
    max_activation: Number = None
    label: str | None = ""
    top: list[tuple[Number, str]] = Field(default_factory=list)


class SaeCheckEntry(Entry):
    """How the SAE reconstructs the model's own text: see `workbench.sae.SaeCheck`."""

    explained_variance: Number = None
    by_layer: dict[int, Number] = Field(default_factory=dict)
    l0: Number = None
    tokens: int = 0
    warnings: list[str] = Field(default_factory=list)


class LatentsFile(RunFile):
    """latents.json. labels, rule: how the latents were found."""

    persona: str = ""
    sae: str = ""
    site: str = ""
    labels: str = ""
    rule: str = ""
    check: SaeCheckEntry | None = None
    latents: list[LatentEntry]
