"""The path through the model, the side effects and the latents' cards, as the page shows them: checked shapes, and pictures drawn here.

Each piece is checked on its own: one that does not fit is left out with a line, and the rest stands.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from markupsafe import Markup
from pydantic import Field, ValidationError

from workbench.plots.svg import circuit_svg, dose_svg, histogram_svg
from workbench.report.run_files import Attribution, Number, Part

MAX_NODES, MAX_EDGES, MAX_TOKENS, MAX_CARDS, MAX_EXAMPLES = 60, 400, 80, 100, 8
NEURONPEDIA = re.compile(r"https://www\.neuronpedia\.org/[\w./-]+", re.ASCII)
T = TypeVar("T")


class Estimate(Part):
    """A mean with its interval."""

    mean: Number = None
    low: Number = None
    high: Number = None


class Node(Part):
    """A head or MLP at a place."""

    id: str
    name: str = ""
    layer: int
    head: int | None = None
    place: int
    estimate: Number = None
    exact: Number = None


class Edge(Part):
    """A way from one part to another."""

    source: str
    target: str
    kind: str = ""
    effect: Number = None
    share: Number = None
    estimate: Number = None


class Target(Part):
    """A direction, a latent or the answer at the end of the graph."""

    id: str
    name: str
    kind: str
    change: Number = None


class Proof(Part):
    """Shares of the whole effect. random_*: mean, least, most."""

    faithfulness: Estimate
    completeness: Estimate
    random_faithfulness: tuple[Number, Number, Number] = (None, None, None)
    random_completeness: tuple[Number, Number, Number] = (None, None, None)
    graphs: int = 0
    curve: list[tuple[int, Number, Number]] = Field(default_factory=list, max_length=40)


class Circuit(Part):
    """`circuit` of attribution.json."""

    tokens: list[str] = Field(max_length=MAX_TOKENS)
    nodes: list[Node] = Field(max_length=MAX_NODES)
    edges: list[Edge] = Field(max_length=MAX_EDGES)
    targets: list[Target] = Field(max_length=MAX_NODES)
    total: Estimate = Estimate()
    proof: Proof | None = None
    agreement: Number = None
    attention: dict[str, list[Number]] = Field(default_factory=dict)
    verdict: str = ""

    @property
    def svg(self) -> Markup:
        """The graph; every text in it is escaped by drawing.py."""
        return Markup(circuit_svg(self.model_dump()))

    @property
    def names(self) -> dict[str, str]:
        """What a reader calls each end of an edge."""
        named = {f"token:{i}": f"token {token.strip() or token}" for i, token in enumerate(self.tokens)}
        return named | {n.id: f"{n.name} at {self.place(n.place)}" for n in self.nodes} | {t.id: t.name for t in self.targets}

    def place(self, place: int) -> str:
        """A place of the text in words."""
        words = {-2: "the question", -1: "the decision token"}
        return words.get(place) or (f"token {self.tokens[place].strip()}" if 0 <= place < len(self.tokens) else f"place {place}")

    @property
    def strongest(self) -> list[Edge]:
        """Edges for the table: the largest shares."""
        return sorted((e for e in self.edges if e.share is not None), key=lambda e: -abs(e.share or 0.0))[:40]


class Dose(Part):
    """One point of the two curves."""

    kind: str
    amount: Number = None
    moved: float
    answer: float
    low: Number = None
    high: Number = None


class Moved(Part):
    """What the prompt does to one latent."""

    latent: int
    before: Number = None
    change: Number = None
    low: Number = None
    high: Number = None
    manual: Number = None
    size: Number = None


class SideEffects(Part):
    """`side_effects` of attribution.json."""

    manual: str | None = None
    aimed: Number = None
    verdict: str = ""
    active: dict[str, Estimate] = Field(default_factory=dict)
    beside: list[Moved] = Field(default_factory=list, max_length=200)
    inside: list[Moved] = Field(default_factory=list, max_length=200)


class Example(Part):
    """A text in which a latent fires."""

    activation: float
    peak: int = 0
    tokens: list[str] = Field(max_length=200)
    activations: list[Number] = Field(max_length=200)

    @property
    def shaded(self) -> list[tuple[str, int]]:
        """Each token with how strongly the latent fires there, 0 to 4."""
        values = [*self.activations, *[None] * len(self.tokens)]
        shares = [(value or 0.0) / self.activation if self.activation else 0.0 for value in values]
        return [(token, round(4 * max(0.0, min(1.0, share)))) for token, share in zip(self.tokens, shares)]


class Card(Part):
    """What one latent is."""

    latent: int
    density: Number = None
    n_tokens: int = 0
    edges: list[float] = Field(default_factory=list, max_length=201)
    counts: list[int] = Field(default_factory=list, max_length=200)
    examples: list[Example] = Field(default_factory=list)
    promotes: list[tuple[str, Number]] = Field(default_factory=list, max_length=40)
    suppresses: list[tuple[str, Number]] = Field(default_factory=list, max_length=40)
    directions: list[tuple[str, Number]] = Field(default_factory=list, max_length=40)
    latents: list[tuple[str, Number]] = Field(default_factory=list, max_length=40)
    label: str = ""
    label_source: str = ""
    neuronpedia: str | None = None

    @property
    def histogram(self) -> Markup:
        """Its activations where it is on."""
        return Markup(histogram_svg(self.edges, self.counts))

    @property
    def link(self) -> str | None:
        """The page's address, where it is one of Neuronpedia's and nothing else."""
        return self.neuronpedia if self.neuronpedia and NEURONPEDIA.fullmatch(self.neuronpedia) else None


class Cards(Part):
    """cards.json."""

    sae: str = ""
    site: str = ""
    corpus: str = ""
    cards: list[Card]


class Inside(Part):
    """Everything of attribution.json that this page shows of the way through the model."""

    circuit: Circuit | None = None
    dose: list[Dose] = Field(default_factory=list)
    side_effects: SideEffects | None = None

    @property
    def dose_svg(self) -> Markup:
        """Both curves, empty without them."""
        return Markup(dose_svg([d.model_dump() for d in self.dose]))


def view(facts: Attribution | None, missing: list[str]) -> Inside:
    """The pieces that are there and fit; a line for each that does not."""
    given: dict[str, Any] = {"circuit": facts.circuit, "dose": facts.dose, "side_effects": facts.side_effects} if facts else {}
    circuit = _checked(given.get("circuit"), Circuit.model_validate, "the circuit", missing)
    dose = _checked(given.get("dose"), lambda rows: [Dose.model_validate(row) for row in rows[:200]], "the doses", missing)
    effects = _checked(given.get("side_effects"), SideEffects.model_validate, "the side effects", missing)
    return Inside(circuit=circuit, dose=dose or [], side_effects=effects)


def cut_cards(found: Cards, missing: list[str]) -> Cards:
    """At most MAX_CARDS cards with MAX_EXAMPLES texts each."""
    if len(found.cards) > MAX_CARDS:
        missing.append(f"Of {len(found.cards):,} latents' cards, the first {MAX_CARDS} are shown.")
    kept = [card.model_copy(update={"examples": card.examples[:MAX_EXAMPLES]}) for card in found.cards[:MAX_CARDS]]
    return found.model_copy(update={"cards": kept})


def _checked(value: Any, check: Callable[[Any], T], what: str, missing: list[str]) -> T | None:
    if not value:
        return None
    try:
        return check(value)
    except (ValidationError, TypeError, KeyError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        where = ".".join(str(step) for step in first["loc"])
        missing.append(f"attribution.json: {what} could not be read, so this page does not show it ({where}: {first['msg']}).")
        return None
