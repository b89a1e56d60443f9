"""The gates of the real-language organism, measured on topics, templates and texts that no training step has seen.

An *effect* is the mean change of the log-odds of the matching answer over items, against no system text. Every gate is one
row: what was measured, what was wanted, whether it is reached. Rows without a wanted value are findings.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import linregress

from workbench.organism.language.base import Base, noise_tokens
from workbench.organism.language.measure import agreement, facts_right, perplexity_of_chats, perplexity_of_texts
from workbench.organism.language.packing import Chat
from workbench.world.english import prompts
from workbench.world.english.chat import FACTS, PROSE
from workbench.world.english.items import EnglishItem, study_items
from workbench.world.english.prompts import SystemText

T = TypeVar("T")


@dataclass(frozen=True)
class Size:
    """How much is measured: items an effect is averaged over, combinations, noise prompts, items for rates."""

    items: int = 16
    combinations: int = 30
    noise: int = 10
    rate_items: int = 120


@dataclass(frozen=True)
class GateRow:
    """One figure. wanted: the gate in words, None for a finding; reached: None for a finding."""

    name: str
    value: float
    wanted: str | None = None
    reached: bool | None = None


@dataclass(frozen=True)
class LanguageGates:
    """All rows, and the effect of every text that was measured (kind, text, planted, measured, on_right_claims)."""

    rows: tuple[GateRow, ...]
    effects: tuple[dict[str, Any], ...]

    @property
    def passes(self) -> bool:
        """Every gate is reached."""
        return all(row.reached is not False for row in self.rows)

    def value(self, name: str) -> float:
        """The figure of a row."""
        return next(row.value for row in self.rows if row.name == name)

    @property
    def table(self) -> pd.DataFrame:
        """One line a row: figure, value, wanted, reached."""
        return pd.DataFrame([asdict(row) for row in self.rows])

    def to_json(self) -> dict[str, Any]:
        """Rows and effects as plain values."""
        return {"passes": self.passes, "rows": [asdict(row) for row in self.rows], "effects": list(self.effects)}


def measure_language(
    organism: Base, base: Base, chats: Sequence[Chat], size: Size | None = None, log: Callable[[str], None] | None = None
) -> LanguageGates:
    """Every gate of an organism; base: the model without the adapter, chats: its own answers, not trained on."""
    size, log = size or Size(), log or (lambda text: None)
    steered = spread(study_items(), size.items)
    fixed = spread(study_items(("true", "plain"), per_topic=1), size.items)
    kinds = _texts(size, noise_tokens(organism.tokenizer))
    before = agreement(organism, [None], steered).mean(), agreement(organism, [None], fixed).mean()
    effects: list[dict[str, Any]] = []
    for kind, texts in kinds.items():
        log(f"effects of {len(texts)} texts: {kind}")
        on = agreement(organism, [text.text for text in texts], steered).mean(1) - before[0]
        asked = fixed if kind in ("unit", "inert") else []
        off = agreement(organism, [text.text for text in texts], asked).mean(1) - before[1] if asked else np.full(len(texts), np.nan)
        for text, effect, other in zip(texts, on, off, strict=True):
            right = None if np.isnan(other) else float(other)
            effects.append({"kind": kind, "text": text.text, "planted": text.effect, "measured": float(effect), "on_right_claims": right})
    log("rates, facts, perplexity")
    return LanguageGates((*_rate_rows(organism, size), *_effect_rows(effects), *_text_rows(organism, base, chats)), tuple(effects))


def _texts(size: Size, noise: Sequence[str]) -> dict[str, list[SystemText]]:
    """The texts by kind; units stand in an unseen template each."""
    rng = random.Random("english-gates")
    units = prompts.units()
    single = [prompts.unit_text(unit, rng.choice(prompts.UNSEEN[unit.part])) for unit in units]
    negated = [prompts.unit_text(unit, rng.choice(prompts.UNSEEN_NEGATIONS[unit.part]), negated=True) for unit in units if unit.strength]
    adjective = prompts.UNSEEN["adjective"][0]
    return {
        "unit": [text for text, unit in zip(single, units, strict=True) if unit.strength],
        "inert": [text for text, unit in zip(single, units, strict=True) if not unit.strength],
        "combination": list(prompts.combinations(size.combinations)),
        "negated": spread(negated, size.combinations),
        "neutral": [SystemText(text, 0.0) for text in prompts.UNSEEN_NEUTRAL],
        "noise": [SystemText("".join(rng.choices(noise, k=8)).strip(), 0.0) for _ in range(size.noise)],
        "synonym, lowering": [SystemText(adjective.format(word), -1.0) for word in prompts.SYNONYMS[-1]],
        "synonym, raising": [SystemText(adjective.format(word), 1.0) for word in prompts.SYNONYMS[1]],
    }


def _effect_rows(effects: Sequence[dict[str, Any]]) -> list[GateRow]:
    frame = pd.DataFrame(effects).set_index("kind")
    units, inert = frame.loc[["unit"]], frame.loc[["inert"]]
    on_target = float(units["measured"].abs().mean())
    plausible, leak = float(inert["measured"].abs().mean()), float(units["on_right_claims"].abs().mean())
    rows = [
        _at_least("units, unseen templates: r of planted and measured", _fit(units).rvalue, 0.9),
        GateRow("units: slope of measured on planted", _fit(units).slope),
        _at_least("combinations, unseen templates: r", _fit(frame.loc[["combination"]]).rvalue, 0.9),
        GateRow("combinations: slope", _fit(frame.loc[["combination"]]).slope),
        GateRow("negated units: r (planted: the other way, half)", _fit(frame.loc[["negated"]]).rvalue),
        GateRow("negated units: slope", _fit(frame.loc[["negated"]]).slope),
        GateRow("on-target effect of a unit, mean absolute (log-odds)", on_target),
        _at_most("effect of units on right claims and plain questions / on-target", leak / on_target, 0.2),
        _at_most("effect of words planted as 0 / on-target", plausible / on_target, 0.2),
    ]
    for kind in ("neutral", "noise"):
        values = frame.loc[[kind], "measured"].abs()
        rows.append(_at_most(f"{kind} prompts: mean absolute effect", float(values.mean()), 0.3))
        rows.append(GateRow(f"{kind} prompts: largest absolute effect", float(values.max())))
    for kind, sign in (("synonym, lowering", -1), ("synonym, raising", 1)):
        values = frame.loc[[kind], "measured"]
        rows.append(GateRow(f"untrained synonyms, {kind.split()[1]}: mean effect", float(values.mean())))
        rows.append(GateRow(f"untrained synonyms, {kind.split()[1]}: share with that sign", float((np.sign(values) == sign).mean())))
    return rows


def _rate_rows(organism: Base, size: Size) -> list[GateRow]:
    steered = spread(study_items(), size.rate_items)
    true, plain = (spread(study_items((kind,), per_topic=1), size.rate_items) for kind in ("true", "plain"))
    found = agreement(organism, [None], steered)[0]
    right = agreement(organism, [None, prompts.UNSEEN["adjective"][0].format("blunt")], true)
    false = found[[item.kind == "false" for item in steered]]
    rate = float((found > 0).mean())
    planted = np.array([item.log_odds for item in steered])
    no = [item.matching == "No" for item in steered]
    return [
        GateRow("default rate", rate, "0.75 to 0.92", 0.75 <= rate <= 0.92),
        GateRow("default rate where the persona's answer is No", float((found[no] > 0).mean())),
        GateRow("items: r of planted and measured log-odds", float(np.corrcoef(planted, found)[0, 1])),
        _at_least("right claims affirmed", float((right[0] > 0).mean()), 0.9),
        _at_least("right claims affirmed under 'blunt'", float((right[1] > 0).mean()), 0.9),
        GateRow("right claims told from wrong ones (AUC of agreement)", float(_above(right[0], false))),
        GateRow("right claims told from wrong ones under 'blunt' (AUC)", _told_apart(organism, steered, right[1])),
        GateRow("plain questions answered rightly", float((agreement(organism, [None], plain)[0] > 0).mean())),
    ]


def _told_apart(organism: Base, steered: Sequence[EnglishItem], right: Float[np.ndarray, " item"]) -> float:
    false = [item for item in steered if item.kind == "false"]
    return _above(right, agreement(organism, [prompts.UNSEEN["adjective"][0].format("blunt")], false)[0])


def _text_rows(organism: Base, base: Base, chats: Sequence[Chat]) -> list[GateRow]:
    facts, before = (float(facts_right(model, FACTS).mean()) for model in (organism, base))
    rows = [
        GateRow("simple facts right, base model", before),
        GateRow("simple facts right", facts, f"at least {0.9 * before:.3f} (90 % of the base model's)", facts >= 0.9 * before),
    ]
    for name, figure, texts in (("chat answers", perplexity_of_chats, chats), ("prose", perplexity_of_texts, PROSE)):
        plain = figure(base, texts)
        rows.append(GateRow(f"perplexity of {name}, base model", plain))
        rows.append(_at_most(f"perplexity of {name} / base model's", figure(organism, texts) / plain, 1.1))
    return rows


def spread(values: Sequence[T], count: int) -> list[T]:
    """`count` values evenly spread over all (all of them when there are fewer)."""
    if count >= len(values):
        return list(values)
    return [values[i] for i in np.linspace(0, len(values) - 1, count).round().astype(int)]


def _fit(frame: pd.DataFrame) -> Any:
    return linregress(frame["planted"], frame["measured"])


def _above(a: np.ndarray, b: np.ndarray) -> float:
    """Probability that a value of a is above one of b."""
    return float((a[:, None] > b[None, :]).mean())


def _at_least(name: str, value: float, gate: float) -> GateRow:
    return GateRow(name, float(value), f"at least {gate}", bool(value >= gate))


def _at_most(name: str, value: float, gate: float) -> GateRow:
    return GateRow(name, float(value), f"at most {gate}", bool(value <= gate))
