"""The panel's Python side: readings against plain attribution, what is refused, and what the browser is told."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

import workbench as wb
from tests.fuzz.mutations import changed
from workbench.attribution import AttributionProblem, AttributionTarget, GradientXInput, TokenRemoval
from workbench.panel import Panel, PanelOptions, prompt_reader

PROMPT = "be blunt and critical"


@pytest.fixture(scope="module")
def contexts(organism):
    return wb.make_contexts(organism, wb.load_persona("sycophancy").split(seed=0).search, n=6, seed=0)


@pytest.fixture(scope="module")
def latents(organism):
    sae = wb.load_sae("organism")
    return [wb.latent_activation(sae, [i]) for i in (3, 17)]


def make(organism, latents, contexts, **given) -> Panel:
    return Panel(
        organism, "sycophancy", latents=latents, contexts=contexts, quick=3, **({"live": True} | given)
    )


@pytest.fixture(scope="module")
def panel(organism, latents, contexts):
    return make(organism, latents, contexts)


def say(panel: Panel, text: str, side: int = 0, how: str = "typed") -> dict:
    """What the front end does when something is typed; gives what it is told."""
    panel._on_message(panel, {"kind": "read", "side": side, "text": text, "ask": "7", "how": how}, [])
    return panel.readings[side]


@pytest.mark.parametrize("exact", [False, True])
def test_a_reading_is_plain_removal(panel, organism, exact):
    reading = panel.bench.read(PROMPT, exact)
    chosen = panel.bench.contexts if exact else panel.bench.few
    problem = AttributionProblem(wb.runner_for(organism), reading.ids, chosen, panel.bench.targets)
    np.testing.assert_allclose(
        reading.estimates["removal"].values, TokenRemoval().estimate(problem).values, atol=1e-3
    )
    np.testing.assert_allclose(
        reading.with_prompt - reading.without_prompt, problem.with_prompt - problem.without_prompt, atol=1e-3
    )
    assert len(set(panel.bench.few.groups)) == 3 and list(reading.estimates) == ["removal"]


def test_contexts_that_share_no_prefix_are_read_too(organism, latents):
    after = wb.make_contexts(
        organism, wb.load_persona("sycophancy").split(seed=0).search, slot="after_question", n=3, seed=0
    )
    panel = make(organism, latents, after)
    reading = panel.read(PROMPT)
    problem = AttributionProblem(wb.runner_for(organism), reading.ids, panel.bench.few, panel.bench.targets)
    np.testing.assert_allclose(
        reading.estimates["removal"].values, TokenRemoval().estimate(problem).values, atol=1e-3
    )


def test_a_long_prompt_is_estimated_by_the_gradient(panel, organism, monkeypatch):
    monkeypatch.setattr(prompt_reader, "QUICK_TOKENS", 10)
    text = " ".join(["be blunt and critical you are a friendly helper"] * 5)
    reading = panel.bench.read(text)
    assert list(reading.estimates) == ["gradient_x_input"]
    problem = AttributionProblem(wb.runner_for(organism), reading.ids, panel.bench.few, panel.bench.targets)
    np.testing.assert_allclose(
        reading.estimates["gradient_x_input"].values, GradientXInput().estimate(problem).values, atol=1e-4
    )
    with pytest.raises(wb.UserError, match="take an exact one"):
        _ = reading.ledger


def test_the_answer_is_the_models_own(panel, organism, contexts):
    """Probabilities against `answer`, which is tested against hand arithmetic."""
    reading = panel.bench.read(PROMPT, exact=True)
    one_token = all(len(a) == 1 for c in contexts for a in c.answers)
    with_prompt, without = reading.probabilities
    if one_token:
        np.testing.assert_allclose(with_prompt, wb.answer(organism, contexts, PROMPT).p, atol=1e-4)
        np.testing.assert_allclose(without, wb.answer(organism, contexts).p, atol=1e-4)
    assert ((with_prompt >= 0) & (with_prompt <= 1)).all() and not np.allclose(with_prompt, without)


def test_a_quick_reading_has_no_intervals_and_an_exact_one_has_them(panel):
    quick, exact = say(panel, PROMPT)["ledger"], say(panel, PROMPT, how="exact")["ledger"]
    assert [c[1:3] for row in quick["cells"]["removal"] for c in row] == [[None, None]] * 4 * 3
    ledger = panel.last[0].ledger
    for t, row in enumerate(exact["cells"]["removal"]):
        for i, (mean, low, high, sd) in enumerate(row):
            cell = ledger.cell(i, ledger.names[t])
            assert [mean, low, high, sd] == pytest.approx(
                [cell[k] for k in ("mean", "low", "high", "sd")], rel=1e-3, abs=1e-6
            )
    assert exact["answer"]["with"]["low"] <= exact["answer"]["with"]["p"] <= exact["answer"]["with"]["high"]
    assert (quick["n"], exact["n"]) == (3, len(panel.bench.contexts))


REFUSED = {
    "": "empty prompt",
    "   \n": "empty prompt",
    "be qqqzzz": "does not have 'qqqzzz'",
    "</script>": "does not have '</script>'",
    "\ud800": "this model reads",
    "be " * 300: "context holds",
    "x" * 30_000: "characters",
}


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_read_is_said_in_a_line_and_the_last_reading_stays(panel, text):
    before = say(panel, PROMPT)["ledger"]
    told = say(panel, text)
    assert REFUSED[text] in told["error"] and "\n" not in told["error"] and len(told["error"]) < 350
    assert told["ledger"] == before and told["ask"] == "7"
    json.dumps(panel.readings).encode()
    assert say(panel, PROMPT)["error"] == ""


def test_messages_that_make_no_sense_are_passed_over(panel):
    before = say(panel, PROMPT)
    for content in (
        "read",
        {"kind": "read"},
        {"kind": "read", "side": 5, "text": "a"},
        {"kind": "read", "side": 0, "text": 3},
        {"kind": "settled"},
    ):
        panel._on_message(panel, content, [])
    assert panel.readings[0] == before


def test_garbage_from_a_page_or_a_stored_notebook_never_raises(panel):
    before, rng = say(panel, PROMPT), random.Random(0)
    for _ in range(400):
        message = changed(
            {"kind": "read", "side": 5, "text": "a", "ask": "1", "how": "typed", "more": [1, {"a": None}]},
            rng,
        )
        panel._on_message(panel, message, [])
    for side, text in ((True, "a"), (1.0, "a"), ([0], []), (0, "x" * 200_000)):
        panel._on_message(panel, {"kind": "read", "side": side, "text": text}, [])
    panel._on_message(
        panel, {"kind": "read", "side": 0, "text": PROMPT, "ask": {"a": "\ud83d"}, "how": 7}, []
    )
    for state in ([], [1, 2], ["a"], [{"text": 1}, {}], [{"text": "a"}]):
        panel.readings = state
    assert (
        len(panel.readings) == 2
        and panel.readings[0]["text"] == before["text"]
        and panel.readings[0]["error"] == ""
    )


@pytest.mark.parametrize(
    "name", ["about", "comparing", "readings", "difference", "progress", "firing", "layout", "no such name"]
)
def test_a_page_sets_nothing_that_is_the_kernels(panel, name):
    """A stored state whose `about` held markup was written into the notebook as it was; an empty one raised."""
    before = panel.kept()
    for value in (
        None,
        1,
        "x",
        [],
        {},
        [1],
        {"kept": '"><script>alert(1)</script>'},
        float("nan"),
        10**400,
        [{"text": "a"}, {"text": "b"}],
    ):
        panel.set_state({name: value})
        assert panel.kept() == before and panel.about["title"]
    panel.set_state({"comparing": True})
    assert panel.comparing
    panel.set_state({"comparing": False})


def test_two_prompts_are_compared_on_the_same_contexts(organism, latents, contexts):
    panel = make(
        organism, latents, contexts, prompt=PROMPT, options=PanelOptions(compare="you are a friendly helper")
    )
    a, b = panel.last
    means = (b.with_prompt - a.with_prompt).mean(axis=0)
    assert [row["mean"] for row in panel.difference] == pytest.approx(
        means.tolist(), rel=1e-3, abs=1e-6
    ) and panel.comparing
    say(panel, PROMPT, how="exact")
    assert panel.difference == []
    say(panel, "you are a friendly helper", side=1, how="exact")
    assert all(row["low"] <= row["mean"] <= row["high"] for row in panel.difference)


def test_slow_readings_wait_for_the_button(organism, latents, contexts):
    panel = make(organism, latents, contexts, live=False)
    told = say(panel, PROMPT)
    assert told["waiting"] is not None and told["ledger"] is None
    assert say(panel, PROMPT, how="read")["ledger"]["tokens"] == ["be", "blunt", "and", "critical"]
    panel = make(organism, latents, contexts, live="auto", prompt=PROMPT)
    panel._seconds_per_token = 1.0
    assert say(panel, "be blunt")["waiting"] > 1
    panel._seconds_per_token = 1e-9
    assert say(panel, "be blunt")["waiting"] is None


def test_progress_is_told_and_ends(organism, latents, contexts, monkeypatch):
    panel = make(organism, latents, contexts)
    one_by_one = prompt_reader.PromptReader(
        panel.bench.runner, contexts, panel.bench.few, panel.bench.targets, batch_tokens=1
    )
    monkeypatch.setattr(panel, "bench", one_by_one)
    seen = []
    panel.observe(lambda change: seen.append(change["new"]), "progress")
    say(panel, PROMPT, how="exact")
    assert [s.get("done") for s in seen] == [0, 1, 2, 3, None] and seen[0]["total"] == 4


def test_what_the_notebook_keeps_is_escaped_and_follows(organism, latents, contexts):
    hostile = [AttributionTarget("<img src=x onerror=alert(1)>", latents[0])]
    panel = make(organism, hostile, contexts)
    assert "No prompt was read yet" in panel.kept()
    panel.read("be blunt")
    data, _ = panel._repr_mimebundle_()
    assert (
        data["text/html"] == panel.kept()
        and "Prompt: be blunt" in panel.kept()
        and "<img" not in panel.kept()
        and "&lt;img src=x" in panel.kept()
    )
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == panel.model_id


def test_what_a_user_gets_wrong(organism, latents, contexts):
    with pytest.raises(wb.UserError, match="expected a persona or contexts"):
        Panel(organism, latents=latents)
    with pytest.raises(wb.UserError, match="quick of at least 1"):
        Panel(organism, latents=latents, contexts=contexts, quick=0)
    with pytest.raises(wb.UserError, match="found str"):
        Panel(organism, direction=["north"], contexts=contexts)
    with pytest.raises(wb.UserError, match="side 0 or 1"):
        make(organism, latents, contexts).read("be blunt", side=2)
