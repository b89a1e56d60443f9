"""The ledger: effects by prompt token and target, from several estimators, over many contexts.

1. Every estimator gives an effect per context, token and target. A cell of the ledger is the mean, standard
   deviation and interval over contexts, clustered by question group.
2. Each estimator is compared with exact removal: the rank correlation of the tokens' mean effects, and how
   many of removal's strongest tokens are among its own strongest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.attribution.attribution_patching import PromptPath
from workbench.attribution.attribution_targets import AttributionTarget, AttributionTargets, as_targets
from workbench.attribution.circuit import Circuit
from workbench.attribution.dose_response import DoseResponse, dose_verdict
from workbench.attribution.estimator import EffectEstimate
from workbench.attribution.ledger_html import agreement_lines, matrix_html
from workbench.attribution.mediation import MediationResult, controls_verdict
from workbench.attribution.side_effects import SideEffects
from workbench.errors import UserError
from workbench.html_text import plain_table, visible
from workbench.schema import AttributionFile, TargetEntry, TokenPairEntry, TotalEntry
from workbench.statistics import cluster_interval, spearman

JUDGE = "removal"
#: How many of the strongest tokens `agreement` compares.
TOP = 3


@dataclass(frozen=True)
class TokenPair:
    """Interaction of two tokens: their joint effect minus the sum of their single effects.

    Attributes:
        target: Name of the target.
        first: Position of one token in the prompt.
        second: Position of the other token.
        mean: Mean interaction over contexts, in the target's unit.
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
    """

    target: str
    first: int
    second: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Ledger:
    """Effects of a prompt's tokens on each target (a quantity such as the answer's log-odds).

    Positive means that the token raises the target.

    Attributes:
        prompt_ids: Token ids of the prompt.
        tokens: The prompt's tokens as text.
        text: The prompt as one text.
        targets: Quantities that effects were measured on.
        estimates: Effects by the name of the estimator.
        groups: Question group of each context.
        total: Value of each target with the prompt minus that without, [context, target].
        pairs: Interactions of pairs of tokens.
        seconds: Run time of each estimator in seconds.
        caution: Warning about the effects on the answer that every reader should see; empty for none.
        mediation: How much of the effect on the answer goes through directions and latents.
        path: The heads and MLPs that carry the effect.
        circuit: Graph of heads and MLPs with its faithfulness; None if it was not computed.
        dose: Dose-response curves of the prompt's first tokens and of steering.

    Example:
        >>> quick = wb.AttributionOptions(pairs=0, nodes=0)
        >>> ledger = wb.attribute(model, "be blunt", [direction], contexts, options=quick)
        >>> ledger.total.shape == (len(contexts), 2)      # the answer and the direction
        True
    """

    prompt_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    text: str
    targets: AttributionTargets = field(repr=False)
    estimates: Mapping[str, EffectEstimate] = field(repr=False)
    groups: tuple[str, ...] = field(repr=False)
    total: Float[np.ndarray, "context target"] = field(repr=False)
    pairs: tuple[TokenPair, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    caution: str = ""
    mediation: tuple[MediationResult, ...] = ()
    path: PromptPath | None = None
    circuit: Circuit | None = None
    dose: tuple[DoseResponse, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the targets."""
        return tuple(target.name for target in self.targets.items)

    @property
    def shown_names(self) -> tuple[str, ...]:
        """Names of the targets, with a user's label for each labelled latent: `latent 80: says no`."""
        return tuple(target.shown_name for target in self.targets.items)

    def labelled(self, labels: Mapping[int, str]) -> Ledger:
        """Return the same ledger with a user's labels of its latents.

        Args:
            labels: Label by the latent's index, as from `wb.latent_labels`.
        """
        items = [
            replace(t, label=labels.get(t.latent, t.label) if t.latent is not None else t.label)
            for t in self.targets.items
        ]
        return replace(self, targets=AttributionTargets(tuple(items)))

    def to_tensor(self, estimator: str = JUDGE) -> Float[Tensor, "context prompt_pos target"]:
        """Return each token's effect on each target in each context as a float64 tensor.

        The labels along the three axes are the ledger's `groups` (question group of each context), `tokens`
        and `names` (of the targets).

        Args:
            estimator: Name of the estimator.

        Raises:
            UserError: The estimator was not run.
        """
        self.means(estimator)
        return torch.from_numpy(self.estimates[estimator].values.astype(np.float64))

    @classmethod
    def from_tensor(
        cls,
        effects: Float[Tensor, "context prompt_pos target"],
        tokens: Sequence[str],
        targets: Any,
        total: Float[Tensor, "context target"] | None = None,
        groups: Sequence[str] | None = None,
        prompt_ids: Sequence[int] | None = None,
        estimator: str = JUDGE,
    ) -> Ledger:
        """Build a ledger from effects that were computed elsewhere, for tables, intervals and reports.

        Args:
            effects: Effect of each prompt token on each target in each context, in the target's unit;
                positive means that the token raises the target.
            tokens: The prompt's tokens as text.
            targets: Targets in the order of the last axis, in any form that `attribute` takes, including the
                answer's log-odds.
            total: Score with the prompt minus score without it; None for the sum over tokens.
            groups: Question group of each context; None for one group per context.
            prompt_ids: Ids of the tokens; None for -1 each.
            estimator: Name of the estimator that computed the effects. `removal` is the exact reference that
                others are compared with.

        Raises:
            UserError: Shapes and names do not fit each other, or a number is not finite.
        """
        values = torch.as_tensor(effects).detach().double().cpu().numpy()
        named = (
            AttributionTargets(tuple(targets))
            if isinstance(targets, (list, tuple)) and _are_targets(targets)
            else as_targets(targets)
        )
        if (
            values.ndim != 3
            or values.shape[1:] != (len(tokens), len(named.items))
            or not np.isfinite(values).all()
        ):
            expected = f"finite effects [context, {len(tokens)} tokens, {len(named.items)} targets]"
            raise UserError(
                f"expected {expected}, found shape {list(values.shape)} (targets: {', '.join(t.name for t in named.items)})"
            )
        whole = (
            values.sum(axis=1) if total is None else torch.as_tensor(total).detach().double().cpu().numpy()
        )
        grouped = (
            tuple(f"context {i}" for i in range(len(values))) if groups is None else tuple(map(str, groups))
        )
        ids = (-1,) * len(tokens) if prompt_ids is None else tuple(map(int, prompt_ids))
        if (
            whole.shape != (len(values), len(named.items))
            or len(grouped) != len(values)
            or len(ids) != len(tokens)
        ):
            raise UserError(
                f"expected totals [{len(values)}, {len(named.items)}], {len(values)} groups and {len(tokens)} ids"
            )
        return cls(
            ids, tuple(tokens), "".join(tokens), named, {estimator: EffectEstimate(values)}, grouped, whole
        )

    @cached_property
    def table(self) -> pd.DataFrame:
        """Table with one row per prompt token, target and estimator.

        Columns: position, token_id, token, target, kind, estimator, mean, sd (standard deviation over
        contexts), low and high (95 % interval of the mean), sampling_error (of estimators that sample), n
        (number of contexts).
        """
        return pd.DataFrame([row for name in self.estimates for row in self._rows(name)])

    @cached_property
    def agreement(self) -> pd.DataFrame:
        """Table that compares each estimator with exact removal, one row per estimator and target.

        The column rank_correlation compares the order of the tokens; it is nan if the effects of one
        estimator are constant or there are fewer than 3 tokens. The column top is the fraction of the 3
        strongest tokens by removal that are also among the estimator's 3 strongest.
        """
        judge = self.means(JUDGE)
        rows = []
        for name in self.estimates:
            if name != JUDGE:
                own = self.means(name)
                rows += [
                    {
                        "estimator": name,
                        "target": target,
                        "rank_correlation": _spearman(own[:, t], judge[:, t]),
                        "top": _top(own[:, t], judge[:, t]),
                    }
                    for t, target in enumerate(self.names)
                ]
        return pd.DataFrame(rows, columns=["estimator", "target", "rank_correlation", "top"])

    def means(self, estimator: str = JUDGE) -> Float[np.ndarray, "prompt_pos target"]:
        """Return the mean effects over contexts of one estimator.

        Args:
            estimator: Name of the estimator.

        Raises:
            UserError: The estimator was not run.
        """
        if estimator not in self.estimates:
            raise UserError(f"no estimator {estimator!r} in this ledger: it has {', '.join(self.estimates)}")
        return self.estimates[estimator].values.mean(axis=0)

    def cell(self, position: int, target: str, estimator: str = JUDGE) -> dict[str, Any]:
        """Return the effect of one token on one target by one estimator, as the table's row in a dictionary.

        Args:
            position: Position of the token in the prompt.
            target: Name of the target.
            estimator: Name of the estimator.

        Raises:
            UserError: The token, target or estimator is not in the ledger.
        """
        if target not in self.names or not 0 <= position < len(self.tokens):
            raise UserError(
                f"no cell for token {position} and target {target!r}: {len(self.tokens)} tokens, targets {', '.join(self.names)}"
            )
        chosen = self.table[
            (self.table["position"] == position)
            & (self.table["target"] == target)
            & (self.table["estimator"] == estimator)
        ]
        if chosen.empty:
            raise UserError(f"no estimator {estimator!r} in this ledger: it has {', '.join(self.estimates)}")
        return chosen.iloc[0].to_dict()

    def to_file(self, search: str = "", side_effects: SideEffects | None = None) -> AttributionFile:
        """Convert the ledger to the contents of attribution.json.

        The effects of single tokens are left out, because they are in attribution.parquet.

        Args:
            search: Name of the search that found the prompt.
            side_effects: Side effects of the same prompt on latents.
        """
        by_estimator = list(self.agreement.groupby("estimator", sort=False))
        return AttributionFile(
            search=search,
            prompt=self.text,
            prompt_ids=list(self.prompt_ids),
            tokens=list(self.tokens),
            n_contexts=len(self.groups),
            n_groups=len(set(self.groups)),
            targets=[_described(target) for target in self.targets.items],
            estimators=list(self.estimates),
            rank_correlation={
                str(name): dict(zip(part["target"], part["rank_correlation"], strict=True))
                for name, part in by_estimator
            },
            top_agreement={str(name): float(part["top"].to_numpy().mean()) for name, part in by_estimator},
            totals=self._totals(),
            pairs=[self._pair(pair) for pair in self.pairs],
            missing={
                name: {**estimate.missing} for name, estimate in self.estimates.items() if estimate.missing
            },
            mediation=[entry.to_entry() for entry in self.mediation],
            nodes=self.path.to_entries() if self.path else [],
            nodes_agreement=self.path.agreement if self.path else None,
            circuit=self.circuit.to_entry() if self.circuit else None,
            dose=[dose.to_entry() for dose in self.dose],
            notes=self._notes(),
            side_effects=side_effects.to_entry() if side_effects else None,
        )

    def _rows(self, name: str) -> list[dict[str, Any]]:
        estimate = self.estimates[name]
        rows = []
        for i, token in enumerate(self.tokens):
            for t, target in enumerate(self.targets.items):
                values = estimate.values[:, i, t]
                interval = cluster_interval(values, self.groups)
                error = (
                    float("nan") if estimate.sampling_error is None else float(estimate.sampling_error[i, t])
                )
                rows.append(
                    {
                        "position": i,
                        "token_id": self.prompt_ids[i],
                        "token": token,
                        "target": target.name,
                        "kind": target.kind,
                    }
                    | {
                        "estimator": name,
                        "mean": interval.estimate,
                        "sd": float(values.std(ddof=1)) if len(values) > 1 else float("nan"),
                    }
                    | {"low": interval.low, "high": interval.high, "sampling_error": error, "n": interval.n}
                )
        return rows

    def _totals(self) -> list[TotalEntry]:
        intervals = [cluster_interval(self.total[:, t], self.groups) for t in range(len(self.names))]
        return [
            TotalEntry(target=n, mean=i.estimate, low=i.low, high=i.high)
            for n, i in zip(self.names, intervals, strict=True)
        ]

    def _pair(self, pair: TokenPair) -> TokenPairEntry:
        return TokenPairEntry(
            **vars(pair), first_token=self.tokens[pair.first], second_token=self.tokens[pair.second]
        )

    def _notes(self) -> list[str]:
        notes = [self.caution] if self.caution else []
        for name, estimate in self.estimates.items():
            if estimate.missing:
                shares = [self._short_of(estimate, t) for t in range(len(self.names))]
                notes.append(
                    f"{name}: of the whole change, the tokens' effects added up lack {100 * max(shares):.0f} % in the worst row."
                )
            if estimate.sampling_error is not None:
                notes.append(
                    f"{name}: draws at random; the largest standard error from that is {np.nanmax(estimate.sampling_error):.2g}."
                )
        return [
            *notes,
            *(line for line in (controls_verdict(self.mediation), dose_verdict(self.dose)) if line),
        ]

    def _short_of(self, estimate: EffectEstimate, target: int) -> float:
        """Return the completeness error as a fraction of the whole prompt's effect."""
        gap = estimate.missing[self.names[target]]
        whole = float(estimate.values[:, :, target].sum(axis=1).mean()) + gap
        return abs(gap / whole) if whole else 0.0

    def __repr__(self) -> str:
        caption = f"Effect of each token by exact removal, mean over {len(self.groups)} contexts; plus raises the row's quantity"
        named = pd.DataFrame(self.means(), columns=list(self.shown_names)).round(3)
        named.insert(0, "token", [visible(token) for token in self.tokens], allow_duplicates=True)
        return plain_table(named, caption, max_characters=32)

    def _repr_html_(self) -> str:
        caption = f"Effect of each token by exact removal, mean over {len(self.groups)} contexts; plus raises the row's quantity"
        return matrix_html(
            self.tokens, self.shown_names, self.means(), caption, agreement_lines(self.agreement)
        )


def _are_targets(given: Sequence[Any]) -> bool:
    return bool(given) and all(isinstance(item, AttributionTarget) for item in given)


def _described(target: AttributionTarget) -> TargetEntry:
    return TargetEntry(
        name=target.name, kind=target.kind, site=target.sites[0].name if target.sites else None
    )


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    return spearman(x, y) if len(x) >= 3 else float("nan")


def _top(x: np.ndarray, y: np.ndarray) -> float:
    k = min(TOP, len(x))
    strongest = [set(np.argsort(-np.abs(v), kind="stable")[:k].tolist()) for v in (x, y)]
    return len(strongest[0] & strongest[1]) / k
