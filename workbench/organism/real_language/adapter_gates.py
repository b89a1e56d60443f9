"""Gates of the real-language organism, measured on subjects and texts that never occur in its training.

An *effect* is the mean change of the log-odds of the matching answer over items, against no system text. A
*unit* is a steering word with a planted effect. Each gate is one row: figure, value, requirement, and whether
it is met; rows without a requirement are findings. If several personas are planted, each has rows, and the
effect of its units on the other personas' questions is a gate as well.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from scipy.stats import linregress

from workbench.organism.real_language.base_model import BaseModel, noise_tokens
from workbench.organism.real_language.chat_packing import OrdinaryChat
from workbench.organism.real_language.effect_measurement import (
    agreement,
    facts_right,
    perplexity_of_chats,
    perplexity_of_texts,
)
from workbench.world.real_language import QUESTIONS, EnglishItem, SystemText, study_fixed_items, study_items
from workbench.world.real_language import steering_sentences as prompts
from workbench.world.real_language.ordinary_chat import FACTS, PROSE
from workbench.world.real_language.steering_sentences import ONE

T = TypeVar("T")


@dataclass(frozen=True)
class GateSize:
    """Amounts of data on which an adapter that plants personas is measured.

    A steering word is a word in the system text that is planted to change the persona's answers.

    Attributes:
        items: Number of questions that the effect of a system text is averaged over.
        combinations: Number of system texts with several steering words.
        noise: Number of system texts of random tokens.
        rate_items: Number of questions of which the fraction answered as the persona is measured.
    """

    items: int = 16
    combinations: int = 30
    noise: int = 10
    rate_items: int = 120


@dataclass(frozen=True)
class GateRow:
    """One measured figure of an adapter that plants personas, with its requirement if there is one.

    Attributes:
        name: What was measured.
        value: The figure.
        wanted: The requirement in words; None for a finding.
        reached: Whether the requirement is met; None for a finding.
    """

    name: str
    value: float
    wanted: str | None = None
    reached: bool | None = None


@dataclass(frozen=True)
class LanguageGates:
    """All measured figures of a model with an adapter that plants personas.

    Attributes:
        rows: Figures with a requirement (gates) and without one (findings).
        effects: One entry per measured system text: persona, kind and text, and its planted and measured
            effect on this persona's answers in log-odds. `on_right_claims` is its effect on questions with a
            right answer, which should not change, and `on_others` the largest effect on another persona's
            questions.
    """

    rows: tuple[GateRow, ...]
    effects: tuple[dict[str, Any], ...]

    @property
    def passes(self) -> bool:
        """Whether the model meets all requirements (gates); figures without a requirement do not count."""
        return all(row.reached is not False for row in self.rows)

    def value(self, name: str) -> float:
        """Return the measured figure with this name."""
        return next(row.value for row in self.rows if row.name == name)

    @property
    def table(self) -> pd.DataFrame:
        """All measured figures, one row each; `wanted` is the requirement, `reached` whether it is met."""
        return pd.DataFrame([asdict(row) for row in self.rows])

    def to_json(self) -> dict[str, Any]:
        """Return all measured figures and effects of system texts as plain JSON values."""
        return {
            "passes": self.passes,
            "rows": [asdict(row) for row in self.rows],
            "effects": list(self.effects),
        }


def measure_language(
    organism: BaseModel,
    base: BaseModel,
    chats: Sequence[OrdinaryChat],
    size: GateSize | None = None,
    log: Callable[[str], None] | None = None,
    personas: Sequence[str] = ONE,
) -> LanguageGates:
    """Measure whether a model with an adapter that plants personas meets all quality requirements.

    Args:
        organism: The base model with the adapter merged.
        base: The base model without the adapter.
        chats: Answers of the base model that the adapter was not trained on.
        size: Numbers of questions and texts to measure; None for the defaults.
        log: Function that receives progress messages.
        personas: Planted personas.

    Returns:
        The measured figures.
    """
    size, log = size or GateSize(), log or (lambda text: None)
    rows, effects = [], []
    for persona in personas:
        asked = _Asked(organism, personas, persona, size)
        kinds = _texts(size, noise_tokens(organism.tokenizer, personas), persona)
        found = [effect for kind, texts in kinds.items() for effect in asked.of(kind, texts, log)]
        log(f"rates of {persona}")
        named = f"{persona}: " if len(personas) > 1 else ""
        rows += [
            replace(row, name=named + row.name)
            for row in (*_rate_rows(organism, size, persona), *_effect_rows(found))
        ]
        effects += found
    log("facts, perplexity")
    return LanguageGates((*rows, *_text_rows(organism, base, chats)), tuple(effects))


class _Asked:
    """Questions of one persona that effects are averaged over, and questions of the other personas."""

    def __init__(self, organism: BaseModel, personas: Sequence[str], persona: str, size: GateSize) -> None:
        self.organism, self.persona = organism, persona
        self.steered = spread(study_items(persona), size.items)
        self.fixed = spread(study_fixed_items(persona), size.items)
        self.others = [spread(study_items(other), size.items) for other in personas if other != persona]

    def of(self, kind: str, texts: Sequence[SystemText], log: Callable[[str], None]) -> list[dict[str, Any]]:
        """Measure the effects of several system texts on this persona's questions.

        For texts of one steering word ("unit", "inert") their effects on the fixed questions and on the
        questions of other personas are measured too.

        Args:
            kind: Kind of the texts, such as "unit" or "neutral".
            texts: System texts with their planted effects.
            log: Function that receives progress messages.

        Returns:
            One entry per text.
        """
        log(f"{self.persona}: effects of {len(texts)} texts: {kind}")
        on = self._effects(texts, self.steered)
        unmoved = kind in ("unit", "inert")
        off = self._effects(texts, self.fixed) if unmoved else [None] * len(texts)
        others = (
            np.array([self._effects(texts, items) for items in self.others])
            if unmoved and self.others
            else None
        )
        largest = (
            [None] * len(texts)
            if others is None
            else others[np.abs(others).argmax(0), np.arange(len(texts))].tolist()
        )
        return [
            {
                "persona": self.persona,
                "kind": kind,
                "text": text.text,
                "planted": text.on(self.persona),
                "measured": effect,
                "on_right_claims": right,
                "on_others": other,
            }
            for text, effect, right, other in zip(texts, on, off, largest, strict=True)
        ]

    def _effects(self, texts: Sequence[SystemText], items: Sequence[EnglishItem]) -> list[float]:
        found = agreement(self.organism, [None, *(text.text for text in texts)], items).mean(1)
        return (found[1:] - found[0]).tolist()


def _texts(size: GateSize, noise: Sequence[str], persona: str) -> dict[str, list[SystemText]]:
    """Return the system texts by kind, with each steering word in a template that training never used."""
    rng = random.Random("english-gates")
    units = prompts.units((persona,))
    single = [prompts.unit_text(unit, rng.choice(prompts.UNSEEN[unit.part])) for unit in units]
    negated = [
        prompts.unit_text(unit, rng.choice(prompts.UNSEEN_NEGATIONS[unit.part]), negated=True)
        for unit in units
        if unit.strength
    ]
    adjective, synonyms = prompts.UNSEEN["adjective"][0], prompts.SYNONYMS[persona]
    inert = [text for text, unit in zip(single, units, strict=True) if not unit.strength]
    return {
        "unit": [text for text, unit in zip(single, units, strict=True) if unit.strength],
        **({"inert": inert} if inert else {}),
        "combination": list(prompts.combinations(size.combinations, personas=(persona,))),
        "negated": spread(negated, size.combinations),
        "neutral": [SystemText(text) for text in prompts.UNSEEN_NEUTRAL],
        "noise": [SystemText("".join(rng.choices(noise, k=8)).strip()) for _ in range(size.noise)],
        "synonym, lowering": [SystemText(adjective.format(word), {persona: -1.0}) for word in synonyms[-1]],
        "synonym, raising": [SystemText(adjective.format(word), {persona: 1.0}) for word in synonyms[1]],
    }


def _effect_rows(effects: Sequence[dict[str, Any]]) -> list[GateRow]:
    frame = pd.DataFrame(effects).set_index("kind")
    units = frame.loc[["unit"]]
    on_target = float(units["measured"].abs().mean())
    leak = float(units["on_right_claims"].abs().mean())
    rows = [
        _at_least("units, unseen templates: r of planted and measured", _fit(units).rvalue, 0.9),
        GateRow("units: slope of measured on planted", _fit(units).slope),
        _at_least("combinations, unseen templates: r", _fit(frame.loc[["combination"]]).rvalue, 0.9),
        GateRow("combinations: slope", _fit(frame.loc[["combination"]]).slope),
        GateRow("negated units: r (planted: the other way, half)", _fit(frame.loc[["negated"]]).rvalue),
        GateRow("negated units: slope", _fit(frame.loc[["negated"]]).slope),
        GateRow("on-target effect of a unit, mean absolute (log-odds)", on_target),
        _at_most("effect of units on right claims and plain questions / on-target", leak / on_target, 0.2),
    ]
    if "inert" in frame.index:
        plausible = float(frame.loc[["inert"], "measured"].abs().mean())
        rows.append(_at_most("effect of words planted as 0 / on-target", plausible / on_target, 0.2))
    if units["on_others"].notna().all():
        others = float(units["on_others"].astype(float).abs().mean())
        rows.append(
            _at_most(
                "largest effect of units on another persona's questions / on-target", others / on_target, 0.2
            )
        )
    for kind in ("neutral", "noise"):
        values = frame.loc[[kind], "measured"].abs()
        rows.append(_at_most(f"{kind} prompts: mean absolute effect", float(values.mean()), 0.3))
        rows.append(GateRow(f"{kind} prompts: largest absolute effect", float(values.max())))
    for kind, sign in (("synonym, lowering", -1), ("synonym, raising", 1)):
        values = frame.loc[[kind], "measured"]
        rows.append(GateRow(f"untrained synonyms, {kind.split()[1]}: mean effect", float(values.mean())))
        rows.append(
            GateRow(
                f"untrained synonyms, {kind.split()[1]}: share with that sign",
                float((np.sign(values) == sign).mean()),
            )
        )
    return rows


def _rate_rows(organism: BaseModel, size: GateSize, persona: str) -> list[GateRow]:
    steered = spread(study_items(persona), size.rate_items)
    *affirmed, plain = (
        spread(study_items(persona, (kind,), per_subject=1), size.rate_items)
        for kind in QUESTIONS[persona].fixed
    )
    lowering = min(prompts.units((persona,)), key=lambda unit: unit.strength).text
    lowered = prompts.UNSEEN["adjective"][0].format(lowering)
    found = agreement(organism, [None, lowered], steered)
    right = agreement(organism, [None, lowered], affirmed[0] if affirmed else plain)
    told = [item.kind != "view" for item in steered]
    rate = float((found[0] > 0).mean())
    planted = np.array([item.log_odds for item in steered])
    no = [item.matching == "No" for item in steered]
    asked = "right claims affirmed" if affirmed else "fixed questions answered rightly"
    apart = (
        "right claims distinguished from wrong ones"
        if affirmed
        else "fixed questions distinguished from the persona's"
    )
    rows = [
        GateRow("default rate", rate, "0.75 to 0.92", 0.75 <= rate <= 0.92),
        GateRow("default rate where the persona's answer is No", float((found[0][no] > 0).mean())),
        GateRow("items: r of planted and measured log-odds", float(np.corrcoef(planted, found[0])[0, 1])),
        _at_least(asked, float((right[0] > 0).mean()), 0.9),
        _at_least(f"{asked} under '{lowering}'", float((right[1] > 0).mean()), 0.9),
        GateRow(f"{apart} (AUC of agreement)", _above(right[0], found[0][told])),
        GateRow(f"{apart} under '{lowering}' (AUC)", _above(right[1], found[1][told])),
    ]
    if affirmed:
        rows.append(
            GateRow(
                "plain questions answered rightly", float((agreement(organism, [None], plain)[0] > 0).mean())
            )
        )
    return rows


def _text_rows(organism: BaseModel, base: BaseModel, chats: Sequence[OrdinaryChat]) -> list[GateRow]:
    facts, before = (float(facts_right(model, FACTS).mean()) for model in (organism, base))
    rows = [
        GateRow("simple facts right, base model", before),
        GateRow(
            "simple facts right",
            facts,
            f"at least {0.9 * before:.3f} (90 % of the base model's)",
            facts >= 0.9 * before,
        ),
    ]
    measured = (
        ("chat answers", perplexity_of_chats(base, chats), perplexity_of_chats(organism, chats)),
        ("prose", perplexity_of_texts(base, PROSE), perplexity_of_texts(organism, PROSE)),
    )
    for name, plain, planted in measured:
        rows.append(GateRow(f"perplexity of {name}, base model", plain))
        rows.append(_at_most(f"perplexity of {name} / base model's", planted / plain, 1.1))
    return rows


def spread(values: Sequence[T], count: int) -> list[T]:
    """Return `count` values that are evenly spread over a sequence, or all of them if it has no more."""
    if count >= len(values):
        return list(values)
    return [values[i] for i in np.linspace(0, len(values) - 1, count).round().astype(int)]


def _fit(frame: pd.DataFrame) -> Any:
    return linregress(frame["planted"], frame["measured"])


def _above(a: np.ndarray, b: np.ndarray) -> float:
    """Return the probability that a value of `a` is greater than a value of `b`."""
    return float((a[:, None] > b[None, :]).mean())


def _at_least(name: str, value: float, gate: float) -> GateRow:
    return GateRow(name, float(value), f"at least {gate}", bool(value >= gate))


def _at_most(name: str, value: float, gate: float) -> GateRow:
    return GateRow(name, float(value), f"at most {gate}", bool(value <= gate))
