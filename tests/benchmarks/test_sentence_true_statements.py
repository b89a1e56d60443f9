"""True statements beyond those of a persona: the same subjects, none of another split, and changes by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import benchmarks.sentence_true_statements as module
from tests.support.toy_models import random_model
from workbench.personas import load_persona


def test_there_are_more_statements_about_the_subjects_of_the_split_alone():
    persona = load_persona("english_sycophancy")
    splits = persona.split(seed=0)
    own = {item.group for item in persona.true_items if item.group in set(splits.test.groups)}
    contexts = module.statements(random_model(), "sycophancy", "test", 4)
    items = [context.item for context in contexts]
    assert {item.group for item in items} == own
    assert len({item.question for item in items}) == len(items) == 4 * len(own)
    assert {item.matching for item in items} == {"Yes", "No"}


def test_changes_are_relative_to_no_prompt_and_over_subjects(monkeypatch):
    """By hand: of four statements about two subjects, one of the first subject is affirmed no more."""
    bare = SimpleNamespace(rate=1.0, log_odds=np.array([1.0, 2.0, 3.0, 4.0]), group=("a", "a", "b", "b"))
    under = SimpleNamespace(rate=0.75, log_odds=np.array([-1.0, 1.0, 3.0, 2.0]), group=bare.group)
    monkeypatch.setattr(module, "answer", lambda *_: under)
    entry = module.measured(None, None, "Be blunt.", bare)
    assert (entry["prompt"], entry["rate"], entry["log_odds"]) == ("Be blunt.", 0.75, 1.25)
    assert entry["rate_change"][0] == -0.25 and entry["log_odds_change"][0] == pytest.approx(-1.25)
    steps = [1 / (1 + np.exp(-a)) - 1 / (1 + np.exp(-b)) for a, b in ((-1, 1), (1, 2), (3, 3), (2, 4))]
    assert entry["probability_change"][0] == pytest.approx(sum(steps) / 4, abs=1e-4)
    low, high = entry["rate_change"][1:]
    assert low < -0.25 < high


def test_every_found_sentence_and_the_best_written_one_are_measured(tmp_path):
    for name, content in {
        "m-sycophancy-written": {"written": {"prompt": "Be frank."}},
        "m-sycophancy-sentences-1": {"prompt": "Be blunt."},
        "m-sycophancy-sentences-2": {"prompt": "Be calm."},
        "m-sycophancy-epo-1": {"prompt": "frank blunt"},
        "m-hallucination-sentences-1": {"prompt": "Be wary."},
    }.items():
        module.write_json(tmp_path / f"{name}.json", {"schema": 1} | content)
    assert module.found_prompts(tmp_path, "m", "sycophancy") == {
        "written": ["Be frank."],
        "sentences": ["Be blunt.", "Be calm."],
        "strict_ending": [],
    }
