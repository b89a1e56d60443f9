"""Model of latents.json: the SAE latents that represent the persona."""

from __future__ import annotations

from pydantic import Field

from workbench.schema.run_file import Entry, Number, RunFile


class LatentEntry(Entry):
    """One latent that represents the persona.

    The fields are those of `workbench.latents.RankedLatent`: density is a fraction of tokens, decision_share
    a fraction of the rows of the ranking, and top has (activation, text) of the contexts in which the latent
    is most active.
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
    """How well the SAE reconstructs the model's activations on its own text.

    The fields are those of `workbench.sae.SaeCheck`.
    """

    explained_variance: Number = None
    by_layer: dict[int, Number] = Field(default_factory=dict)
    l0: Number = None
    tokens: int = 0
    warnings: list[str] = Field(default_factory=list)


class LatentsFile(RunFile):
    """The file latents.json: the latents that were found for the persona.

    Attributes:
        persona: Name of the persona.
        sae: Name of the SAE.
        site: Site of the SAE.
        labels: How contexts were labelled for the ranking: "choice_within", "choice" or "answer".
        rule: Rule by which the latents were selected, such as "percentile".
        check: How well the SAE reconstructs the activations; None if it was not measured.
        latents: The latents.
    """

    persona: str = ""
    sae: str = ""
    site: str = ""
    labels: str = ""
    rule: str = ""
    check: SaeCheckEntry | None = None
    latents: list[LatentEntry]
