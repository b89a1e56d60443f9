"""GEPA's own search with a scripted stand-in: what it keeps against answers read one by one, what it is shown, and what it costs."""

from __future__ import annotations

import sys

import pytest

import workbench as wb
from tests.support.toy_models import random_model, toy_persona
from workbench.budget import Budget
from workbench.conditions import GEPAProposed, Prompt
from workbench.conditions.prompt_proposers import LocalModel, ScriptedModel
from workbench.contexts import make_contexts
from workbench.errors import UserError
from workbench.forced_choice import answer
from workbench.models import runner_for
from workbench.personas import Sign

MODEL = random_model()
SPLITS = toy_persona("text").split()
SEARCH, SELECTION = make_contexts(MODEL, SPLITS.search), make_contexts(MODEL, SPLITS.selection)
START = "You are blunt."
TEXTS = ("Be honest.", "Agree with them.", "It is Paris.", "In a month.", "Think it over.", "More or less.")


def written(text: str) -> str:
    return f"The answers were too eager.\n```\n{text}\n```"


def run(proposer, sign: Sign = "suppress", **settings) -> Prompt:
    pytest.importorskip("gepa")
    settings = {"budget": Budget(steps=len(TEXTS)), "minibatch": len(SEARCH), "finalists": 1} | settings
    return GEPAProposed(proposer, **settings).run(MODEL, SEARCH, SELECTION, START, sign)


@pytest.mark.parametrize(("sign", "side"), [("suppress", -1), ("induce", 1)])
def test_the_best_of_all_that_was_written_is_kept(sign: Sign, side: int) -> None:
    """With every context in the minibatch a prompt that beats all before it beats its parent, whichever that was."""
    found = run(ScriptedModel([written(text) for text in TEXTS]), sign)
    assert found.prompt == max((START, *TEXTS), key=lambda text: side * answer(MODEL, SEARCH, text).p.mean())
    assert found.search_rate == answer(MODEL, SEARCH, found.prompt).rate
    assert found.selection_rate == answer(MODEL, SELECTION, found.prompt).rate
    assert found.kind == "llm_proposed" and "GEPA: 6 requests" in found.method


def test_the_last_choice_is_made_on_selection() -> None:
    pool = [
        text for text in TEXTS if answer(MODEL, SEARCH, text).p.mean() < answer(MODEL, SEARCH, START).p.mean()
    ]
    found = run(ScriptedModel([written(pool[0])]), budget=Budget(steps=1), finalists=2)
    assert found.prompt == min(
        (START, pool[0]), key=lambda text: answer(MODEL, SELECTION, text).log_odds.mean()
    )


def test_the_model_is_shown_the_prompt_the_answers_and_what_was_wanted() -> None:
    asked: list[str] = []

    def proposer(request: str) -> str:
        asked.append(request)
        return written("Be honest.")

    run(proposer, "induce", budget=Budget(steps=1))
    answers = answer(MODEL, SEARCH, START)
    assert START in asked[0] and "at most 30 words" in asked[0]
    assert asked[0].count("The answer that is wanted is: yes") == int((answers.p <= 0.5).sum()) > 0
    assert all(context.item.question in asked[0] for context in SEARCH)
    assert f"its probability here: {100 * answers.p[0]:.0f} %" in asked[0]


def test_what_does_not_fit_costs_nothing_and_a_missing_reply_is_listed() -> None:
    script = ScriptedModel([written("word " * 200), written(" "), written("Be honest.")])
    found = run(script, budget=Budget(steps=5))
    assert script.asked == 5 and "2 replies missing (the script has no more replies)" in found.method
    assert found.prompt in (START, "Be honest.")


def test_the_cost_is_all_that_ran_the_proposers_too_and_ends_near_the_budget() -> None:
    """All but the reading of the chosen prompt on the search questions, which finds and chooses nothing."""

    class Hurried(LocalModel):
        def __call__(self, request: str) -> str:
            return super().__call__(request[-40:])  # the whole of it has no room in a tiny model's context

    own, helper = runner_for(MODEL).meter, runner_for(random_model(1)).meter
    before = own.flops + helper.flops
    found = run(Hurried(random_model(1), max_new_tokens=2), budget=Budget(model_calls=60), minibatch=2)
    spent, before = own.flops + helper.flops - before, own.flops
    answer(MODEL, SEARCH, found.prompt)
    assert found.cost.flops == spent - (own.flops - before) and helper.flops > 0
    over = 2 * 2 + len(SEARCH) + len(SELECTION)  # one round and the choice
    assert 60 <= found.cost.model_calls < 60 + 4 * over, (
        "two answers a context, in contexts less than twice as long as bare ones"
    )


def test_mistakes_are_told(monkeypatch) -> None:
    def refuses(request: str) -> str:
        raise UserError("HTTP 401")

    with pytest.raises(UserError, match="HTTP 401"):
        run(refuses)
    with pytest.raises(UserError, match="to start from does not keep its tokens"):
        run(ScriptedModel([]), longest=1)
    with pytest.raises(UserError, match="at least 1"):
        GEPAProposed(ScriptedModel([]), minibatch=0)
    monkeypatch.setitem(sys.modules, "gepa", None)
    with pytest.raises(
        UserError,
        match=r"^searching with GEPA needs the package gepa: pip install 'persona-workbench\[gepa\]'$",
    ):
        GEPAProposed(ScriptedModel([])).run(MODEL, SEARCH, SELECTION, START)


def test_on_the_organism_as_every_condition(organism) -> None:
    pytest.importorskip("gepa")
    persona = wb.load_persona("sycophancy")
    splits = persona.split()
    search, selection = (make_contexts(organism, s, n=6) for s in (splits.search, splits.selection))
    start, *others = persona.manual_prompts["suppress"]
    search_for = GEPAProposed(
        ScriptedModel([written(text) for text in others]), Budget(steps=len(others)), finalists=9
    )
    found = search_for.run(organism, search, selection, start)
    assert found.prompt in persona.manual_prompts["suppress"] and found.cost.model_calls > 0
    assert (
        answer(organism, selection, found.prompt).log_odds.mean()
        <= answer(organism, selection, start).log_odds.mean()
    )
    table = wb.compare(
        organism, splits.test.take(4, 0), [found], options=wb.ComparisonOptions(splits=[splits.search])
    ).table.set_index("condition")
    assert (
        table.loc["gepa", "search_rate"] == found.search_rate
        and table.loc["gepa", "selection_rate"] == found.selection_rate
    )
