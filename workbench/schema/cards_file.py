"""cards.json and cards.parquet: what each latent fires on, as shown, and as read from the corpus."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from workbench.schema.run_file import Entry, Number, RunFile, TableRow

Weighted = list[tuple[str, Number]]


class FiringEntry(Entry):
    """A text in which a latent fires. tokens, activations: the window around the peak; peak: its index in it."""

    activation: float
    peak: int = 0
    tokens: list[str]
    activations: list[Number]


class CardEntry(Entry):
    """One latent: see `workbench.latents.LatentCard`."""

    latent: int
    density: Number = None
    n_tokens: int = 0
    edges: list[float] = Field(default_factory=list)
    counts: list[int] = Field(default_factory=list)
    examples: list[FiringEntry] = Field(default_factory=list)
    promotes: Weighted = Field(default_factory=list)
    suppresses: Weighted = Field(default_factory=list)
    directions: Weighted = Field(default_factory=list)
    latents: Weighted = Field(default_factory=list)
    label: str = ""
    label_source: str = ""
    neuronpedia: str | None = None


class CardsFile(RunFile):
    """cards.json. corpus: what was read, in words."""

    sae: str = ""
    site: str = ""
    corpus: str = ""
    cards: list[CardEntry]


class CardRow(TableRow):
    """One row of cards.parquet: activity of one latent on the corpus. fired: tokens on which it is on; key: of model, SAE, latents and corpus."""

    latent: int
    n_tokens: int
    fired: int
    edges: Any
    counts: Any
    examples: Any
    key: str
