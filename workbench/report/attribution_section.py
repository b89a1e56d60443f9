"""The report's section on attribution: circuit, side effects and latent cards, cut to fit on a page.

The templates use the functions of this module as filters. Every text in a picture is escaped by `plots.svg`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from workbench.html_text import shorten
from workbench.plots.svg import circuit_svg, dose_svg, histogram_svg
from workbench.schema import (
    AttributionFile,
    CardEntry,
    CardsFile,
    CircuitEdgeEntry,
    CircuitEntry,
    DoseEntry,
    FiringEntry,
)

MAX_NODES, MAX_EDGES, MAX_TOKENS, MAX_DOSES, MAX_MOVED = 60, 400, 80, 200, 200
MAX_CARDS, MAX_EXAMPLES, MAX_WINDOW, MAX_BARS, MAX_NAMED = 100, 8, 200, 200, 40
NEURONPEDIA = re.compile(r"https://www\.neuronpedia\.org/[\w./-]+", re.ASCII)


def drawable(file: AttributionFile | None, missing: list[str]) -> AttributionFile:
    """Return a run's attribution results without the parts that are too large for the report's page.

    Args:
        file: Contents of attribution.json; None if the file is missing.
        missing: List to which a line is added if the circuit is too large to be drawn.
    """
    if file is None:
        return AttributionFile()
    circuit, effects = file.circuit, file.side_effects
    if circuit is not None and (excess := _excess(circuit)):
        missing.append(
            f"attribution.json: the circuit is too large to be drawn ({excess}), so this page does not show it."
        )
        circuit = None
    if effects is not None:
        effects = effects.model_copy(
            update={"beside": effects.beside[:MAX_MOVED], "inside": effects.inside[:MAX_MOVED]}
        )
    return file.model_copy(
        update={"circuit": circuit, "dose": file.dose[:MAX_DOSES], "side_effects": effects}
    )


def with_labels(file: AttributionFile, labels: Mapping[int, str]) -> AttributionFile:
    """Add users' labels, such as "says no", to the names of the latents in a circuit.

    Args:
        file: Contents of attribution.json.
        labels: Label of each labelled latent, by the latent's index.
    """
    if file.circuit is None:
        return file
    names = {f"latent {latent}": f"latent {latent}: {shorten(label, 40)}" for latent, label in labels.items()}
    targets = [
        target.model_copy(update={"name": names.get(target.name, target.name)})
        for target in file.circuit.targets
    ]
    return file.model_copy(update={"circuit": file.circuit.model_copy(update={"targets": targets})})


def _excess(circuit: CircuitEntry) -> str:
    limits = {"tokens": MAX_TOKENS, "nodes": MAX_NODES, "edges": MAX_EDGES, "targets": MAX_NODES}
    sizes = {name: len(getattr(circuit, name)) for name in limits}
    return ", ".join(
        f"{size} {name}, at most {limits[name]}" for name, size in sizes.items() if size > limits[name]
    )


def cut_cards(file: CardsFile, missing: list[str]) -> CardsFile:
    """Keep as many latent cards as fit on the report's page: MAX_CARDS, with MAX_EXAMPLES texts each.

    A latent card describes one SAE latent: its activations, its logit effects and texts that activate it.

    Args:
        file: Contents of cards.json.
        missing: List to which a line is added if cards were left out.
    """
    if len(file.cards) > MAX_CARDS:
        missing.append(f"Of {len(file.cards):,} latents' cards, the first {MAX_CARDS} are shown.")
    return file.model_copy(update={"cards": [_cut_card(card) for card in file.cards[:MAX_CARDS]]})


def _cut_card(card: CardEntry) -> CardEntry:
    lists = {
        name: getattr(card, name)[:MAX_NAMED] for name in ("promotes", "suppresses", "directions", "latents")
    }
    examples = [
        e.model_copy(update={"tokens": e.tokens[:MAX_WINDOW], "activations": e.activations[:MAX_WINDOW]})
        for e in card.examples[:MAX_EXAMPLES]
    ]
    bars = {"edges": card.edges[: MAX_BARS + 1], "counts": card.counts[:MAX_BARS]}
    return card.model_copy(update={**lists, **bars, "examples": examples})


def end_names(circuit: CircuitEntry) -> dict[str, str]:
    """Return the display names of all components that a circuit's edges connect, by the component's id.

    The components are prompt tokens, heads, MLPs, directions, latents and the answer.

    Args:
        circuit: The circuit, as in attribution.json.
    """
    named = {f"token:{i}": f"token {token.strip() or token}" for i, token in enumerate(circuit.tokens)}
    nodes = {n.id: f"{n.name} at {_place(circuit, n.place)}" for n in circuit.nodes}
    return named | nodes | {t.id: t.name for t in circuit.targets}


def _place(circuit: CircuitEntry, place: int) -> str:
    words = {-2: "the question", -1: "the decision token"}
    return words.get(place) or (
        f"token {circuit.tokens[place].strip()}" if 0 <= place < len(circuit.tokens) else f"place {place}"
    )


def strongest_edges(circuit: CircuitEntry) -> list[CircuitEdgeEntry]:
    """Return the 40 edges of the circuit that carry the largest fractions of the effect."""
    return sorted((e for e in circuit.edges if e.share is not None), key=lambda e: -abs(e.share or 0.0))[:40]


def circuit_picture(circuit: CircuitEntry) -> Markup:
    """Draw the circuit's graph of tokens, heads, MLPs and targets as SVG."""
    return Markup(circuit_svg(circuit.model_dump()))


def dose_picture(doses: list[DoseEntry]) -> Markup:
    """Draw dose-response curves as SVG: the answer's log-odds under parts of the prompt and under steering.

    Args:
        doses: Points of both curves; without any, the picture is empty.
    """
    return Markup(dose_svg([dose.model_dump() for dose in doses]))


def histogram_picture(card: CardEntry) -> Markup:
    """Draw a histogram of the non-zero activations of one SAE latent as SVG.

    Args:
        card: Description of the latent, with the edges and counts of the histogram.
    """
    return Markup(histogram_svg(card.edges, card.counts))


def shaded_tokens(example: FiringEntry) -> list[tuple[str, int]]:
    """Return the tokens of a text with a level for the latent's activation on each token.

    The levels are from 0 (no activation) to 4 (the text's largest). If no token contains white space, the
    tokens are whole words and get a space between.

    Args:
        example: A text that activates the latent, with its tokens and activations.
    """
    values = [*example.activations, *[None] * len(example.tokens)]
    shares = [(value or 0.0) / example.activation if example.activation else 0.0 for value in values]
    apart = (
        " " if not any(character.isspace() for token in example.tokens for character in token) else ""
    )  # tokens of whole words
    texts = [token if i == 0 else apart + token for i, token in enumerate(example.tokens)]
    return [(token, round(4 * max(0.0, min(1.0, share)))) for token, share in zip(texts, shares)]


def neuronpedia_link(card: CardEntry) -> str | None:
    """Return the Neuronpedia address of a latent, or None if it has none or the address is not valid.

    Args:
        card: Description of the latent.
    """
    return card.neuronpedia if card.neuronpedia and NEURONPEDIA.fullmatch(card.neuronpedia) else None


#: Functions that the templates use as filters, by name.
FILTERS: dict[str, Any] = {
    f.__name__: f
    for f in (
        end_names,
        strongest_edges,
        circuit_picture,
        dose_picture,
        histogram_picture,
        shaded_tokens,
        neuronpedia_link,
    )
}
