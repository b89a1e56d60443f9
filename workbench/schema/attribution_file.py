"""attribution.json and attribution.parquet: the token ledger, mediation, circuit, dose and side effects of one prompt."""

from __future__ import annotations

from pydantic import Field

from workbench.schema.run_file import Entry, Number, RunFile, TableRow


class MeanEntry(Entry):
    """A mean with its interval."""

    mean: Number = None
    low: Number = None
    high: Number = None


class TargetEntry(Entry):
    """One column of the ledger. kind: "answer", "direction", "latent" or "objective"; site: hook name, None for the answer."""

    name: str
    kind: str = "latent"
    site: str | None = None


class TotalEntry(Entry):
    """Effect of the whole prompt on a target, relative to the bare question."""

    target: str
    mean: Number = None
    low: Number = None
    high: Number = None


class TokenPairEntry(Entry):
    """What two tokens do together beyond the sum of each alone. first, second: positions in the prompt."""

    target: str
    first: int
    second: int
    mean: Number = None
    low: Number = None
    high: Number = None
    first_token: str = ""
    second_token: str = ""


class MediationEntry(Entry):
    """One mediator's fraction of the prompt's effect: see `workbench.attribution.MediationResult`."""

    target: str
    total: Number = None
    mediated: Number = None
    direct: Number = None
    into: Number = None
    out_of: Number = None
    mediated_low: Number = None
    mediated_high: Number = None
    direct_low: Number = None
    direct_high: Number = None
    into_low: Number = None
    into_high: Number = None
    out_of_low: Number = None
    out_of_high: Number = None
    share: Number = None
    moved: Number = None
    control: bool = False
    verdict: str = ""


class PatchedNodeEntry(Entry):
    """A head or MLP at a token: its estimated and its exact effect on the answer's log-odds."""

    node: str
    token: str = ""
    estimate: Number = None
    exact: Number = None


class CircuitNodeEntry(Entry):
    """A head or MLP of the circuit. head: None for an MLP; place: token of the prompt, -2 the question, -1 the decision token."""

    id: str
    name: str = ""
    layer: int
    head: int | None = None
    place: int
    estimate: Number = None
    exact: Number = None


class CircuitEdgeEntry(Entry):
    """An edge of the circuit, from `source` to `target`: see `workbench.attribution.circuit.CircuitEdge`."""

    source: str
    target: str
    kind: str = ""
    effect: Number = None
    share: Number = None
    estimate: Number = None


class CircuitEndEntry(Entry):
    """A direction, a latent or the answer at the end of the graph, with the prompt's change of it."""

    id: str
    name: str
    kind: str
    change: Number = None


class FaithfulnessEntry(Entry):
    """Fractions of the whole effect. random_*: mean, least, most over `graphs` random graphs; curve: (nodes, faithfulness, completeness)."""

    faithfulness: MeanEntry
    completeness: MeanEntry
    random_faithfulness: tuple[Number, Number, Number] = (None, None, None)
    random_completeness: tuple[Number, Number, Number] = (None, None, None)
    graphs: int = 0
    curve: list[tuple[int, Number, Number]] = Field(default_factory=list)


class CircuitEntry(Entry):
    """`circuit`: see `workbench.attribution.circuit.Circuit`. attention: by node id."""

    tokens: list[str]
    nodes: list[CircuitNodeEntry]
    edges: list[CircuitEdgeEntry]
    targets: list[CircuitEndEntry]
    total: MeanEntry = MeanEntry()
    proof: FaithfulnessEntry | None = None
    agreement: Number = None
    attention: dict[str, list[Number]] = Field(default_factory=dict)
    verdict: str = ""


class DoseEntry(Entry):
    """One point of the two dose-response curves: see `workbench.attribution.DoseResponse`."""

    kind: str
    amount: Number = None
    moved: float
    answer: float
    low: Number = None
    high: Number = None


class MovedLatentEntry(Entry):
    """Change of one latent by the prompt: see `workbench.attribution.side_effects.MovedLatent`."""

    latent: int
    before: Number = None
    change: Number = None
    low: Number = None
    high: Number = None
    manual: Number = None
    size: Number = None


class SideEffectsEntry(Entry):
    """`side_effects`: see `workbench.attribution.SideEffects`."""

    site: str = ""
    sae: str = ""
    manual: str | None = None
    aimed: Number = None
    verdict: str = ""
    active: dict[str, MeanEntry] = Field(default_factory=dict)
    beside: list[MovedLatentEntry] = Field(default_factory=list)
    inside: list[MovedLatentEntry] = Field(default_factory=list)


class AttributionFile(RunFile):
    """attribution.json: everything but the ledger's cells. search: the search whose prompt this is, "" for another prompt."""

    search: str = ""
    prompt: str | None = None
    prompt_ids: list[int] = Field(default_factory=list)
    tokens: list[str] | None = None
    n_contexts: int | None = None
    n_groups: int | None = None
    targets: list[TargetEntry] = Field(default_factory=list)
    estimators: list[str] = Field(default_factory=list)
    rank_correlation: dict[str, dict[str, Number]] = Field(default_factory=dict)
    top_agreement: dict[str, Number] = Field(default_factory=dict)
    totals: list[TotalEntry] = Field(default_factory=list)
    pairs: list[TokenPairEntry] = Field(default_factory=list)
    missing: dict[str, dict[str, Number]] = Field(default_factory=dict)
    mediation: list[MediationEntry] = Field(default_factory=list)
    nodes: list[PatchedNodeEntry] = Field(default_factory=list)
    nodes_agreement: Number = None
    circuit: CircuitEntry | None = None
    dose: list[DoseEntry] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    side_effects: SideEffectsEntry | None = None


class AttributionRow(TableRow):
    """attribution.parquet: one cell of the ledger, over contexts. sampling_error: of estimators that draw at random."""

    position: int
    token_id: int | None = None
    token: str
    target: str
    kind: str = "latent"
    estimator: str
    mean: Number
    sd: Number = None
    low: Number = None
    high: Number = None
    sampling_error: Number = None
    n: int | None = None
