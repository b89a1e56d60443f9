"""Model of latents.json: the SAE latents that represent the persona."""

from __future__ import annotations

from pydantic import Field

from workbench.schema.run_file import Entry, Number, RunFile


class LatentEntry(Entry):
    """An SAE latent that is more or less active if the model shows the persona.

    `weight` is the difference of its mean activation, `density` the fraction of tokens on which it is active,
    and `top` has (activation, text) for the texts in which it is most active. All fields are explained in
    `workbench.latents.RankedLatent`.
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

    `by_layer` is the explained variance at the SAE's layer and its neighbours; `l0` is the mean number of
    active latents. All fields are explained in `workbench.sae.SaeCheck`.
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
        labels: How texts were divided into the two compared kinds: by which answer the model chose
            ("choice"), by the same relative to each question's mean ("choice_within"), or by the answer with
            which they end ("answer").
        rule: Rule by which latents were selected: "effect" (largest effect sizes) or "percentile" (the
            paper's).
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
