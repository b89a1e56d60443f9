"""Off-target effects of each condition, which are the values of `collateral` in comparison.json.

1. Agreement with true statements, if the persona has any.
2. Other personas: those named in the setting `beside` on all their test questions, and on the organism the
   others of its world on some questions.
3. Cross-entropy of text that is unrelated to the persona.
4. Capability, if the study names a file of A/B questions with a correct option.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from workbench.comparison import OffTargetAnswers, OffTargetMeasures, unrelated_text
from workbench.conditions import Condition, true_contexts
from workbench.contexts import Contexts, Slot, make_contexts
from workbench.errors import UserError
from workbench.forced_choice import Answers
from workbench.personas import Split, load_persona
from workbench.runs import read_text
from workbench.study.material import Material
from workbench.world import World
from workbench.world.real_language.ordinary_chat import PROSE
from workbench.world.training_corpus import training_rows

#: Number of statements of the organism's world that are used as unrelated text.
_STATEMENTS = 20

Measure = Callable[[Any, Condition], OffTargetAnswers]


def off_target_measures(material: Material) -> OffTargetMeasures:
    """Return the functions that measure side effects in a study, by their names in comparison.json.

    Each takes the model and a condition (a prompt or intervention) and measures one side effect, such as on
    agreement with true statements. Files that the study names are read immediately.

    Args:
        material: Model, persona, questions and settings of the study.

    Raises:
        UserError: A file is missing, empty or malformed.
    """
    study, test = material.study, material.splits.test
    n, slot = study.collateral.items, study.slot
    found: dict[str, Measure] = {}
    if material.persona.true_items:
        statements = cache(lambda: true_contexts(material.model, test, slot, n))
        found["agreement_with_true_statements"] = lambda model, c: _rate(
            c.answer(model, statements()), "true statements"
        )
    for name, split in {
        **_others(material),
        **{other.persona.name: other.splits.test for other in material.others()},
    }.items():
        found[f"{name}_log_odds"] = _log_odds(_made_once(material.model, split, slot))
    texts = _texts(material)
    found["unrelated_text_nats"] = lambda model, c: unrelated_text(model, c, texts, slot)
    if study.collateral.capability is not None:
        persona = load_persona(study.collateral.capability)
        questions = Split("capability", persona.items, persona).take(n, study.seed)
        contexts = make_contexts(material.model, questions, slot, orders="both")
        found["capability"] = lambda model, c: _rate(c.answer(model, contexts), "capability")
    return found


def _others(material: Material) -> Mapping[str, Split]:
    """Return a few test questions of each other persona of the organism's world; nothing on other models."""
    study = material.study
    if not _of_the_organism(material):
        return {}
    names = [name for name in World().personas if name != material.persona.name]
    splits = {
        name: load_persona(name, world_seed=study.data.world)
        .split(study.data.split_seed, study.data.fractions)
        .test
        for name in names
    }
    return {name: split.take(study.collateral.items, study.data.split_seed) for name, split in splits.items()}


def _texts(material: Material) -> tuple[str, ...]:
    """Return the unrelated texts: the lines of the study's file, or else built-in prose.

    On the organism they are statements of its world instead of prose.
    """
    study = material.study
    if study.collateral.texts is not None:
        lines = tuple(
            line.strip() for line in read_text(Path(study.collateral.texts)).splitlines() if line.strip()
        )
        if not lines:
            raise UserError(f"{study.collateral.texts}: expected a text a line, found none")
        return lines
    if not _of_the_organism(material):
        return PROSE
    rows = training_rows(World(study.data.world), "unrelated", items_per_row=2, statement_share=1.0)
    return tuple(islice((text for row in rows for text in row.statements), _STATEMENTS))


def _of_the_organism(material: Material) -> bool:
    return material.study.data.path is None and material.persona.name in World().personas


def _rate(answers: Answers, part: str) -> OffTargetAnswers:
    return OffTargetAnswers.of(answers, part, answers.rate)


def _made_once(model: Any, split: Split, slot: Slot) -> Callable[[], Contexts]:
    """Return a function that makes the split's contexts once: they are the same for every condition."""
    return cache(lambda: make_contexts(model, split, slot))


def _log_odds(contexts: Callable[[], Contexts]) -> Measure:
    """Return the measure of a condition's effect on another persona: mean log-odds on questions about it."""

    def measure(model: Any, condition: Condition) -> OffTargetAnswers:
        answers = condition.answer(model, contexts())
        return OffTargetAnswers.of(answers, "other personas", float(answers.log_odds.mean()))

    return measure
