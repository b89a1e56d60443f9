"""Models of cards.json (cards of latents as shown) and cards.parquet (their activity on the corpus)."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from workbench.schema.run_file import Entry, Number, RunFile, TableRow

Weighted = list[tuple[str, Number]]


class FiringEntry(Entry):
    """A window of a text in which an SAE latent is active, around its highest activation (the peak).

    Attributes:
        activation: Activation at the peak.
        peak: Index of the peak in the window.
        tokens: Tokens of the window around the peak.
        activations: Activation at each of these tokens.
    """

    activation: float
    peak: int = 0
    tokens: list[str]
    activations: list[Number]


class CardEntry(Entry):
    """Card of one SAE latent: how often it is active, in which texts, and which tokens it promotes.

    `promotes` and `suppresses` are the tokens whose logits it raises and lowers; `directions` and `latents`
    are the nearest ones, with cosines. All fields are explained in `workbench.latents.LatentCard`.
    """

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
    """The file cards.json: descriptions (cards) of the SAE latents that a study uses.

    Attributes:
        sae: Name of the SAE.
        site: Site of the SAE.
        corpus: Description of the texts on which the latents were read.
        cards: One card per latent.
    """

    sae: str = ""
    site: str = ""
    corpus: str = ""
    cards: list[CardEntry]


class CardRow(TableRow):
    """One row of cards.parquet: on how many tokens of a corpus an SAE latent is active, and how strongly.

    Attributes:
        latent: Index of the latent.
        n_tokens: Number of tokens of the corpus.
        fired: Number of tokens on which the latent is active.
        edges: Edges of the histogram of its activations.
        counts: Counts of that histogram.
        examples: Texts in which the latent is most active.
        key: Hash of model, SAE, latents and corpus; if it differs, the table is computed again.
    """

    latent: int
    n_tokens: int
    fired: int
    edges: Any
    counts: Any
    examples: Any
    key: str
