"""`why_not_tested`: what a plan says, against the scan that a study then makes, and against counts by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

import workbench as wb
from tests.support.paths import ROOT
from workbench.study import Study
from workbench.study.cost_estimate import plan
from workbench.study.direction_test_size import why_not_tested
from workbench.study.material import Material
from workbench.study.stages.directions import scan
from workbench.study.study_presets import demo_study


def _with(study: Study, **settings: int) -> Study:
    return study.model_copy(update={"directions": study.directions.model_copy(update=settings)})


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"contexts": 12, "texts": 6}, None),
        ({"contexts": 4, "texts": 6}, "4 question groups (directions.contexts: 4)"),
        ({"contexts": 12, "texts": 4}, "4 system texts (directions.texts)"),
    ],
)
def test_a_plan_says_what_the_scan_of_the_study_finds(organism, settings, named):
    study = _with(demo_study(), rows=32, layers=(1,), methods=("mean_difference",), **settings)
    material = Material.load(study, organism)
    said = why_not_tested(study, material.persona)
    assert (said is None) == (scan(material).shown is not None)
    assert said is None if named is None else said is not None and said.endswith(f"here are {named}")


@pytest.mark.parametrize(("contexts", "groups"), [(5, 3), (8, 4), (9, None)])
def test_contexts_in_balanced_pairs_are_of_half_as_many_groups(contexts, groups):
    """Of a suggested answer, the two questions of a fact are drawn together: 5 contexts are 2 pairs and half of a third."""
    study = Study.load(ROOT / "docs/examples/qwen_feedback.yaml").model_copy(
        update={"persona": "suggested_sycophancy"}
    )
    said = why_not_tested(_with(study, contexts=contexts), wb.load_persona("suggested_sycophancy"))
    assert (
        said is None if groups is None else said is not None and f"here are {groups} question groups" in said
    )


def test_letters_in_both_orders_take_two_contexts_a_question():
    study = _with(demo_study(), contexts=4)
    persona = wb.load_persona(study.persona, study.data.path, study.data.world)
    for metric, groups in (("text", 4), ("letters", 2)):
        said = why_not_tested(study, replace(persona, metric=metric))
        assert said is not None and f"here are {groups} question groups" in said


def test_the_plan_has_the_note():
    study = _with(demo_study(), contexts=4)
    assert [note for note in plan(study).notes if note.startswith("it is not tested whether")]
    assert not [note for note in plan(demo_study()).notes if note.startswith("it is not tested whether")]
