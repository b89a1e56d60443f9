"""Robustness of a prompt's effect: forms by hand, effects against plain answers, and a planted brittle prompt."""

from __future__ import annotations

import numpy as np
import pytest

import workbench.evaluation.changed_forms as module
from tests.support.toy_models import random_model, toy_persona
from workbench.contexts import make_contexts
from workbench.errors import UserError
from workbench.evaluation import prompt_forms, prompt_robustness
from workbench.forced_choice import Answers, answer


def test_the_forms_of_a_prompt():
    assert prompt_forms("Be calm, please. Check it.") == {
        "no stop at the end": "Be calm, please. Check it",
        "exclamation mark": "Be calm, please. Check it!",
        "no punctuation": "Be calm please Check it",
        "lower case": "be calm, please. check it.",
        "upper case": "BE CALM, PLEASE. CHECK IT.",
        "in quotes": '"Be calm, please. Check it."',
        "sentences in another order": "Check it. Be calm, please.",
    }
    assert set(prompt_forms("calm")) == {"exclamation mark", "upper case", "in quotes"}
    with pytest.raises(UserError, match="has no words"):
        prompt_forms(" ... ")


def test_every_row_is_a_measurement_against_no_prompt_in_its_slot():
    model, split = random_model(), toy_persona().split().test
    found = prompt_robustness(
        model, split, "Be good. Say no.", ["Do say no."], slots=("system", "after_question")
    )
    assert list(found.rows["form"]) == [
        "as it is",
        *prompt_forms("Be good. Say no."),
        "paraphrase 1",
        "as it is",
    ]
    for row in found.rows.itertuples():
        contexts = make_contexts(model, split, row.slot)
        expected = (
            answer(model, contexts, row.prompt).log_odds.mean() - answer(model, contexts).log_odds.mean()
        )
        assert row.effect == pytest.approx(float(expected), abs=1e-5) and row.low <= row.effect <= row.high
    others = found.rows[(found.rows["slot"] == "system") & (found.rows["form"] != "as it is")]
    assert found.share_kept == pytest.approx(
        float(np.median(others["effect"] / found.rows["effect"].iloc[0]))
    )
    with pytest.raises(UserError, match="at least one slot"):
        prompt_robustness(model, split, "Be good.", slots=())


@pytest.mark.parametrize(("kept", "brittle"), [(0.9, False), (0.2, True)])
def test_a_planted_share_is_found(monkeypatch, kept, brittle):
    """The exact string moves the log-odds by -2, every other form by `kept` of that."""

    def planted(model, contexts, prompt=None):
        moved = 0.0 if prompt is None else -2.0 * (1.0 if prompt == "Be good." else kept)
        groups = tuple(context.item.group for context in contexts)
        return Answers(np.full(len(contexts), 1.0 + moved), np.ones(len(contexts), bool), groups, groups)

    monkeypatch.setattr(module, "answer", planted)
    found = prompt_robustness(random_model(), toy_persona().split().test, "Be good.")
    assert found.share_kept == pytest.approx(kept) and found.brittle is brittle
    assert found.rows["effect"].iloc[0] == pytest.approx(-2.0)
    said = f"{len(found.rows)} forms of a prompt: its other forms keep {100 * kept:.0f} % of its effect (median){', brittle' if brittle else ''}"
    assert repr(found).startswith(said) and said in found._repr_html_() and "Be good" in repr(found)
