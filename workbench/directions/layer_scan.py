"""The sweep over layers and methods: which direction predicts what prompts do?

A direction that reads an answer out is not one that decides it (REFERENCES: the mean difference at the answer token had the
wrong sign twice on a small organism). So a site is chosen by prediction, on data that made no direction:

1. The persona's varied system texts are dealt, by seed, into texts for fitting and texts for testing.
2. Train data are labelled in the ways that the methods ask for (data.py): answer pairs, own choices under the fitting texts,
   responses; every method gives one vector per layer (fit.py).
3. On the search split, each testing text is put before the same contexts; its effect is the mean change of the answer's
   log-odds against no prompt, its reading the mean change of x . unit at the decision token.
4. `predicts` is Spearman's correlation of readings and effects over the testing texts; the best pair of layer and method has
   the highest (ties: the lower layer, then the earlier method). It is the best of many, so a little too good: the interval
   beside it is a bootstrap over texts, and does not know of the choice.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from workbench.errors import UserError
from workbench.html_text import html_table
from workbench.models import Site, runner_for
from workbench.personas import Split
from workbench.schema import DirectionFile, LayerEntry, PromptEffectEntry


@dataclass(frozen=True, repr=False)
class LayerScan:
    """Result of the sweep. table: one row a layer and method, best first. directions: by (layer, method). effects: one row a
    testing text: text, effect (mean change of log-odds), reading (change along the best direction). activations: train states
    at the decision token of the best layer [n, d_model], for controls with their covariance."""

    table: pd.DataFrame
    directions: dict[tuple[int, str], Direction]
    effects: pd.DataFrame
    activations: Float[Tensor, "n d_model"]

    @property
    def best(self) -> Direction:
        """The direction whose reading predicts the effect of prompts best."""
        return self[int(self.table["layer"].iloc[0]), str(self.table["method"].iloc[0])]

    def __getitem__(self, key: tuple[int, str]) -> Direction:
        if key not in self.directions:
            layers, methods = (sorted({k[i] for k in self.directions}) for i in (0, 1))
            raise UserError(f"no direction for layer and method {key}: layers are {layers}, methods {methods}")
        return self.directions[key]

    def cosines(self, layer: int | None = None) -> pd.DataFrame:
        """Cosines between the methods' directions at one layer (the best one's when None)."""
        layer = self.best.site.layer if layer is None else layer
        found = {method: d.vector for (at, method), d in self.directions.items() if at == layer}
        return pd.DataFrame(
            [[cosine(a, b) for b in found.values()] for a in found.values()], index=list(found), columns=list(found)
        )

    def to_file(self) -> DirectionFile:
        """direction.json: the chosen direction and the whole sweep."""
        best = self.best
        return DirectionFile(
            site=best.site.name,
            position=best.site.position,
            method=best.method,
            norm=best.norm,
            auc=best.auc,
            predicts=self.table["predicts"].iloc[0],
            source=best.source,
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


def find_directions(
    model: Any, train: Split | LabelledCache, search: Split | LabelledCache, layers: Sequence[int] | None = None,
    methods: Sequence[str | DirectionMethod] | None = None,
    n: int = 384, n_texts: int = TESTING_TEXTS, n_contexts: int = 24, slot: Slot = "system", seed: int = 0,
    orders: Orders = "both",
) -> LayerScan:  # fmt: skip
    """Sweep layers (None: all) and methods; see the module's text. Signs: plus = more of the persona.

    train, search: splits, whose questions the model is run on, or activations that you already have (`LabelledCache`). Labelled caches
    as train data are what every method is fitted to. As search data they have no testing texts: `predicts` is nan then, and the best
    direction is the one of the highest AUC on them.
    n: rows of train data for each way of labelling. n_texts: testing texts. n_contexts: search contexts under each of them.
    orders: in which options are shown; with "original" the letter does not cancel.
    Raises UserError for an unknown method or layer, and where too few varied system texts are left to test on.
    """
    runner = runner_for(model)
    cached = [given for given in (train, search) if isinstance(given, LabelledCache)]
    top = runner.shape.n_layers
    wanted = set(range(top)).intersection(*(given.layers(top) for given in cached)) if layers is None else layers
    layers = sorted({Site(k).checked(top).layer for k in wanted})
    chosen = [_method(m) for m in (_default_methods(cached) if methods is None else methods)]
    if not chosen or not layers:
        raise UserError("a sweep needs at least one layer and one method")
    fitting, testing = _texts(train, search, n_texts, seed)
    draw, kinds = ActivationSampler(runner, layers, slot, seed, orders), {m.labels for m in chosen}
    trained = {kind: _labelled(draw, train, kind, n, fitting) for kind in kinds | {"choice"}}
    if isinstance(search, LabelledCache):
        testing = []
    tested = _search_data(draw, search, kinds, testing, n_contexts)
    persona = train.persona if isinstance(train, LabelledCache) else train.persona.name
    found = {(layer, m.name): _judge(m, layer, trained, tested, persona, seed) for layer in layers for m in chosen}
    table = pd.DataFrame([row for row, _ in found.values()])
    order = np.argsort(-table["predicts" if testing else "auc"].fillna(-np.inf).to_numpy(), kind="stable")
    table = table.iloc[order].reset_index(drop=True)
    directions = {key: direction for key, (_, direction) in found.items()}
    best = directions[int(table["layer"][0]), str(table["method"][0])]
    effects = pd.DataFrame({"text": testing, "effect": tested.effects, "reading": tested.readings(best)})
    return LayerScan(table, directions, effects, trained["choice"].states[best.site.layer])


def _default_methods(cached: Sequence[LabelledCache]) -> Sequence[str]:
    """The default ones; those that compare within contexts only where cached rows name their contexts."""
    named = all(given.contexts is not None for given in cached)
    return [name for name in default_methods() if named or DIRECTION_METHODS[name].labels != "choice_within"]


def _texts(train: Split | LabelledCache, search: Split | LabelledCache, n_texts: int, seed: int) -> tuple[list[str], list[str]]:
    """(fitting, testing) system texts of the persona that is drawn from; none where both are cached."""
    split = next((given for given in (train, search) if not isinstance(given, LabelledCache)), None)
    return ([], []) if split is None else deal_texts(split.persona.varied_system_texts, n_texts, seed)


def _labelled(draw: ActivationSampler, train: Split | LabelledCache, kind: Labels, n: int, fitting: Sequence[str]) -> LabelledActivations:
    if isinstance(train, LabelledCache):
        return train.activations(draw.layers, kind)
    return draw.labelled(train, kind, n, fitting)


@dataclass(frozen=True)
class _Tested:
    """Search data. choices: bare contexts, then the same under each testing text; held_out: data of each kind of labels."""

    choices: LabelledActivations
    held_out: dict[str, LabelledActivations]
    n_contexts: int

    @property
    def effects(self) -> Float[np.ndarray, " text"]:
        """Mean change of log-odds of each testing text against no text."""
        return self._mean_change(self.choices.scores)

    def readings(self, direction: Direction) -> Float[np.ndarray, " text"]:
        """Mean change of the direction's reading under each testing text."""
        return self._mean_change(direction.reading(self.choices.states[direction.site.layer]))

    def _mean_change(self, values: Float[Tensor, " n"]) -> Float[np.ndarray, " text"]:
        by_text = values.double().numpy().reshape(-1, self.n_contexts)
        return (by_text[1:] - by_text[0]).mean(axis=1)


def _search_data(
    draw: ActivationSampler, search: Split | LabelledCache, kinds: set[Labels], testing: Sequence[str], n_contexts: int
) -> _Tested:
    if isinstance(search, LabelledCache):
        rows = search.activations(draw.layers)
        return _Tested(rows, dict.fromkeys(kinds, rows), len(rows))
    choices = draw.under_each(search, testing, n_contexts)
    pairs = {kind: draw.labelled(search, kind, 256) for kind in kinds & {"answer", "response"}}
    return _Tested(choices, {"choice": choices, "choice_within": choices, **pairs}, len(choices) // (len(testing) + 1))


def _judge(
    method: DirectionMethod, layer: int, trained: dict[Labels, LabelledActivations], tested: _Tested, persona: str, seed: int
) -> tuple[dict[str, Any], Direction]:
    """One direction, and its row of the table."""
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
        "layer": layer, "method": method.name, "fitted_at": data.position,
        "predicts": predicts, "predicts_low": low, "predicts_high": high, "auc": direction.auc,
        "auc_choice": auc(tested.choices.states[layer] @ vector, positive(tested.choices.scores)),
        "norm": direction.norm, "angle_low": angles[0], "angle_high": angles[1],
        "split_cosine": split_cosine(method.fit, x, y, data.groups, seed),
        "letter_cosine": cosine(vector, letter_direction(x, data.first_shown)),
        "length_correlation": length_correlation(x @ vector, data.lengths),
    }  # fmt: skip
    return row, direction


def _direction(
    method: DirectionMethod, layer: int, data: LabelledActivations, held_out: LabelledActivations, choices: LabelledActivations, persona: str
) -> Direction:
    """The method's vector with its held-out AUC, and what it reads at the decision tokens of the train data."""
    vector = method.fit(data.states[layer], data.scores)
    readings, shown = choices.states[layer] @ (vector / vector.norm()), positive(choices.scores)
    source = f"{method.says}; {len(data)} rows of {len(set(data.groups))} groups, read at the {data.position} token"
    return Direction(
        vector, Site(layer), persona, method.name,
        auc=auc(held_out.states[layer] @ vector, positive(held_out.scores)),
        threshold=float(readings[shown].mean() + readings[~shown].mean()) / 2,
        source=source, mean=float(readings.mean()), sd=float(readings.std()), fitted_at=data.position,
    )  # fmt: skip


def _method(method: str | DirectionMethod) -> DirectionMethod:
    if isinstance(method, DirectionMethod):
        return method
    return DIRECTION_METHODS[method]
