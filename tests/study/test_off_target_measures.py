"""Off-target measures of a study: their contexts are made once, and their figures are those of contexts made anew."""

from __future__ import annotations

from typing import Any

import pytest

import workbench as wb
from tests.support.tiny_study import TINY
from workbench.comparison import agreement_with_truth, other_persona_rates
from workbench.study import off_target_measures as module
from workbench.study.material import Material
from workbench.study.off_target_measures import off_target_measures


def test_contexts_are_made_once_for_all_conditions(organism: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    material, made = Material.load(TINY, organism), []
    for name in ("make_contexts", "true_contexts"):
        own = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *given, own=own: (made.append(given[1].name), own(*given))[1]
        )
    measures = off_target_measures(material)
    conditions = [wb.NoPrompt(), wb.Prompt("honest evidence heavy snow"), wb.Prompt("kindly agree")]
    figures = {
        name: [measure(organism, condition) for condition in conditions] for name, measure in measures.items()
    }
    others = [name for name in measures if name.endswith("_log_odds")]
    assert len(others) >= 2 and len(made) == len(others) + 1, "one set of contexts each, and true statements"
    n = TINY.collateral.items
    for condition, found in zip(conditions, figures["agreement_with_true_statements"], strict=True):
        wanted = agreement_with_truth(organism, condition, material.splits.test, TINY.slot, n)
        assert found.figure == wanted.rate
    persona = others[0].removesuffix("_log_odds")
    split = wb.load_persona(persona).split(TINY.data.split_seed, TINY.data.fractions).test
    for condition, found in zip(conditions, figures[others[0]], strict=True):
        wanted = other_persona_rates(
            organism, condition, {"": split.take(n, TINY.data.split_seed)}, TINY.slot
        )[""]
        assert found.figure == wanted.log_odds.mean()
    assert len({found.figure for found in figures[others[0]]}) == 3, "conditions differ"
