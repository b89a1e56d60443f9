"""Models of attribution.json and attribution.parquet.

They contain the token ledger, mediation, circuit, dose response and side effects of one prompt.
"""

from __future__ import annotations

from pydantic import Field

from workbench.schema.run_file import Entry, Number, RunFile, TableRow


class MeanEntry(Entry):
    """A mean over contexts (questions), with its confidence interval from `low` to `high`."""

    mean: Number = None
    low: Number = None
    high: Number = None


class TargetEntry(Entry):
    """A quantity on which the effect of each prompt token is measured: the answer, a direction or a latent.

    Attributes:
        name: Name of the quantity.
        kind: "answer", "direction", "latent" or "objective".
        site: Name of the hook at which it is read; None for the answer.
    """

    name: str
    kind: str = "latent"
    site: str | None = None


class TotalEntry(Entry):
    """Effect of the whole prompt on a target (the answer, a direction or a latent), relative to no prompt.

    Attributes:
        target: Name of the target.
        mean: Mean effect over contexts.
        low: Lower end of its interval.
        high: Upper end of its interval.
    """

    target: str
    mean: Number = None
    low: Number = None
    high: Number = None


class TokenPairEntry(Entry):
    """Interaction of two tokens: their joint effect beyond the sum of their single effects.

    Attributes:
        target: Name of the quantity that the tokens affect: the answer, a direction or a latent.
        first: Position of the first token in the prompt.
        second: Position of the second token.
        mean: Mean interaction over contexts.
        low: Lower end of its interval.
        high: Upper end of its interval.
        first_token: Text of the first token.
        second_token: Text of the second token.
    """

    target: str
    first: int
    second: int
    mean: Number = None
    low: Number = None
    high: Number = None
    first_token: str = ""
    second_token: str = ""


class MediationEntry(Entry):
    """How much of a prompt's effect on the answer goes through one mediator, in log-odds.

    A mediator is a direction or a set of latents. `total` is the whole effect, `mediated` the part through
    the mediator and `direct` the rest; `*_low` and `*_high` are the ends of their intervals. The other fields
    are explained in `workbench.attribution.MediationResult`.
    """

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
    """An attention head or MLP at a token, with its effect on the answer's log-odds.

    Attributes:
        node: Name of the head or MLP.
        token: Text of the token.
        estimate: Estimated effect (attribution patching).
        exact: Exact effect (activation patching).
    """

    node: str
    token: str = ""
    estimate: Number = None
    exact: Number = None


class CircuitNodeEntry(Entry):
    """An attention head or MLP of a circuit, at one place in the text.

    Attributes:
        id: Id of the node, to which edges refer.
        name: Name of the head or MLP.
        layer: Block index, from 0.
        head: Index of the head; None for an MLP.
        place: Index of the prompt token at which it is; -2 if it is in the question, -1 at the decision token
            (the last one before the answer).
        estimate: Estimated effect on the answer's log-odds.
        exact: Exact effect on the answer's log-odds.
    """

    id: str
    name: str = ""
    layer: int
    head: int | None = None
    place: int
    estimate: Number = None
    exact: Number = None


class CircuitEdgeEntry(Entry):
    """An edge of the circuit: how much of the prompt's effect goes from component `source` to `target`.

    `effect` is the change when the edge is cut, `share` its fraction of the whole effect. All fields are
    explained in `workbench.attribution.circuit.CircuitEdge`.
    """

    source: str
    target: str
    kind: str = ""
    effect: Number = None
    share: Number = None
    estimate: Number = None


class CircuitEndEntry(Entry):
    """A quantity that a circuit's heads and MLPs change: a direction, a latent or the answer.

    Attributes:
        id: Id of the quantity, to which edges refer.
        name: Its name.
        kind: What it is, such as "direction", "latent" or "answer".
        change: Its change by the prompt, relative to neutral prompts.
    """

    id: str
    name: str
    kind: str
    change: Number = None


class FaithfulnessEntry(Entry):
    """Faithfulness and completeness of a circuit, as fractions of the prompt's whole effect.

    Attributes:
        faithfulness: Fraction that the circuit alone keeps.
        completeness: Fraction that is lost without the circuit.
        random_faithfulness: Mean, least and largest value over random graphs of the same size.
        random_completeness: Mean, least and largest value over random graphs of the same size.
        graphs: Number of random graphs.
        curve: (number of nodes, faithfulness, completeness) for growing circuits.
    """

    faithfulness: MeanEntry
    completeness: MeanEntry
    random_faithfulness: tuple[Number, Number, Number] = (None, None, None)
    random_completeness: tuple[Number, Number, Number] = (None, None, None)
    graphs: int = 0
    curve: list[tuple[int, Number, Number]] = Field(default_factory=list)


class CircuitEntry(Entry):
    """The circuit (heads, MLPs and edges) through which a prompt's tokens change the answer.

    It is the key `circuit` of attribution.json. `proof` is the evaluation of its faithfulness; `attention`
    has the attention weights of each head, by the id of its node. The other fields are explained in
    `workbench.attribution.circuit.Circuit`.
    """

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
    """One point of a dose-response curve: the answer's change for a part of the prompt or for steering.

    `moved` is the change of the projection on the direction, `answer` that of the answer's log-odds with the
    interval from `low` to `high`. The other fields are explained in `workbench.attribution.DoseResponse`.
    """

    kind: str
    amount: Number = None
    moved: float
    answer: float
    low: Number = None
    high: Number = None


class MovedLatentEntry(Entry):
    """Change of one SAE latent's activation by the prompt, at the last token before the answer.

    `before` is the activation without a prompt, `change` its change with the interval from `low` to `high`,
    and `manual` the change by a prompt written by hand. `size` is the length of the change in the residual
    stream.
    """

    latent: int
    before: Number = None
    change: Number = None
    low: Number = None
    high: Number = None
    manual: Number = None
    size: Number = None


class SideEffectsEntry(Entry):
    """SAE latents whose activation the prompt changes: those it was optimized for, and others.

    It is the key `side_effects` of attribution.json. `inside` has the latents of the search's objective,
    `beside` the others. The other fields are explained in `workbench.attribution.SideEffects`.
    """

    site: str = ""
    sae: str = ""
    manual: str | None = None
    aimed: Number = None
    verdict: str = ""
    active: dict[str, MeanEntry] = Field(default_factory=dict)
    beside: list[MovedLatentEntry] = Field(default_factory=list)
    inside: list[MovedLatentEntry] = Field(default_factory=list)


class AttributionFile(RunFile):
    """The file attribution.json: how a prompt has its effect on the answer, by tokens and by model parts.

    Targets are the quantities on which effects are measured: the answer, directions and latents. The effects
    of the single tokens on each target are in attribution.parquet.

    Attributes:
        search: Name of the search whose prompt is attributed; "" for another prompt.
        prompt: Text of the prompt.
        prompt_ids: Its token ids.
        tokens: Text of each token.
        n_contexts: Number of contexts (questions in the chat template).
        n_groups: Number of question groups among them.
        targets: The targets.
        estimators: Names of the methods that estimate the tokens' effects.
        rank_correlation: Estimator -> target -> rank correlation of its effects with exact removal, over
            tokens.
        top_agreement: Estimator -> fraction of the 3 strongest tokens by exact removal that are among its own
            3 strongest, mean over targets.
        totals: Effect of the whole prompt on each target.
        pairs: Interactions of tokens.
        missing: Estimator -> target -> the total effect minus the sum of the tokens' effects.
        mediation: One entry per mediator.
        nodes: Heads and MLPs with estimated and exact effects.
        nodes_agreement: Rank correlation of the nodes' estimated and exact effects.
        circuit: The circuit; None if it was not computed.
        dose: Points of the dose-response curves.
        notes: Remarks on the results, one line each.
        side_effects: Latents whose activation the prompt changes; None without an SAE.
    """

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
    """One row of attribution.parquet: the effect of one prompt token on one target.

    A target is the answer, a direction, a latent or an objective. An estimator is a method that estimates the
    effect, such as removal of the token.

    Attributes:
        position: Position of the token in the prompt.
        token_id: Its id.
        token: Its text.
        target: Name of the target.
        kind: "answer", "direction", "latent" or "objective".
        estimator: Name of the estimator.
        mean: Mean effect over contexts.
        sd: Standard deviation over contexts.
        low: Lower end of the mean's interval.
        high: Upper end of the mean's interval.
        sampling_error: Standard error from random draws; missing for estimators that do not draw.
        n: Number of contexts.
    """

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
