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
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from workbench.contexts import Slot, encode_prompt, make_contexts
from workbench.directions import fit as fits
from workbench.directions.data import Labelled, answer_pairs, own_choices, responses
from workbench.directions.direction import Direction
from workbench.directions.quality import (
    angle_interval,
    auc,
    cosine,
    length_correlation,
    letter_direction,
    rank_correlation,
    split_cosine,
)
from workbench.display import html_table
from workbench.errors import UserError
from workbench.models import Runner, Site, runner_for
from workbench.personas import Split

Labels = Literal["answer", "choice", "choice_within", "response"]


@dataclass(frozen=True)
class Method:
    """A way to make a direction. labels: which data (`choice_within`: own choices, each item's mean taken off).
    replicates: bootstrap replicates of its angle that the sweep can afford."""

    name: str
    labels: Labels
    fit: fits.Fit
    says: str
    replicates: int = 50


METHODS: dict[str, Method] = {
    m.name: m
    for m in (
        Method("mean_difference", "answer", fits.mean_difference, "mean difference at the answer token, as published"),
        Method(
            "principal_difference",
            "answer",
            fits.principal_difference,
            "first principal direction of the answer pairs' differences",
            20,
        ),
        Method(
            "own_choice",
            "choice",
            fits.mean_difference,
            "mean difference at the decision token, split by the model's own choice",
        ),
        Method("own_choice_weighted", "choice", fits.weighted_difference, "own choice, weighted by log-odds"),
        Method(
            "own_choice_within",
            "choice_within",
            fits.weighted_difference,
            "own choice weighted by log-odds, within items",
        ),
        Method("logistic", "choice", fits.logistic_probe, "logistic probe of the model's own choice", 0),
        Method("whitened", "choice", fits.whitened_difference, "whitened mean difference of the model's own choice", 0),
        Method(
            "response_mean", "response", fits.mean_difference, "mean difference over response tokens (persona vectors)"
        ),
    )
}
DEFAULT_METHODS = ("mean_difference", "own_choice", "own_choice_within", "logistic", "whitened")


@dataclass(frozen=True, repr=False)
class Scan:
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

    def __repr__(self) -> str:
        return f"Scan(best {self.best!r})\n{self.table.head(10).to_string(index=False, float_format='{:.3f}'.format)}"

    def _repr_html_(self) -> str:
        return html_table(
            self.table,
            caption=f"Directions of {self.best.persona}: best first, by how well they predict what prompts do",
        )


def find_directions(
    model: Any,
    train: Split,
    search: Split,
    layers: Sequence[int] | None = None,
    methods: Sequence[str | Method] = DEFAULT_METHODS,
    n: int = 384,
    n_texts: int = 32,
    n_contexts: int = 24,
    slot: Slot = "system",
    seed: int = 0,
) -> Scan:
    """Sweep layers (None: all) and methods; see the module's text. Signs: plus = more of the persona.

    n: rows of train data for each way of labelling. n_texts: testing texts. n_contexts: search contexts under each of them.
    Raises UserError for an unknown method or layer, and where too few varied system texts are left to test on.
    """
    runner = runner_for(model)
    layers = (
        list(range(runner.shape.n_layers))
        if layers is None
        else sorted({Site(k).checked(runner.shape.n_layers).layer for k in layers})
    )
    chosen = [_method(m) for m in methods]
    if not chosen or not layers:
        raise UserError("a sweep needs at least one layer and one method")
    fitting, testing = deal_texts(train.persona.varied_system_texts, n_texts, seed)
    trained = _train_data(runner, train, layers, {m.labels for m in chosen} | {"choice"}, fitting, slot, n, seed)
    tested = _search_data(runner, search, layers, {m.labels for m in chosen}, testing, slot, n_contexts, seed)
    rows, directions = [], {}
    for layer in layers:
        for method in chosen:
            row, direction = _judge(method, layer, trained, tested, train.persona.name, seed)
            rows.append(row)
            directions[layer, method.name] = direction
    table = pd.DataFrame(rows)
    order = np.argsort(-table["predicts"].fillna(-np.inf).to_numpy(), kind="stable")
    table = table.iloc[order].reset_index(drop=True)
    best = directions[int(table["layer"][0]), str(table["method"][0])]
    effects = pd.DataFrame({"text": testing, "effect": tested.effects, "reading": tested.readings(best)})
    return Scan(table, directions, effects, trained["choice"].states[best.site.layer])


def deal_texts(texts: Sequence[str], n_testing: int, seed: int) -> tuple[list[str], list[str]]:
    """Distinct texts dealt by seed into (fitting, testing): at most half and at most n_testing go to testing."""
    distinct = list(dict.fromkeys(text.strip() for text in texts if text.strip()))
    if len(distinct) < 8:
        raise UserError(
            f"the persona has {len(distinct)} varied system texts: at least 8 are needed, half to fit and half to test on"
        )
    order = np.random.default_rng(seed).permutation(len(distinct))
    n_testing = min(n_testing, len(distinct) // 2)
    return [distinct[i] for i in order[n_testing:]], [distinct[i] for i in order[:n_testing]]


@dataclass(frozen=True)
class _Tested:
    """Search data. choices: all testing texts over the same contexts, text by text, no prompt first; pairs: held-out data of
    the other kinds."""

    choices: Labelled
    pairs: dict[str, Labelled]
    n_contexts: int

    @property
    def effects(self) -> np.ndarray:
        """Mean change of log-odds of each testing text."""
        scores = self.choices.scores.double().numpy().reshape(-1, self.n_contexts)
        return (scores[1:] - scores[0]).mean(axis=1)

    def readings(self, direction: Direction) -> np.ndarray:
        """Mean change of the direction's reading under each testing text."""
        readings = (
            direction.reading(self.choices.states[direction.site.layer]).double().numpy().reshape(-1, self.n_contexts)
        )
        return (readings[1:] - readings[0]).mean(axis=1)


def own_choice_data(
    runner: Runner, split: Split, layers: Sequence[int], texts: Sequence[str], slot: Slot, n: int, seed: int
) -> Labelled:
    """About n rows: items of the split in turn, all option orders, each item under a text drawn by seed (or under none)."""
    contexts = make_contexts(runner, split, slot=slot, seed=seed)
    prompts = [None, *(encode_prompt(runner, contexts, text) for text in texts)]
    rng = np.random.default_rng(seed)
    by_item: dict[str, list[int]] = {}
    for i, context in enumerate(contexts):
        by_item.setdefault(context.item.id, []).append(i)
    items, rows = list(by_item.values()), []
    while len(rows) < n:
        for k in rng.permutation(len(items)):
            drawn = prompts[rng.integers(len(prompts))]
            rows.extend((i, drawn) for i in items[k])
    return own_choices(runner, [contexts[i] for i, _ in rows[:n]], [p for _, p in rows[:n]], layers)


def _train_data(
    runner: Runner,
    train: Split,
    layers: Sequence[int],
    kinds: set[str],
    texts: Sequence[str],
    slot: Slot,
    n: int,
    seed: int,
) -> dict[str, Labelled]:
    data = {
        "choice": own_choice_data(runner, train, layers, texts, slot, n, seed),
        **_pairs(runner, train, layers, kinds, slot, n, seed),
    }
    if "choice_within" in kinds:
        data["choice_within"] = _within(data["choice"])
    return data


def _search_data(
    runner: Runner,
    search: Split,
    layers: Sequence[int],
    kinds: set[str],
    texts: Sequence[str],
    slot: Slot,
    n: int,
    seed: int,
) -> _Tested:
    contexts = make_contexts(runner, search, slot=slot, n=max(1, n // 2), seed=seed)
    prompts = [None, *(encode_prompt(runner, contexts, text) for text in texts)]
    choices = own_choices(runner, [*contexts] * len(prompts), [p for p in prompts for _ in contexts], layers)
    pairs = _pairs(runner, search, layers, kinds, slot, 256, seed)
    return _Tested(choices, {"choice": choices, "choice_within": choices, **pairs}, len(contexts))


def _pairs(
    runner: Runner, split: Split, layers: Sequence[int], kinds: set[str], slot: Slot, n: int, seed: int
) -> dict[str, Labelled]:
    data = {}
    if "answer" in kinds:
        contexts = make_contexts(runner, split, slot=slot, n=max(1, n // 4), seed=seed)
        data["answer"] = answer_pairs(runner, contexts, layers)
    if "response" in kinds:
        data["response"] = responses(runner, split.take(max(1, n // 2), seed), layers)
    return data


def _within(data: Labelled) -> Labelled:
    """The same rows with each item's mean state and mean score taken off."""
    states = {layer: fits.centred_by(x, data.item_ids) for layer, x in data.states.items()}
    scores = fits.centred_by(data.scores[:, None], data.item_ids)[:, 0]
    return Labelled(states, scores, data.groups, data.item_ids, data.lengths, data.first_shown, data.position)


def _judge(
    method: Method, layer: int, trained: dict[str, Labelled], tested: _Tested, persona: str, seed: int
) -> tuple[dict[str, Any], Direction]:
    """One direction, and its row of the table."""
    data, held_out = trained[method.labels], tested.pairs[method.labels]
    x, y = data.states[layer], data.scores
    vector = method.fit(x, y)
    at_decision = trained["choice"].states[layer] @ (vector / vector.norm())
    shown = fits.positive(trained["choice"].scores)
    held_out_auc = auc(held_out.states[layer] @ vector, fits.positive(held_out.scores))
    direction = Direction(
        vector,
        Site(layer),
        persona,
        method.name,
        held_out_auc,
        float(at_decision[shown].mean() + at_decision[~shown].mean()) / 2,
        f"{method.says}; {len(data)} rows of {len(set(data.groups))} groups, seed {seed}",
        float(at_decision.mean()),
        float(at_decision.std()),
        data.position,
    )
    predicts, low, high = rank_correlation(tested.readings(direction), tested.effects, seed=seed)
    angles = (
        angle_interval(method.fit, x, y, data.groups, method.replicates, seed)
        if method.replicates
        else (float("nan"), float("nan"))
    )
    row = {
        "layer": layer, "method": method.name, "fitted_at": data.position, "predicts": predicts, "predicts_low": low, "predicts_high": high,
        "auc": held_out_auc, "auc_choice": auc(tested.choices.states[layer] @ vector, fits.positive(tested.choices.scores)),
        "norm": direction.norm, "angle_low": angles[0], "angle_high": angles[1],
        "split_cosine": split_cosine(method.fit, x, y, data.groups, seed),
        "letter_cosine": cosine(vector, letter_direction(x, data.first_shown)), "length_correlation": length_correlation(x @ vector, data.lengths),
    }  # fmt: skip
    return row, direction


def _method(method: str | Method) -> Method:
    if isinstance(method, Method):
        return method
    if method not in METHODS:
        raise UserError(f"unknown method {method!r}: expected one of {', '.join(METHODS)}")
    return METHODS[method]
