"""Scan layers and methods for the direction that best predicts how prompts change the answer.

A direction that separates answers need not be one that determines them (REFERENCES: the mean difference at
the answer token had the wrong sign twice on a small organism). So a site is chosen by prediction, on data to
which no direction was fitted:

1. The persona's varied system texts are split by seed into fitting texts and testing texts.
2. Train data are labelled in the ways that the methods need: answer pairs, own choices under the fitting
   texts, responses. Every method gives one vector per layer (direction_method.py).
3. On the search split, the same contexts are run under each testing text. The text's effect is the mean
   change of the answer's log-odds against no text; its reading is the mean change of x . unit at the decision
   token (the last token before the answer).
4. Only sites that pass `site_gates` may be chosen: the effects of the texts vary, readings correlate with
   them beyond chance, and the direction has a good held-out AUC and is similar in both halves of the data. If
   no site passes, no direction is shown, and the verdict says why.
5. `predicts` is the Spearman correlation of readings and effects over the testing texts. Of the sites that
   pass, the layer and method with the highest one are chosen (ties: the lower layer, then the earlier
   method). As the best of many it is slightly too high; its interval is a bootstrap over texts that does not
   account for this choice.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from workbench.contexts import Orders, Slot
from workbench.directions.activation_sampling import TESTING_TEXTS, ActivationSampler, deal_texts
from workbench.directions.class_split import positive
from workbench.directions.direction import Direction
from workbench.directions.direction_method import DIRECTION_METHODS, DirectionMethod, Labels, default_methods
from workbench.directions.direction_quality import (
    angle_interval,
    auc,
    cosine,
    length_correlation,
    letter_direction,
    rank_correlation,
    split_cosine,
)
from workbench.directions.labelled_activations import LabelledActivations
from workbench.directions.labelled_cache import LabelledCache
from workbench.directions.site_gates import GATES, LEAST, SiteGates
from workbench.errors import UserError
from workbench.html_text import html_table
from workbench.models import Site, runner_for
from workbench.personas import Split
from workbench.schema import DirectionFile, LayerEntry, PromptEffectEntry

#: Largest number of held-out rows of answer pairs or responses; fewer if fewer train rows are requested.
HELD_OUT_ROWS = 256


@dataclass(frozen=True, repr=False)
class LayerScan:
    """Result of a search over layers and fitting methods for a persona's direction.

    Attributes:
        table: One row per layer and method, best first.
        directions: The fitted direction for each (layer, method).
        effects: One row per system text held out for testing: the text, its effect (mean change of the
            answer's log-odds) and its reading (change of the projection on the best direction).
        activations: Train activations [n, d_model] at the decision token (the last one before the answer) of
            the best layer, for drawing control directions.
        gates: Requirements that a layer and method had to meet.
    """

    table: pd.DataFrame
    directions: dict[tuple[int, str], Direction]
    effects: pd.DataFrame
    activations: Float[Tensor, "n d_model"]
    gates: SiteGates = GATES

    @property
    def shown(self) -> bool | None:
        """Whether any layer and method meets all requirements in `gates` for reporting a direction.

        It is None if there are too few question groups, or too few system texts held out for testing, to test
        this.
        """
        return None if bool(self.table["p_labels"].isna().all()) else bool(self.table["passes"].any())

    @property
    def verdict(self) -> str:
        """Whether the data support a direction of the persona, in one sentence, with the reason if not."""
        first, spread = self.table.iloc[0], float(self.effects["effect"].to_numpy().std(ddof=1))
        if self.shown is None:
            return f"not tested whether there is a direction: at least {LEAST} testing texts and {LEAST} question groups are needed"
        if not self.shown:
            return f"no direction shown for {self.best.persona}: {self.gates.why_not(self.table, spread)}"
        p = max(first["p_association"], first["p_labels"])
        tests = f"p {'below 0.001' if p < 0.001 else f'{p:.3f}'}, corrected for {len(self.table)} layers and methods"
        return f"direction shown: {self.best.name} predicts what texts do to the answer with {first['predicts']:.2f} ({tests})"

    @property
    def best(self) -> Direction:
        """The direction whose projection best predicts how system texts change the answer.

        Only directions that meet all requirements of `gates` are considered, or all if none does (`shown` is
        not True).
        """
        return self[int(self.table["layer"].iloc[0]), str(self.table["method"].iloc[0])]

    def __getitem__(self, key: tuple[int, str]) -> Direction:
        if key not in self.directions:
            layers, methods = (sorted({k[i] for k in self.directions}) for i in (0, 1))
            raise UserError(
                f"no direction for layer and method {key}: layers are {layers}, methods {methods}"
            )
        return self.directions[key]

    def cosines(self, layer: int | None = None) -> pd.DataFrame:
        """Return the cosines between the directions that different methods fitted at one layer.

        Args:
            layer: The layer; None for the layer of the best direction.

        Returns:
            A table with one row and one column per method.
        """
        layer = self.best.site.layer if layer is None else layer
        found = {method: d.vector for (at, method), d in self.directions.items() if at == layer}
        return pd.DataFrame(
            [[cosine(a, b) for b in found.values()] for a in found.values()],
            index=list(found),
            columns=list(found),
        )

    def to_file(self) -> DirectionFile:
        """Return the content of direction.json: the chosen direction and the table of all sites."""
        best = self.best
        return DirectionFile(
            site=best.site.name,
            position=best.site.position,
            method=best.method,
            norm=best.norm,
            auc=best.auc,
            predicts=self.table["predicts"].iloc[0],
            source=best.source,
            shown=self.shown,
            verdict=self.verdict,
            table=[LayerEntry(**row) for row in self.table.to_dict("records")],
            effects=[PromptEffectEntry(**row) for row in self.effects.to_dict("records")],
        )

    def __repr__(self) -> str:
        return f"Scan(best {self.best!r})\n{self.table.head(10).to_string(index=False, float_format='{:.3f}'.format)}"

    def _repr_html_(self) -> str:
        return html_table(
            self.table,
            caption=f"Directions of {self.best.persona}: best first, by how well they predict what prompts do",
        )


@dataclass(frozen=True)
class LayerScanOptions:
    """Further options of `find_directions`, which searches layers and methods for a persona's direction.

    Attributes:
        orders: Orders in which the two options of a question are shown: "both", or "original" as published,
            in which the effect of the letter does not cancel.
        gates: Requirements that a layer and method must meet, such as a smallest held-out AUC.

    Example:
        >>> wb.LayerScanOptions(orders="original").orders
        'original'
    """

    orders: Orders = "both"
    gates: SiteGates = GATES


def find_directions(
    model: Any,
    train: Split | LabelledCache,
    search: Split | LabelledCache,
    layers: Sequence[int] | None = None,
    methods: Sequence[str | DirectionMethod] | None = None,
    n: int = 384,
    n_texts: int = TESTING_TEXTS,
    n_contexts: int = 24,
    slot: Slot = "system",
    seed: int = 0,
    options: LayerScanOptions | None = None,
) -> LayerScan:
    """Find the direction, over layers and methods, that best predicts how prompts change the answer.

    The prediction is measured on system texts held out for testing (testing texts): the rank correlation
    between the change of the projection on the direction and the change of the answer's log-odds. The
    docstring of the module `layer_scan` lists the steps.

    Args:
        model: A loaded model or its runner.
        train: A split on whose questions the model is run, or activations that you already have
            (`LabelledCache`). Every method is fitted to them.
        search: A split or cached activations by which layer and method are chosen. Cached activations have no
            testing texts: `predicts` is nan then, and the best direction has the highest AUC on them.
        layers: Layers to scan; None for all.
        methods: Direction methods, by name or as values; None for the default ones.
        n: Number of train sequences for each kind of labels (the model's own choices, or given answers).
        n_texts: Number of testing texts.
        n_contexts: Number of search questions, with their option orders, under each testing text.
        slot: The place in the chat where the texts go.
        seed: Seed of the draws.
        options: Orders in which a question's options are shown, and the requirements on a layer and method;
            None for the defaults.

    Returns:
        The table of layers and methods, best first, and the directions (plus = more of the persona). Use
        `.best` unless `.shown` is False.

    Raises:
        UserError: A method or layer is unknown, or too few varied system texts are left to test on.

    Example:
        >>> sizes = {"n": 96, "n_texts": 8, "n_contexts": 6}
        >>> scan = wb.find_directions(model, data.train, data.search, (2,), ("own_choice",), **sizes)
        >>> scan.best.site.layer
        2
    """
    runner, options = runner_for(model), options or LayerScanOptions()
    cached = [given for given in (train, search) if isinstance(given, LabelledCache)]
    top = runner.shape.n_layers
    wanted = (
        set(range(top)).intersection(*(given.layers(top) for given in cached)) if layers is None else layers
    )
    layers = sorted({Site(k).checked(top).layer for k in wanted})
    chosen = [_method(m) for m in (_default_methods(cached) if methods is None else methods)]
    if not chosen or not layers:
        raise UserError("a sweep needs at least one layer and one method")
    draw = ActivationSampler(runner, layers, slot, seed, options.orders)
    kinds: set[Labels] = {m.labels for m in chosen}
    return scan_sites(
        draw_scan_data(draw, train, search, kinds, n, n_texts, n_contexts), chosen, options.gates, seed
    )


@dataclass(frozen=True)
class ScanData:
    """Activations and log-odds from which directions can be fitted and compared without a model.

    Attributes:
        persona: Name of the persona.
        trained: Train activations for each kind of labels, such as "choice" (the model's own choices) or
            "answer".
        choices: Search questions without a system text and then under each of `texts`, scored by the model's
            own log-odds.
        held_out: Search activations for each kind of labels, on which AUCs are measured.
        texts: System texts held out for testing; empty if the search data are cached.
    """

    persona: str
    trained: dict[Labels, LabelledActivations]
    choices: LabelledActivations
    held_out: dict[Labels, LabelledActivations]
    texts: tuple[str, ...]


def draw_scan_data(
    draw: ActivationSampler,
    train: Split | LabelledCache,
    search: Split | LabelledCache,
    kinds: Collection[Labels],
    n: int,
    n_texts: int,
    n_contexts: int,
) -> ScanData:
    """Run the model to get all activations and log-odds from which directions are fitted and compared.

    Args:
        draw: Sampler with the model, its layers, the place of system texts in the chat, and the seed.
        train: A split, or cached activations, to which directions are fitted.
        search: A split, or cached activations, by which layer and method are chosen.
        kinds: Kinds of labels that the methods need, such as "choice" or "answer".
        n: Number of train sequences for each kind of labels.
        n_texts: Number of system texts held out for testing.
        n_contexts: Number of search questions under each of these texts.

    Returns:
        The activations and log-odds.
    """
    fitting, testing = _texts(train, search, n_texts, draw.seed)
    persona = train.persona if isinstance(train, LabelledCache) else train.persona.name
    every: set[Labels] = {*kinds, "choice"}
    trained: dict[Labels, LabelledActivations] = {
        kind: _labelled(draw, train, kind, n, fitting) for kind in every
    }
    if isinstance(search, LabelledCache):
        rows = search.activations(draw.layers)
        return ScanData(persona, trained, rows, dict.fromkeys(kinds, rows), ())
    choices = draw.under_each(search, testing, n_contexts)
    pairs: dict[Labels, LabelledActivations] = {
        kind: draw.labelled(search, kind, min(n, HELD_OUT_ROWS))
        for kind in kinds
        if kind in ("answer", "response")
    }
    pairs |= {"choice": choices, "choice_within": choices}
    return ScanData(persona, trained, choices, pairs, tuple(testing))


def scan_sites(
    data: ScanData, methods: Sequence[DirectionMethod], gates: SiteGates = GATES, seed: int = 0
) -> LayerScan:
    """Fit and compare directions at every layer and with every method, without running the model.

    Args:
        data: Activations and log-odds of train and search questions.
        methods: Direction methods to fit.
        gates: Requirements that a layer and method must meet.
        seed: Seed of the bootstraps and permutations.

    Returns:
        The directions with their table, best first.
    """
    tested = _Tested(data.choices, data.held_out, len(data.choices) // (len(data.texts) + 1))
    layers = sorted(data.choices.states)
    found = {
        (layer, m.name): _judge(m, layer, data.trained, tested, data.persona, seed)
        for layer in layers
        for m in methods
    }
    directions = {key: direction for key, (_, direction) in found.items()}
    readings = np.stack([tested.readings(direction) for direction in directions.values()])
    table = gates.judge(
        pd.DataFrame([row for row, _ in found.values()]), readings, tested.effects_by_group, seed
    )
    merit = table["predicts" if data.texts else "auc"].fillna(-np.inf).to_numpy()
    order = np.lexsort((-merit, ~table["passes"].to_numpy()))
    table = table.iloc[order].reset_index(drop=True)
    best = directions[int(table["layer"][0]), str(table["method"][0])]
    effects = pd.DataFrame({"text": data.texts, "effect": tested.effects, "reading": tested.readings(best)})
    return LayerScan(table, directions, effects, data.trained["choice"].states[best.site.layer], gates)


def _default_methods(cached: Sequence[LabelledCache]) -> Sequence[str]:
    """Return the default methods; those that compare within contexts only if cached rows have contexts."""
    named = all(given.contexts is not None for given in cached)
    return [name for name in default_methods() if named or DIRECTION_METHODS[name].labels != "choice_within"]


def _texts(
    train: Split | LabelledCache, search: Split | LabelledCache, n_texts: int, seed: int
) -> tuple[list[str], list[str]]:
    """Return the persona's (fitting, testing) system texts; both are empty if train and search are cached."""
    split = next((given for given in (train, search) if not isinstance(given, LabelledCache)), None)
    return ([], []) if split is None else deal_texts(split.persona.varied_system_texts, n_texts, seed)


def _labelled(
    draw: ActivationSampler, train: Split | LabelledCache, kind: Labels, n: int, fitting: Sequence[str]
) -> LabelledActivations:
    if isinstance(train, LabelledCache):
        return train.activations(draw.layers, kind)
    return draw.labelled(train, kind, n, fitting)


@dataclass(frozen=True)
class _Tested:
    """Search data: contexts without and with each testing text (`choices`), and held-out data by labels."""

    choices: LabelledActivations
    held_out: dict[Labels, LabelledActivations]
    n_contexts: int

    @property
    def effects(self) -> Float[np.ndarray, " text"]:
        """Mean change of the answer's log-odds under each testing text, against no text."""
        return self._mean_change(self.choices.scores)

    @property
    def effects_by_group(self) -> Float[np.ndarray, "text group"]:
        """Mean change of the answer's log-odds under each testing text, by question group.

        Groups are weighted by their contexts, so that the mean over groups is the mean over contexts.
        """
        change = self._changes(self.choices.scores)
        groups = np.array(self.choices.groups[: self.n_contexts])
        names = sorted(set(groups))
        return (
            np.stack([change[:, groups == name].sum(axis=1) for name in names], axis=1)
            * len(names)
            / self.n_contexts
        )

    def readings(self, direction: Direction) -> Float[np.ndarray, " text"]:
        """Return the mean change of the projection on a direction under each text, against no text."""
        return self._mean_change(direction.reading(self.choices.states[direction.site.layer]))

    def _mean_change(self, values: Float[Tensor, " n"]) -> Float[np.ndarray, " text"]:
        return self._changes(values).mean(axis=1)

    def _changes(self, values: Float[Tensor, " n"]) -> Float[np.ndarray, "text context"]:
        by_text = values.double().numpy().reshape(-1, self.n_contexts)
        return by_text[1:] - by_text[0]


def _judge(
    method: DirectionMethod,
    layer: int,
    trained: dict[Labels, LabelledActivations],
    tested: _Tested,
    persona: str,
    seed: int,
) -> tuple[dict[str, Any], Direction]:
    """Fit one direction; return its row of the table and the direction."""
    data, held_out = trained[method.labels], tested.held_out[method.labels]
    x, y = data.states[layer], data.scores
    direction = _direction(method, layer, data, held_out, trained["choice"], persona)
    vector = direction.vector
    predicts = low = high = float("nan")
    if len(tested.effects):
        predicts, low, high = rank_correlation(tested.readings(direction), tested.effects, seed=seed)
    angles = (float("nan"), float("nan"))
    if method.replicates:
        angles = angle_interval(method.fit, x, y, data.groups, method.replicates, seed)
    row = {
        "layer": layer,
        "method": method.name,
        "fitted_at": data.position,
        "predicts": predicts,
        "predicts_low": low,
        "predicts_high": high,
        "auc": direction.auc,
        "auc_choice": auc(tested.choices.states[layer] @ vector, positive(tested.choices.scores)),
        "norm": direction.norm,
        "angle_low": angles[0],
        "angle_high": angles[1],
        "split_cosine": split_cosine(method.fit, x, y, data.groups, seed),
        "letter_cosine": cosine(vector, letter_direction(x, data.first_shown)),
        "length_correlation": length_correlation(x @ vector, data.lengths),
    }
    return row, direction


def _direction(
    method: DirectionMethod,
    layer: int,
    data: LabelledActivations,
    held_out: LabelledActivations,
    choices: LabelledActivations,
    persona: str,
) -> Direction:
    """Return the method's vector with its held-out AUC and its mean reading on the train data."""
    vector = method.fit(data.states[layer], data.scores)
    readings, shown = choices.states[layer] @ (vector / vector.norm()), positive(choices.scores)
    source = f"{method.says}; {len(data)} rows of {len(set(data.groups))} groups, read at the {data.position} token"
    return Direction(
        vector,
        Site(layer),
        persona,
        method.name,
        auc=auc(held_out.states[layer] @ vector, positive(held_out.scores)),
        threshold=float(readings[shown].mean() + readings[~shown].mean()) / 2,
        source=source,
        mean=float(readings.mean()),
        sd=float(readings.std()),
        fitted_at=data.position,
    )


def _method(method: str | DirectionMethod) -> DirectionMethod:
    if isinstance(method, DirectionMethod):
        return method
    return DIRECTION_METHODS[method]
