"""Sweeps: what they expand to, what is refused before anything starts, what is run again and what is not; and a real one against
the same study run alone. Most tests put a toy in the study's place: how a study works is tested elsewhere.
With Ray: test_sweep_ray.py."""

# ruff: noqa: RUF001  (typographic signs are meant)

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

import workbench as wb
from workbench import cli
from workbench.conditions.prompt_cross_entropy import prompt_cross_entropy
from workbench.errors import UserError
from workbench.models import Site
from workbench.objectives import Readout
from workbench.report import OverviewRun, write_overview
from workbench.runs import RunDirectory, read_json, write_json
from workbench.study import Study, run
from workbench.study.material import Material
from workbench.study.stages import search as search_stage
from workbench.sweep import ABLATIONS, Sweep, ablation_sweep, sweep
from workbench.sweep import study_worker as work
from workbench.sweep.live_table import LiveTable
from workbench.sweep.resolve_studies import plan
from workbench.sweep.sweep_store import FAILURE, StudyOutcome, look, run_path

SMALL = {
    "data": {"train_items": 24, "search_items": 6, "selection_items": 6, "test_items": 12},
    "directions": {"layers": [1], "methods": ["mean_difference"], "rows": 16, "texts": 4, "contexts": 2},
    "search": {
        "options": {"length": 3, "population": 2, "children": 4, "top_k": 16},
        "budget": {"steps": 2},
        "contexts": 2,
        "neutral": 4,
    },
    "conditions": ["constant_answer", "resga"],
    "primary": ["resga"],
    "sae": "none",
    "random_directions": 0,
    "random_prompts": 1,
    "attribution": {"contexts": 2, "estimators": ["gradient_x_input"]},
}
QUESTIONS = {"hash": "q" * 64, "n": 3, "groups": 3}


class Toy:
    """Replaces `workbench.study.run_study`: leaves a run directory as a finished study does, and counts. `behave` may do something
    else first, such as fail."""

    def __init__(self) -> None:
        self.runs: Counter[int] = Counter()
        self.loads: list[str] = []
        self.behave = lambda study, directory: None

    def run(self, study, directory, resume=False, report=None, model=None):
        with directory.lock():
            self.runs[study.seed] += 1
            directory.file("study.yaml").write_text(study.to_yaml())
            report("search", 0.5)
            self.behave(study, directory)
            if directory.done("comparison"):
                return directory
            with directory.stage("comparison", ["comparison.json"]):
                write_json(directory.file("comparison.json"), toy_comparison(study))
            with directory.stage("report", ["report.html"]):
                directory.file("report.html").write_text("<p>a report")
        return directory

    def load(self, name, *settings):
        self.loads.append(name)
        return object()


def toy_comparison(study: Study, questions=QUESTIONS) -> dict:
    shift = -1.0 - 0.1 * study.seed
    cost = {"token_layers": 1.0, "flops": 2.0, "model_calls": 3.0, "seconds": 4.0}
    baseline = {
        "name": "no prompt",
        "kind": "none",
        "rate": 0.5,
        "ci": [0.4, 0.6],
        "differences": [],
        "cost": cost,
    }
    change = {
        "to": "no prompt",
        "value": -0.1,
        "ci": [-0.2, 0.0],
        "p": 0.04,
        "log_odds": shift,
        "log_odds_ci": [shift - 1, shift + 1],
    }
    resga = {
        "name": "resga",
        "kind": "resga",
        "rate": 0.4,
        "ci": [0.3, 0.5],
        "prompt": "be <b>kind</b>",
        "differences": [change],
        "cost": cost,
    }
    return {
        "schema": 1,
        "persona": study.persona,
        "model": study.model.name,
        "sign": study.sign,
        "metric": "text",
        "seed": study.seed,
        "splits": {"test": questions},
        "conditions": [baseline, resga],
    }


@pytest.fixture
def toy(monkeypatch) -> Toy:
    made = Toy()
    monkeypatch.setattr(work, "run", made.run)
    monkeypatch.setattr(work, "load_model", made.load)
    return made


def seeds(n: int, **more) -> Sweep:
    return Sweep(name="seeds", base=SMALL, grid={"seed": tuple(range(n))}, **more)


# what a sweep expands to


@limits(max_examples=20, deadline=None)
@given(
    st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True),
    st.lists(st.sampled_from(["suppress", "induce"]), min_size=1, unique=True),
    st.lists(st.integers(1, 50), max_size=3, unique=True),
)
def test_a_grid_is_the_product_of_its_values_for_every_listed_study(seed, sign, latents):
    listed = tuple({"latents": n} for n in latents)
    found = Sweep(studies=listed, grid={"seed": tuple(seed), "sign": tuple(sign)}).expand()
    expected = {(n, s, g) for n in (latents or [Study().latents]) for s in seed for g in sign}
    assert [variant.number for variant in found] == list(range(1, len(expected) + 1))
    assert {(v.study.latents, v.study.seed, v.study.sign) for v in found} == expected


def test_short_names_nested_settings_and_a_study_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("persona: hallucination\nlatents: 3\n")
    (tmp_path / "many.yaml").write_text(
        "study: mine.yaml\nbase: {search: {options: {length: 5}}}\ngrid: {layer: [0, [1, 2]], method: [epo]}\n"
    )
    asked = Sweep.load(tmp_path / "many.yaml")
    first, second = (variant.study for variant in asked.expand())
    assert asked.name == "many" and Sweep.from_yaml(asked.to_yaml()) == asked
    assert (first.persona, first.latents, first.search.options) == ("hallucination", 3, {"length": 5})
    assert (first.directions.layers, second.directions.layers) == ((0,), (1, 2))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (
            Sweep(base=SMALL, grid={"model": ("organism",) * 36 + ("no such/model!",), "seed": (0,)}),
            "study 37 .*no such/model!",
        ),
        (seeds(2, studies=({"sign": "suppress"}, {})), r"studies 1 \(.*\) and 3 \(.*\) are the same"),
        (seeds(1, studies=({"layer": 9},)), "study 1 .*layer 9 does not exist: organism has layers 0-"),
        (seeds(1, studies=({}, {"persona": "greed"})), "study 2 .*unknown persona 'greed'"),
        (seeds(1, studies=({"search.options.lenght": 9},)), "study 1 .*search.options.lenght"),
        (seeds(1, studies=({"conditions": ["magic"]},)), "study 1 .*unknown condition 'magic'"),
        (seeds(1, studies=({"model.device": "cuda:99"},)), "study 1 .*cuda:99"),
        (seeds(1, studies=({"sae": "nowhere"},)), "study 1 .*no SAE at nowhere"),
        (seeds(1, studies=({"seed.of": 9},)), "'seed' holds no settings"),
        (seeds(1, ablations=("depth",)), "unknown ablation 'depth'"),
        (seeds(0), "has no study"),
        (seeds(9, limit=8), "more than 8 studies"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_starts(asked, says, toy, tmp_path):
    if "37" in says:  # the 36 before it are not the same study
        asked = asked.model_copy(
            update={
                "studies": tuple({"model": m, "seed": i} for i, m in enumerate(asked.grid["model"])),
                "grid": {},
            }
        )
    with pytest.raises(UserError, match=says) as caught:
        sweep(asked, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not toy.runs and not (tmp_path / "out").exists()


def test_the_key_is_what_the_study_is_not_what_it_is_called(tmp_path):
    model = tmp_path / "model"
    shutil.copytree(Path(wb.__file__).parents[1] / "data/organism/model", model)

    def key(**changes) -> str:
        return plan(Sweep(base=SMALL | {"model": str(model)}, studies=(changes,)).expand())[0].key

    usual = key()
    assert key(name="other") == usual == key(**{"search.options.distinct": True})
    different = [
        key(seed=1),
        key(**{"search.options.length": 4}),
        key(**{"data.split_seed": 1}),
        key(persona="hallucination"),
        key(sign="induce"),
    ]
    assert len({usual, *different}) == 6
    tokenizer = (model / "tokenizer.json").read_bytes()
    (model / "tokenizer.json").write_bytes(tokenizer + b"\n")
    assert key() != usual  # once only config and parts of the weights counted
    (model / "tokenizer.json").write_bytes(tokenizer)
    assert key() == usual
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-4:] = b"\x00\x00\x00\x00" if weights[-4:] != b"\x00\x00\x00\x00" else b"\x01\x00\x00\x00"
    (model / "model.safetensors").write_bytes(weights)
    assert key() != usual


def test_ablations_change_one_setting_and_leave_out_what_is_the_study_itself():
    for name in ABLATIONS:
        asked = ablation_sweep([name], seeds=[0, 1])
        planned = plan(asked.expand())
        plain = planned[0].study
        assert not set(planned[0].variant.varied) - {"persona", "seed"}
        assert len(planned) >= 4 and len(planned) % 2 == 0, name
        for p in planned[2:]:
            same = p.study.model_dump(exclude={"name", "seed"})
            changed = {k for k, v in plain.model_dump(exclude={"name", "seed"}).items() if same[k] != v}
            assert len(changed) == 1, (name, changed)
    fixed = plan(ablation_sweep(["length"], flops=1e9).expand())
    assert {p.study.search.budget.flops for p in fixed} == {1e9} and {
        p.study.search.budget.steps for p in fixed
    } == {None}


# what is run, and what is not run again


def test_a_finished_study_is_never_run_twice_and_a_grown_sweep_does_only_what_is_new(toy, tmp_path):
    first = sweep(seeds(3), tmp_path / "out")
    assert first.counts == {"done": 3} and toy.runs == {0: 1, 1: 1, 2: 1} and toy.loads == ["organism"]
    again = sweep(seeds(5), tmp_path / "out")
    assert again.counts == {"done": 5} and set(toy.runs.values()) == {1}
    table = pd.read_parquet(tmp_path / "out/results.parquet")
    assert len(table) == 10 and set(table["questions"]) == {QUESTIONS["hash"]}
    assert sorted(table.query("condition == 'resga'")["shift"]) == pytest.approx(
        [-1.4, -1.3, -1.2, -1.1, -1.0]
    )


def test_a_failed_study_is_listed_with_its_reason_and_run_again_only_when_asked(toy, tmp_path):
    def fail(study, directory):
        if study.seed == 1:
            raise UserError("the prompt is too long")
        if study.seed == 2:
            raise ZeroDivisionError("division by zero")

    toy.behave = fail
    found = sweep(seeds(4), tmp_path / "out")
    assert list(found.studies["state"]) == ["done", "failed", "failed", "done"]
    assert list(found.studies["reason"][1:3]) == [
        "the prompt is too long",
        "ZeroDivisionError: division by zero",
    ]
    assert (
        "Traceback"
        in read_json(run_path(tmp_path / "out", Path(found.studies["run"][2]).name) / FAILURE)["traceback"]
    )
    assert "the prompt is too long" in (tmp_path / "out/overview.html").read_text()
    toy.behave = lambda study, directory: None
    assert sweep(seeds(4), tmp_path / "out").counts == {"done": 2, "failed": 2} and toy.runs[1] == 1
    assert sweep(seeds(4), tmp_path / "out", rerun_failed=True).counts == {"done": 4}
    assert toy.runs == {0: 1, 1: 2, 2: 2, 3: 1}


def test_a_study_that_is_refused_before_its_first_stage_does_not_end_the_sweep(toy, tmp_path):
    """A refused study removes its directory; in a sweep the reason was written there, which failed and ended the sweep."""

    def refuse(study, directory):
        if study.seed == 0:
            directory.discard_if_unused()
            raise UserError("too few texts")

    toy.behave = refuse
    found = sweep(seeds(2), tmp_path / "out")
    assert (
        list(found.studies["state"]) == ["failed", "done"] and found.studies["reason"][0] == "too few texts"
    )


def test_ctrl_c_keeps_what_is_done_and_the_study_at_hand_is_resumed_first(toy, tmp_path):
    def interrupt(study, directory):
        if study.seed == 1 and toy.runs[1] == 1:
            os.kill(os.getpid(), signal.SIGINT)

    toy.behave, before = (
        interrupt,
        signal.getsignal(signal.SIGINT),
    )  # ignored where the tests run in a shell's background
    with pytest.raises(KeyboardInterrupt):
        sweep(seeds(3), tmp_path / "out")
    keys = [p.key for p in plan(seeds(3).expand())]
    assert [look(tmp_path / "out", key).state for key in keys] == ["done", "interrupted", "new"]
    assert len(pd.read_parquet(tmp_path / "out/results.parquet")) == 2
    order = []
    toy.behave = lambda study, directory: order.append(study.seed)
    assert sweep(seeds(3), tmp_path / "out").counts == {"done": 3} and order == [1, 2]
    assert signal.getsignal(signal.SIGINT) is before


def test_run_directories_of_another_version_changed_or_busy(toy, tmp_path, monkeypatch):
    sweep(seeds(4), tmp_path / "out")
    paths = [run_path(tmp_path / "out", p.key) for p in plan(seeds(4).expand())]
    manifest = paths[0] / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"schema": 2}))
    (paths[1] / "comparison.json").write_text("{}")
    unfinished = json.loads((paths[2] / "manifest.json").read_text())
    del unfinished["stages"]["report"]
    (paths[2] / "manifest.json").write_text(json.dumps(unfinished))
    monkeypatch.setattr(work, "PATIENCE", 0.1)
    with RunDirectory.open(paths[2]).lock():
        found = sweep(seeds(4), tmp_path / "out", rerun_failed=True)
    assert list(found.studies["state"]) == ["failed", "failed", "busy", "done"]
    assert (
        "expected schema 1, found 2" in found.studies["reason"][0]
        and "changed since" in found.studies["reason"][1]
    )
    assert toy.runs[0] == toy.runs[2] == toy.runs[3] == 1 and not (paths[0] / FAILURE).exists()


def test_a_worker_loads_each_model_once_and_drops_it_after_a_fault(toy, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(Path(wb.__file__).parents[1] / "data/organism/model", copy)
    asked = Sweep(base=SMALL, grid={"seed": (0, 1, 2), "model": ("organism", str(copy))})
    assert sweep(asked, tmp_path / "out").counts == {"done": 6}
    assert sorted(toy.loads) == sorted(["organism", str(copy)])
    toy.loads.clear()
    toy.behave = lambda study, directory: 1 / 0 if study.seed == 10 else None
    sweep(Sweep(base=SMALL, grid={"seed": (10, 11, 12)}), tmp_path / "other")
    assert toy.loads == ["organism", "organism"]


def test_one_place_one_sweep_and_more_workers_need_ray(toy, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds no sweep"):
        sweep(seeds(1), tmp_path / "mine")
    with pytest.raises(UserError, match="found a file"):
        sweep(seeds(1), tmp_path / "mine/notes.txt")
    with pytest.raises(UserError, match="at least one worker"):
        sweep(seeds(1), tmp_path / "out", workers=0)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        UserError,
        match=r"more than one worker needs the package ray: pip install 'persona-workbench\[sweep\]'",
    ):
        sweep(seeds(2), tmp_path / "out", workers=2)
    assert not toy.runs and sweep(seeds(2), tmp_path / "out", workers=1).counts == {"done": 2}


# what is shown


def test_the_live_table_counts_and_escapes(capsys):
    show = LiveTable({"a": "seed=0", "b": "<script>", "c": "seed=2"}, [StudyOutcome("c", "done")])
    with show:
        show.stage("a", "search resga", 0.25)
        show.ended(StudyOutcome("b", "failed", "a [bold]reason[/bold]"))
    assert show.headline().startswith("1 of 3 done, 1 failed")
    assert show.frame().to_numpy().tolist() == [
        ["seed=0", "search RESGA", "25 %"],
        ["<script>", "failed", "a [bold]reason[/bold]"],
    ]
    assert "<script>" not in show._html().data and "&lt;script&gt;" in show._html().data
    assert "<script> failed" in capsys.readouterr().err


def test_the_overview_means_over_seeds_and_never_over_questions(tmp_path):
    runs = []
    for i, (seed, questions) in enumerate(
        [(0, QUESTIONS), (1, QUESTIONS), (2, QUESTIONS), (3, QUESTIONS | {"hash": "other"})]
    ):
        place = tmp_path / f"run {i}"
        place.mkdir()
        write_json(place / "comparison.json", toy_comparison(Study(seed=seed), questions))
        (place / "report.html").write_text("x")
        runs.append(OverviewRun(place, f"seed={seed}"))
    page = write_overview(
        [*runs, OverviewRun(tmp_path / "gone", "<b>bad</b>", "failed", "<i>why</i>")], tmp_path / "page.html"
    ).read_text()
    shifts = [-1.0, -1.1, -1.2]
    low, high = scipy.stats.t.interval(0.95, 2, np.mean(shifts), scipy.stats.sem(shifts))
    assert f"−1.10<small>{low:+.2f} to {high:+.2f}".replace("-", "−") in page
    assert "−1.30<small>−2.30 to −0.30" in page and page.count("<svg") == 2
    assert (
        'href="run%200/report.html"' in page
        and "<b>bad" not in page
        and "&lt;b&gt;bad" in page
        and "&lt;i&gt;why" in page
    )
    assert "<script" not in page and "default-src &#39;none&#39;" in page
    with pytest.raises(UserError, match="no directory"):
        write_overview([tmp_path / "nowhere"], tmp_path / "page.html")


called = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")


@called
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["sweep", "bad.yaml"], "bad.yaml, field grid.seed"),
        (["sweep"], "expected a sweep file or --ablation"),
        (["sweep", "--ablation", "depth"], "unknown ablation 'depth'"),
        (["transfer", "nowhere", "--model", "organism"], "nowhere: expected a run directory"),
        (["report", "one", "two"], "needs --out"),
    ],
)
def test_the_command_line_says_mistakes_in_one_line(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text("grid: {seed: 3}\n")
    monkeypatch.setattr(sys, "argv", ["workbench", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and says in said and len(said.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


@called
def test_the_command_line_runs_a_sweep_and_an_overview_of_its_runs(toy, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("two.yaml").write_text(seeds(2).to_yaml())
    monkeypatch.setattr(sys, "argv", ["workbench", "sweep", "two.yaml", "--out", "swept", "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    rows = json.loads(capsys.readouterr().out)
    assert not ended.value.code and [row["state"] for row in rows] == ["done", "done"]
    monkeypatch.setattr(
        sys, "argv", ["workbench", "report", *(f"swept/{row['run']}" for row in rows), "--out", "both.html"]
    )
    with pytest.raises(SystemExit):
        cli.main()
    assert Path("both.html").read_text().count(">report</a>") == 2


# the real thing, once


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """One study with another persona, from a manual prompt, by a sweep."""
    asked = Sweep(
        name="real",
        base=SMALL | {"beside": {"hallucination": "hold"}, "search.start": "manual"},
        studies=({"seed": 5},),
    )
    return asked, sweep(asked, tmp_path_factory.mktemp("real") / "out", threads=1)


def test_a_sweep_gives_what_the_study_gives_alone(real, organism, tmp_path):
    asked, found = real
    assert found.counts == {"done": 1}, found.studies["reason"].tolist()
    alone = read_json(
        run(asked.expand()[0].study, tmp_path / "alone", model=organism).file("comparison.json")
    )
    swept = read_json(found.path / found.studies["run"][0] / "comparison.json")
    for one, two in zip(alone["conditions"], swept["conditions"], strict=True):
        one.pop("cost"), two.pop("cost")
        assert one == two
    assert list(found.results["log_odds"]) == [c["log_odds"] for c in alone["conditions"]]
    assert 'report.html">report</a>' in (found.path / "overview.html").read_text()


def test_what_happened_to_the_other_persona_is_in_the_collateral(real, organism):
    _, found = real
    entries = read_json(found.path / found.studies["run"][0] / "comparison.json")["conditions"]
    study = Study.load(found.path / found.studies["run"][0] / "study.yaml")
    other = Material.load(study, organism).others()[0]
    contexts = wb.make_contexts(organism, other.splits.test, "system")
    assert entries[0]["collateral"]["hallucination_log_odds"] == pytest.approx(
        wb.answer(organism, contexts).log_odds.mean(), abs=1e-9
    )
    prompt = next(e["prompt"] for e in entries if e["name"] == "resga")
    ids = wb.answer(organism, contexts, prompt)
    assert next(e for e in entries if e["name"] == "resga")["collateral"][
        "hallucination_log_odds"
    ] == pytest.approx(ids.log_odds.mean(), abs=1e-9)


def test_transfer_to_the_same_model_gives_the_run_s_own_figures(real, tmp_path):
    _, found = real
    path = found.path / found.studies["run"][0]
    table = wb.transfer([path], ["organism"]).table
    own = next(c for c in read_json(path / "comparison.json")["conditions"] if c["name"] == "resga")
    row = table.iloc[0]
    assert len(table) == 1 and (row["prompt"], row["problem"]) == (own["prompt"], "")
    assert (row["rate"], row["shift"]) == pytest.approx(
        (own["rate"], own["differences"][0]["log_odds"]), abs=1e-9
    )
    assert row["shift_at_source"] == pytest.approx(row["shift"], abs=1e-9)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no run directory"):
        wb.transfer([tmp_path / "empty"], ["organism"])


def test_transfer_puts_the_text_to_another_tokenizer(real, tmp_path):
    from tests.support.tiny_checkpoints import tiny_checkpoint

    _, found = real
    path = found.path / found.studies["run"][0]
    other = tiny_checkpoint("llama", tmp_path / "llama")
    result = wb.transfer([path], [str(other)])
    row, model = result.table.iloc[0], wb.load_model(other)
    test = wb.load_persona("sycophancy").split(0, (0.3, 0.15, 0.15, 0.4)).test.take(12, 0)
    contexts = wb.make_contexts(model, test, "system")
    shift = (
        wb.answer(model, contexts, row["prompt"]).log_odds.mean() - wb.answer(model, contexts).log_odds.mean()
    )
    assert row["problem"] == "" and row["shift"] == pytest.approx(shift, abs=1e-6)
    assert row["tokens"] == len(wb.runner_for(model).encode(row["prompt"]))


# settings that sweeps needed


def test_a_search_can_start_from_a_manual_prompt(organism):
    material = Material.load(
        Study.from_yaml("{search: {start: manual}, data: {search_items: 4}, sae: none}"), organism
    )
    contexts, runner = material.search_contexts, wb.runner_for(organism)
    manual = runner.encode(material.persona.manual_prompts["suppress"][0])
    for length in (1, len(manual), 2 * len(manual) + 1):
        method = search_stage.started(material, contexts, wb.EPO(length=length))
        assert runner.encode(method.start_text) == (manual * 9)[:length]
    whole = search_stage.started(material, contexts, wb.SentenceSearch())
    assert whole.start_text == material.persona.manual_prompts["suppress"][0]
    entropies = [
        prompt_cross_entropy(organism, contexts, text) for text in material.persona.manual_prompts["suppress"]
    ]
    assert search_stage.with_limit(material, contexts, whole).max_cross_entropy == pytest.approx(
        sum(entropies) / len(entropies)
    )
    plain = Material.load(Study.from_yaml("{data: {search_items: 4}, sae: none}"), organism)
    assert search_stage.started(plain, contexts, wb.EPO(length=2)).start_text is None


@pytest.mark.parametrize("sign", ["suppress", "induce"])
def test_personas_beside_are_pulled_where_they_are_wanted_whatever_the_study_s_sign(sign):
    beside = {"hallucination": "suppress", "myopic_reward": "hold"}
    study = Study(sign=sign, beside=beside, beside_weight=0.5)
    site = Site(1)
    e = torch.eye(3)
    directions = [type("D", (), {"vector": e[i], "site": site})() for i in (1, 2)]
    own = wb.projection(type("D", (), {"vector": e[0], "site": site})())
    total = search_stage.with_other_personas(study, own, directions)
    resid = torch.tensor([[2.0, 3.0, 5.0]])
    readout = Readout(dict.fromkeys(total.sites, resid), None, torch.zeros(1, 2, dtype=torch.long), None)
    goal = total if sign == "induce" else -total
    turn = 1 if sign == "induce" else -1
    assert float(goal.score(readout)) == pytest.approx(turn * 2.0 + 0.5 * (-3.0 - 25.0))
    assert goal.sign == turn
