"""Conditions that a study requests by name: published steering and prompts that a language model proposes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.toy_models import random_model, toy_persona
from workbench.budget import Budget
from workbench.conditions import Steering
from workbench.contexts import make_contexts
from workbench.directions import Direction, find_directions
from workbench.errors import UserError
from workbench.forced_choice import answer
from workbench.models import Site
from workbench.runs import RunDirectory
from workbench.study.context import ChosenDirections, StudyContext
from workbench.study.material import Material
from workbench.study.stages.comparison import make_conditions
from workbench.study.study_settings import (
    DirectionSettings,
    ModelSettings,
    ProposerSettings,
    SearchSettings,
    Study,
)

MODEL = random_model()
PERSONA = toy_persona("text")
STUDY = Study(
    conditions=("steering_caa", "steering_persona_vector", "llm_proposed", "gepa"),
    sae="none",
    directions=DirectionSettings(layers=(1,), methods=("own_choice",), rows=16, texts=4, contexts=2),
    search=SearchSettings(budget=Budget(steps=1), contexts=4),
    model=ModelSettings(name="toy"),
)


def test_they_are_built_and_each_is_what_its_name_says(tmp_path: Path) -> None:
    pytest.importorskip("gepa")
    material = Material(STUDY, MODEL, PERSONA, PERSONA.split())
    best = Direction(torch.ones(32), Site(1), "toy", "own_choice")
    context = StudyContext(
        RunDirectory.create(tmp_path),
        material,
        lambda stage, done: None,
        directions=ChosenDirections(best, ()),
    )
    _, caa, vector, proposed, gepa = make_conditions(context)
    for steering, method in ((caa, "mean_difference"), (vector, "response_mean")):
        assert (
            isinstance(steering, Steering)
            and steering.direction.site.layer == 1
            and steering.selection_rate is not None
        )
        own = find_directions(
            MODEL, material.splits.train, material.splits.search, (1,), (method,), 16, 4, 2
        )[1, method]
        assert torch.equal(steering.direction.vector, own.vector)
    selection = make_contexts(MODEL, material.splits.selection)
    for found in (proposed, gepa):
        assert found.kind == "llm_proposed" and found.cost.model_calls > 0
        assert found.selection_rate == answer(MODEL, selection, found.prompt).rate
    assert [c.name for c in (caa, vector, proposed, gepa)] == [
        "CAA steering",
        "persona vector steering",
        "llm proposed",
        "gepa",
    ]


def test_an_endpoint_without_the_name_of_its_model_is_refused() -> None:
    with pytest.raises(UserError, match=r"field proposer: .*needs the name of its model"):
        Study.of({"proposer": {"base_url": "http://here/v1"}})
    assert ProposerSettings(base_url="http://here/v1", model="m").model == "m"
