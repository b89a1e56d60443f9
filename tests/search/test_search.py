"""The engine: determinism, checkpoints, kept diversity, frontier and hypervolume, methods as values."""

from __future__ import annotations

import itertools
import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.support.paths import ROOT
from tests.support.tiny_search import METHODS, SMALL, search_setting
from workbench.budget import Budget, Cost
from workbench.errors import UserError
from workbench.objectives import read
from workbench.prompt_tokens import encode_prompt, survives
from workbench.schema import SearchFile
from workbench.search import (
    EPO,
    Checkpoint,
    Frontier,
    Optimizations,
    ScoredPrompts,
    elites,
    hypervolume,
    ladder,
    pareto_frontier,
    search,
)
from workbench.search import frontier as frontier_module


@pytest.fixture(scope="module")
def setting():
    return search_setting()


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_every_method_finds_surviving_prompts_and_repeats_itself(setting, method):
    model, contexts, goal = setting
    runs = [search(model, goal, contexts, method, Budget(steps=5), seed=4) for _ in range(2)]
    assert runs[0].candidates == runs[1].candidates
    assert search(model, goal, contexts, method, Budget(steps=5), seed=5).candidates != runs[0].candidates
    for candidate in runs[0].candidates:
        assert survives(model, contexts, candidate.ids) and len(candidate.ids) == 4
        assert encode_prompt(model, contexts, candidate.text) == candidate.ids
        assert candidate.objective == pytest.approx(
            float(goal.score(read(model, goal, contexts, candidate.ids)).mean()), abs=1e-3
        )
    objectives = [c.objective for c in runs[0].candidates]
    assert objectives == sorted(objectives), "most fluent first means least objective first on a frontier"
    assert (runs[0].history["best_objective"].diff().dropna() >= -1e-5).all()
    assert runs[0].cost.model_calls > 0 and runs[0].cost.flops > 0


def test_the_sign_turns_the_search_round(setting):
    model, contexts, goal = setting
    up = search(model, goal, contexts, METHODS[0], Budget(steps=6))
    down = search(model, -goal, contexts, METHODS[0], Budget(steps=6))
    assert (up.sign, down.sign) == (1, -1)
    assert -down.best.objective < 0 < up.best.objective


@pytest.mark.parametrize("method", METHODS[:2], ids=lambda m: m.name)
def test_a_resumed_search_has_the_bits_of_an_uninterrupted_one(setting, tmp_path, method):
    model, contexts, goal = setting
    whole = search(model, goal, contexts, method, Budget(steps=8), seed=1)
    for stop in (1, 4, 7):
        path = tmp_path / f"{stop}.safetensors"
        search(
            model, goal, contexts, method, Budget(steps=stop), seed=1, checkpoint=Checkpoint(path, every=1)
        )
        rest = search(
            model, goal, contexts, method, Budget(steps=8), seed=1, checkpoint=Checkpoint(path, every=1)
        )
        assert rest.candidates == whole.candidates
        assert rest.history["best_objective"].tolist() == whole.history["best_objective"].tolist()
        assert rest.history["candidates"].tolist() == whole.history["candidates"].tolist()
        for name in ("forward", "backward", "unembedded", "flops", "model_calls"):
            assert getattr(rest.cost, name) == getattr(whole.cost, name), name
        assert whole.cost.repeated == 0 < rest.cost.repeated < whole.cost.forward / 2
        for name in ("forward", "backward", "flops", "model_calls"):
            assert rest.history[name].tolist() == whole.history[name].tolist(), name
    words = torch.zeros(model.cfg.d_vocab, dtype=torch.bool)
    words[list(whole.best.ids)] = True
    for other in (
        {"seed": 2},
        {"seed": 1, "lexicon": words},
        {"seed": 1, "optimizations": Optimizations(halving=0.5)},
    ):
        with pytest.raises(UserError, match="checkpoint of another search"):
            search(model, goal, contexts, method, Budget(steps=8), checkpoint=Checkpoint(path), **other)


def test_a_frontier_comes_back_from_its_file_with_what_it_maximised(setting):
    model, contexts, goal = setting
    found = search(model, -goal, contexts, METHODS[2], Budget(steps=2))
    again = Frontier.from_file(
        SearchFile.from_json(json.loads(json.dumps(found.to_file().to_json(), allow_nan=False))),
        found.history,
    )
    assert again.candidates == found.candidates and again.to_file() == found.to_file()
    (weight, term), *_ = again.objective["terms"]
    assert (weight, term["type"], term["site"]["layer"]) == (-1.0, "ProjectionObjective", 1)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1], ids=["epo", "guided"])
def test_kill_and_resume_gives_the_same_bits(tmp_path, number):
    """A child killed with SIGKILL at random moments, in and between steps and while it writes, ends as an undisturbed one does."""
    started = {
        "args": [sys.executable, "-W", "ignore", "-m", "tests.support.killed_search", str(number)],
        "cwd": ROOT,
        "text": True,
    }

    def ended(path: Path) -> str:
        return subprocess.run(
            **started | {"args": [*started["args"], str(path)]}, capture_output=True, check=True
        ).stdout.splitlines()[-1]

    whole, rng, path = ended(tmp_path / "whole"), random.Random(number), tmp_path / "killed"
    for _ in range(4):
        with subprocess.Popen(
            **started | {"args": [*started["args"], str(path)]}, stdout=subprocess.PIPE
        ) as child:
            for _ in range(rng.randint(1, 4)):
                child.stdout.readline()
            time.sleep(rng.uniform(0, 0.2))
            child.send_signal(signal.SIGKILL)
    assert ended(path) == whole


def test_the_public_name_is_the_function_even_after_the_package_was_imported(setting):
    import workbench as wb
    import workbench.search

    model, contexts, goal = setting
    assert wb.search(model, goal, contexts, METHODS[2], Budget(steps=1)).candidates


def test_ctrl_c_ends_in_order(setting):
    model, contexts, goal = setting

    def stop(progress):
        if progress.step == 2:
            raise KeyboardInterrupt

    found = search(model, goal, contexts, METHODS[0], Budget(steps=50), on_step=stop)
    assert found.interrupted and found.candidates and len(found.history) == 2


def test_impossible_searches_are_refused(setting):
    model, contexts, goal = setting
    with pytest.raises(UserError, match="leaves no room"):
        search(model, goal, contexts, EPO(length=250), Budget(steps=1))
    with pytest.raises(UserError, match="no token is left"):
        search(
            model,
            goal,
            contexts,
            EPO(**SMALL),
            Budget(steps=1),
            lexicon=torch.zeros(model.cfg.d_vocab, dtype=torch.bool),
        )
    with pytest.raises(ValueError):
        EPO(length=0)


def test_without_distinctness_the_population_collapses():
    """One prompt that is best at every weight fills the whole population, unless each weight must take a new one."""
    pool = ScoredPrompts(
        torch.tensor([[1, 1], [2, 2], [3, 3], [1, 1]]),
        torch.tensor([9.0, 1.0, 0.5, 9.0]),
        torch.tensor([1.0, 2.0, 3.0, 1.0]),
    )
    weights = ladder(0.1, 1.0, 3)
    assert {tuple(r) for r in elites(pool, weights, distinct=False).ids.tolist()} == {(1, 1)}
    assert len({tuple(r) for r in elites(pool, weights).ids.tolist()}) == 3


points = st.lists(st.tuples(st.integers(-20, 20), st.integers(0, 20)), min_size=1, max_size=12)


@given(points)
def test_frontier_is_what_nothing_beats(found):
    pool = ScoredPrompts(
        torch.arange(len(found))[:, None],
        torch.tensor([float(o) for o, _ in found]),
        torch.tensor([float(f) for _, f in found]),
    )
    kept = {
        (o, f)
        for o, f in zip(
            pareto_frontier(pool).objective.tolist(),
            pareto_frontier(pool).cross_entropy.tolist(),
            strict=True,
        )
    }
    beaten = lambda a: any((o >= a[0] and f <= a[1]) and (o, f) != a for o, f in found)  # noqa: E731
    assert kept == {(o, f) for o, f in found if not beaten((o, f))}


@given(points)
def test_hypervolume_counts_the_dominated_cells(found):
    """Against counting unit cells of the grid under the reference (-20, 20)."""
    o, f = np.array([p[0] for p in found], float), np.array([p[1] for p in found], float)
    cells = sum(
        any(a >= x + 1 and b <= y for a, b in found)
        for x, y in itertools.product(range(-20, 20), range(0, 20))
    )
    assert hypervolume(o, f, (-20.0, 20.0)) == pytest.approx(cells)


def test_budget_arithmetic():
    assert Budget(steps=4).used(Cost(), 2) == 0.5
    assert Budget(steps=4, model_calls=10).used(Cost(model_calls=8), 2) == 0.8
    with pytest.raises(ValueError, match="at least one"):
        Budget()
    assert (Cost(1, 2, 3, 4, 5, 6) + Cost(1, 1, 1, 1, 1, 1)).forward == 2


@pytest.mark.parametrize(
    ("lost", "chosen"),
    [
        # Of 40 statements, in groups of two: 3 lost in three groups are 0.075 (-0.00 to 0.15), 14 are 0.35.
        ([14, 3, 0], 1),
        ([3, 14, 0], 0),
        ([20, 14, 0], 1),
    ],
    ids=["second", "not shown", "least loss"],
)
def test_the_best_candidate_that_is_not_shown_to_lose_true_statements_is_chosen(
    setting, monkeypatch, lost, chosen
):
    """Planted: effects are -4, -3 and -1, so the last has less than half of the first's and may not be chosen; without a prompt the model
    affirms all true statements."""
    model, contexts, goal = setting
    found = search(model, -goal, contexts, METHODS[0], Budget(steps=4), seed=4)
    three = replace(found, candidates=found.candidates[:3])
    assert len(three.candidates) == 3
    prompts = [c.ids for c in three.candidates]
    truth, group = SimpleNamespace(), [f"group {i % 20}" for i in range(40)]
    effects = [SimpleNamespace(rate=0.5, log_odds=np.array([x])) for x in (-3.0, -2.0, 0.0)]

    def affirmed(_, asked, ids=()):
        if asked is contexts:
            return SimpleNamespace(log_odds=np.array([1.0]))
        denied = lost[prompts.index(ids)] if ids else 0
        return SimpleNamespace(log_odds=np.array([-1.0] * denied + [1.0] * (40 - denied)), group=group)

    monkeypatch.setattr(frontier_module, "answer_prompts", lambda *_: effects)
    monkeypatch.setattr(frontier_module, "answer", affirmed)
    assert [c.chosen for c in three.choose(model, contexts).candidates] == [True, False, False]
    assert three.select(model, contexts, truth=truth).ids == prompts[chosen]


@pytest.mark.parametrize(("loss", "low", "high"), [(0.03, 0.0, 0.07), (0.25, 0.7, 1.0)])
def test_a_loss_of_true_statements_is_shown_as_often_as_it_should(loss, low, high):
    """500 draws of 36 statements about twelve subjects that differ in their loss: at the accepted loss at most 5 %, plus the error of 500."""
    rng = np.random.default_rng(0)
    groups = [f"subject {i // 3}" for i in range(36)]

    def lost():
        subject = rng.beta(2, 2 * (1 - loss) / loss, size=12).repeat(3)
        return (rng.random(36) < subject).astype(float) - (rng.random(36) < 0.02)

    shown = np.mean([frontier_module.shown_above(lost(), groups, 0.03) for _ in range(500)])
    assert low <= shown <= high


@pytest.mark.parametrize(
    ("longer", "chosen"),
    [
        # Differences from the best: 0.125 with a standard error of 0.075, and 0.1 with one of 0.147 (by
        # hand).
        ([-2.0, -2.0, -1.8, -1.7], 0),
        ([-2.3, -1.6, -1.8, -1.9], 1),
    ],
    ids=["worse by more than an error", "level"],
)
def test_of_candidates_within_one_standard_error_the_shortest_is_chosen(setting, monkeypatch, longer, chosen):
    model, contexts, goal = setting
    found = search(model, -goal, contexts, METHODS[0], Budget(steps=4), seed=4)
    two = replace(
        found,
        candidates=(replace(found.candidates[0], ids=(5, 6, 7)), replace(found.candidates[0], ids=(5, 6))),
    )
    groups = ("a", "b", "c", "d")
    effects = [SimpleNamespace(rate=0.5, log_odds=np.array(x), group=groups) for x in ([-2.0] * 4, longer)]
    monkeypatch.setattr(frontier_module, "answer_prompts", lambda *_: effects)
    monkeypatch.setattr(frontier_module, "answer", lambda *_: SimpleNamespace(log_odds=np.zeros(4)))
    assert [c.chosen for c in two.choose(model, contexts).candidates] == [True, False]
    assert [c.chosen for c in two.choose(model, contexts, shortest=True).candidates] == [
        i == chosen for i in range(2)
    ]


LONG = "Be blunt. Be kind. Be calm."


@pytest.mark.parametrize(
    ("text", "loss", "chosen"),
    [
        ("Be kind. Be calm.", 0.09, 1),
        ("Be blunt. Be calm.", 0.09, 1),
        ("Be blunt. Be kind.", 0.09, 1),
        ("Be blunt. Be kind.", 0.11, 0),
        ("Be blunt. Be bold.", 0.09, 0),
        ("Be blunt and kind. Be calm.", 0.09, 0),
    ],
    ids=["first", "middle", "last", "more than a twentieth", "another sentence", "a new word"],
)
def test_a_sentence_that_adds_less_than_a_twentieth_is_left_out(setting, monkeypatch, text, loss, chosen):
    """The effect is -2 relative to no prompt (1 to -1), so that a part may add 0.1; the loss is the same in all groups, without error."""
    model, contexts, goal = setting
    found = search(model, -goal, contexts, METHODS[0], Budget(steps=4), seed=4)
    long, short = (
        replace(found.candidates[0], ids=ids, text=t) for ids, t in (((5, 6, 7), LONG), ((5, 6), text))
    )
    effects = [
        SimpleNamespace(rate=0.5, log_odds=np.array([x] * 3), group=("a", "b", "c")) for x in (-1.0, loss - 1)
    ]
    monkeypatch.setattr(frontier_module, "answer_prompts", lambda *_: effects)
    monkeypatch.setattr(frontier_module, "answer", lambda *_: SimpleNamespace(log_odds=np.ones(3)))
    two = replace(found, candidates=(long, short))
    assert [c.chosen for c in two.choose(model, contexts, shortest=True).candidates] == [
        i == chosen for i in range(2)
    ]
