"""The pipeline on the organism at a toy size: files, resume, determinism; and the command line's exit codes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from tests.support.paths import ROOT
from tests.support.tiny_study import TINY
from workbench.comparison import chosen_condition
from workbench.conditions import NoPrompt
from workbench.conditions.prompt_proposers import check_endpoint
from workbench.contexts import make_contexts
from workbench.errors import UserError
from workbench.evaluation import text_cross_entropies
from workbench.forced_choice import answer
from workbench.models import find_source
from workbench.objective_words import objective_words
from workbench.personas import Split, load_persona
from workbench.report.load_run import load_run
from workbench.runs import RunDirectory
from workbench.study import Study, run
from workbench.study.material import Material
from workbench.study.off_target_measures import off_target_measures
from workbench.study.stages.attribution import best_search
from workbench.study.stages.search import make_method
from workbench.study.study_settings import OffTargetSettings, ProposerSettings

FILES = [
    "study.yaml",
    "manifest.json",
    "direction.safetensors",
    "direction.json",
    "latents.json",
    "search/frontier.json",
    "search/history.parquet",
    "evaluation.parquet",
    "off_target.parquet",
    "questions.parquet",
    "comparison.json",
    "attribution.parquet",
    "attribution.json",
    "cards.json",
    "cards.parquet",
    "report.html",
    "log.jsonl",
]


@pytest.fixture(scope="module")
def finished(organism, tmp_path_factory) -> RunDirectory:
    return run(TINY, tmp_path_factory.mktemp("study") / "with a space", model=organism)


def test_a_run_leaves_the_files_of_the_contract(finished):
    for name in FILES:
        assert (finished.path / name).stat().st_size > 0, name
    entry = json.loads((finished.path / "comparison.json").read_text())
    assert entry["schema"] == 1 and entry["persona"] == "sycophancy" and entry["sign"] == "suppress"
    assert set(entry["splits"]) == {"train", "search", "selection", "test"}
    names = [c["name"] for c in entry["conditions"]]
    assert names[0] == "no prompt" and {"resga", "saega", "steering", "manual"} <= set(names)
    for condition in entry["conditions"]:
        assert {
            "kind",
            "method",
            "rate",
            "ci",
            "log_odds",
            "log_odds_ci",
            "n",
            "groups",
            "differences",
            "cost",
            "collateral",
        } <= set(condition)
        assert condition["name"] == "no prompt" or any(
            d["to"] == "no prompt" for d in condition["differences"]
        )
    assert finished.manifest().test_reads == 1


def test_the_report_of_a_real_run_lacks_nothing(finished):
    """The objective is written as an object; the report read a text, so every ordinary report lost its section on the search."""
    contents = load_run(finished.path)
    page = (finished.path / "report.html").read_text(encoding="utf-8")
    assert contents.missing == [] and "What this page lacks" not in page and '<section id="frontier"' in page
    assert contents.frontier is not None and set(contents.frontier.searches) == {"resga", "saega"}
    assert objective_words(contents.frontier.searches["resga"].objective).startswith(
        "minus the projection on the direction"
    )


def test_beside_each_effect_stands_what_else_it_does(finished, organism):
    entry = json.loads((finished.path / "comparison.json").read_text())
    names = {
        "agreement_with_true_statements",
        "hallucination_log_odds",
        "myopic_reward_log_odds",
        "unrelated_text_nats",
    }
    assert all(set(condition["collateral"]) == names for condition in entry["conditions"])
    other = load_persona("hallucination").split(0, TINY.data.fractions).test.take(6, 0)
    found = next(c for c in entry["conditions"] if c["kind"] == "resga")
    read = answer(organism, make_contexts(organism, other), found["prompt"]).log_odds.mean()
    assert found["collateral"]["hallucination_log_odds"] == pytest.approx(float(read), abs=1e-4)
    stages = json.loads((finished.path / "manifest.json").read_text())["stages"]
    assert all(stage["peak_memory_mb"] > 100 for stage in stages.values())
    assert all(stage["flops"] > 0 for name, stage in stages.items() if name != "report")


def test_capability_and_texts_of_ones_own(organism, tmp_path):
    rows = "\n".join(
        f"does the {word} help,yes,no" for word in ("tea", "garden", "market", "winter", "music")
    )
    (tmp_path / "ab.csv").write_text(f"question,matching,not_matching\n{rows}\n")
    (tmp_path / "known.yaml").write_text(
        "name: known\ndescription: What is so.\ndata: ab.csv\nmetric: text\n"
    )
    (tmp_path / "texts.txt").write_text("tea is warm\n\nthe garden is quiet\n")
    asked = TINY.model_copy(
        update={
            "collateral": OffTargetSettings(
                items=6, texts=str(tmp_path / "texts.txt"), capability=str(tmp_path / "known.yaml")
            )
        }
    )
    figures = off_target_measures(Material.load(asked, organism))
    persona = load_persona(str(tmp_path / "known.yaml"))
    read = answer(organism, make_contexts(organism, Split("capability", persona.items, persona)))
    assert figures["capability"](organism, NoPrompt()).figure == pytest.approx(read.chose_matching.mean())
    by_hand = text_cross_entropies(organism, ["tea is warm", "the garden is quiet"])
    weighted = sum(loss * n for loss, n in by_hand) / sum(n for _, n in by_hand)
    assert figures["unrelated_text_nats"](organism, NoPrompt()).figure == pytest.approx(weighted)
    (tmp_path / "texts.txt").write_text("\n")
    with pytest.raises(UserError, match="a text a line"):
        off_target_measures(Material.load(asked, organism))


def test_a_missing_file_of_the_collateral_is_told_before_anything_is_computed(organism, tmp_path):
    """It was once raised only after all searches."""
    asked = TINY.model_copy(
        update={"collateral": OffTargetSettings(items=6, texts=str(tmp_path / "nothing.txt"))}
    )
    with pytest.raises(UserError, match=r"nothing\.txt"):
        run(asked, tmp_path / "run", model=organism)
    assert not RunDirectory.create(tmp_path / "run", resume=True).manifest().stages


def test_a_second_judge_that_is_not_there_is_refused_before_anything_is_computed(organism, tmp_path):
    asked = TINY.model_copy(
        update={"search": TINY.search.model_copy(update={"judge": str(tmp_path / "nothing")})}
    )
    with pytest.raises(UserError, match=r"no model directory at .*nothing"):
        run(asked, tmp_path / "run", model=organism)


def test_the_prompt_of_the_headline_is_the_one_that_is_attributed(finished):
    """Of the primary searches the best on selection, whatever its place in the study; ties go by order."""
    contents = load_run(finished.path)
    assert contents.comparison is not None
    entry = json.loads((finished.path / "attribution.json").read_text())
    assert entry["prompt"] == chosen_condition(contents.comparison).prompt
    frontiers = {
        name: SimpleNamespace(candidates=[SimpleNamespace(chosen=True, selection_rate=r)])
        for name, r in (("resga", 0.6), ("saega", 0.4))
    }
    assert [
        best_search(TINY.model_copy(update={"sign": sign}), frontiers) for sign in ("suppress", "induce")
    ] == ["saega", "resga"]
    assert (
        best_search(TINY.model_copy(update={"primary": ("resga",)}), frontiers) == "resga"
        and best_search(TINY, {}) is None
    )


def test_the_explanation_has_its_circuit_side_effects_and_cards(finished):
    entry = json.loads((finished.path / "attribution.json").read_text())
    assert (
        0 < len(entry["circuit"]["nodes"]) <= 12
        and entry["circuit"]["verdict"]
        and {d["kind"] for d in entry["dose"]} == {"prompt", "steering"}
    )
    aimed = {row["latent"] for row in json.loads((finished.path / "latents.json").read_text())["latents"]}
    assert {m["latent"] for m in entry["side_effects"]["inside"]} == aimed and entry["side_effects"]["manual"]
    cards = json.loads((finished.path / "cards.json").read_text())["cards"]
    assert aimed <= {card["latent"] for card in cards} and len(cards) == 12


def test_resume_does_nothing_twice(finished, organism):
    before = {name: (finished.path / name).read_bytes() for name in FILES[2:15]}
    run(TINY, finished.path, resume=True, model=organism)
    assert {name: (finished.path / name).read_bytes() for name in before} == before
    assert finished.manifest().test_reads == 1


def test_the_same_seed_gives_the_same_prompts_and_figures(finished, organism, tmp_path):
    again = run(TINY, tmp_path / "again", model=organism)
    entries = [json.loads((d.path / "comparison.json").read_text()) for d in (finished, again)]
    for one, two in zip(*(e["conditions"] for e in entries), strict=True):
        assert (one["name"], one["prompt"], one["rate"], one["log_odds"]) == (
            two["name"],
            two["prompt"],
            two["rate"],
            two["log_odds"],
        )


def test_another_study_in_the_directory_is_refused(finished, organism):
    with pytest.raises(UserError, match="describes another study"):
        run(TINY.model_copy(update={"seed": 1}), finished.path, resume=True, model=organism)
    with pytest.raises(UserError, match="not empty"):
        run(TINY, finished.path, model=organism)


def test_yaml_and_python_are_one_type():
    assert Study.from_yaml(TINY.to_yaml()) == TINY
    with pytest.raises(UserError, match=r"mine, field search.budgt"):
        Study.from_yaml("search: {budgt: 3}", "mine")
    with pytest.raises(UserError, match="unknown condition 'magic'"):
        Study.from_yaml("conditions: [magic]")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "missing.yaml", "--out", "x"], "missing.yaml"),
        (["demo", "--persona", "greed"], "greed"),
        (["nonsense"], "nonsense"),
        (["report", "no_such_run"], "no_such_run"),
    ],
)
def test_mistakes_end_with_code_2_and_one_line(arguments, says, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "workbench.cli", *arguments], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert says in done.stderr and "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("workbench:")]) == 1
    assert list(tmp_path.iterdir()) == []


def test_help_and_import_do_not_load_torch():
    code = "import sys, workbench, workbench.cli; assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.fixture
def stopped(organism, tmp_path) -> RunDirectory:
    """A run that Ctrl-C ended in the second step of its first search."""

    def interrupt(stage, progress):
        if progress.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(TINY, tmp_path / "run", model=organism, watch=interrupt)
    return RunDirectory.open(tmp_path / "run")


def test_an_interrupted_search_is_not_done_and_the_resumed_run_has_the_uninterrupted_ones_figures(
    stopped, finished, organism
):
    assert "directions" in stopped.manifest().stages and not any(
        name.startswith("search") for name in stopped.manifest().stages
    )
    run(TINY, stopped.path, resume=True, model=organism)
    for name in ("evaluation.parquet", "search/resga.parquet"):
        same = ["search", "step", "best_objective", "item", "log_odds"]
        one, other = (pd.read_parquet(directory.file(name)) for directory in (stopped, finished))
        pd.testing.assert_frame_equal(one.filter(same), other.filter(same))


def test_resuming_with_other_data_or_another_sae_is_refused_by_name_and_told_with_force(
    stopped, organism, monkeypatch
):
    real = Material.input_hashes
    monkeypatch.setattr(
        Material, "input_hashes", lambda self: real(self) | {"data": "0" * 64, "SAE": "f" * 16}
    )
    before = stopped.file("manifest.json").read_text()
    with pytest.raises(UserError, match=r"used other inputs \(data, SAE\).*--force"):
        run(TINY, stopped.path, resume=True, model=organism)
    assert stopped.file("manifest.json").read_text() == before
    page = (
        run(TINY, stopped.path, resume=True, model=organism, force=True)
        .file("report.html")
        .read_text(encoding="utf-8")
    )
    assert "resumed with other inputs than its finished stages had: data, SAE" in page


def test_labels_that_are_swapped_and_other_weights_are_other_inputs(organism):
    material = Material.load(TINY, organism)
    swapped = replace(
        material.persona,
        items=tuple(
            replace(i, matching=i.not_matching, not_matching=i.matching) for i in material.persona.items
        ),
    )
    plain, other = material.input_hashes(), replace(material, persona=swapped).input_hashes()
    assert plain["data"] != other["data"] and plain["model"] == other["model"]
    weight = material.sae.module.W_dec
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[0, 0] += 1
        changed = material.input_hashes()
        weight.copy_(kept)
    assert changed["SAE"] != plain["SAE"] and material.input_hashes() == plain


def test_another_lexicon_written_prompt_or_chat_template_is_another_input(organism, tmp_path, monkeypatch):
    words = tmp_path / "words.txt"
    words.write_text("honest\ncareful\n")
    material = Material.load(
        TINY.model_copy(update={"search": TINY.search.model_copy(update={"lexicon": str(words)})}), organism
    )
    plain = material.input_hashes()
    words.write_text("proud\nmuseum\n")
    assert material.input_hashes() != plain and material.input_hashes()["persona"] == plain["persona"]
    other = replace(material.persona, manual_prompts={"suppress": ("Be careful.",)})
    assert replace(material, persona=other).input_hashes()["persona"] != plain["persona"]
    monkeypatch.setattr(organism.tokenizer, "chat_template", "{{ messages[0].content }}")
    assert material.input_hashes()["tokenizer"] != plain["tokenizer"]


def test_another_judge_proposer_or_other_persona_is_another_input(organism, tmp_path, monkeypatch):
    """They were compared by name alone: a judge whose weights had changed went on judging."""
    home = find_source("organism").directory
    for role in ("judge", "proposer"):
        shutil.copytree(home, tmp_path / role)
    (tmp_path / "rows.csv").write_text(
        "question,matching,not_matching\n"
        + "\n".join(f"is {w} good,yes,no" for w in ("tea", "rain", "music", "bread"))
    )
    (tmp_path / "calm.yaml").write_text(
        "name: calm\ndescription: It is calm.\ndata: rows.csv\nmetric: text\n"
    )
    beside = str(tmp_path / "calm.yaml")
    search = TINY.search.model_copy(update={"judge": str(tmp_path / "judge")})
    update = {
        "search": search,
        "proposer": ProposerSettings(model=str(tmp_path / "proposer")),
        "beside": {beside: "hold"},
    }
    asked = TINY.model_copy(update=update | {"conditions": (*TINY.conditions, "llm_proposed")})
    material = Material.load(asked, organism)
    plain = material.input_hashes()
    for role, name in (("judge", "search.judge"), ("proposer", "proposer.model")):
        weights = tmp_path / role / "model.safetensors"
        whole = bytearray(weights.read_bytes())
        whole[len(whole) // 2] ^= 1  # one bit in the middle of the file
        weights.write_bytes(whole)
        changed = material.input_hashes()
        assert [key for key in plain if changed[key] != plain[key]] == [name]
        plain = changed
    (tmp_path / "calm.yaml").write_text(
        "name: calm\ndescription: It is loud.\ndata: rows.csv\nmetric: text\n"
    )
    assert [key for key, value in material.input_hashes().items() if plain[key] != value] == [
        f"beside.{beside}"
    ]
    unused = Material.load(asked.model_copy(update={"conditions": TINY.conditions}), organism).input_hashes()
    assert "proposer.model" not in unused and "search.judge" in unused


def test_any_change_of_the_models_files_or_of_how_the_persona_is_asked_is_another_input(tmp_path):
    """The fingerprint reads 64 numbers of each weight, the vocabulary no merges: both could change between kill and resume."""
    home = Path(shutil.copytree(find_source("organism").directory, tmp_path / "model"))
    asked = TINY.model_copy(
        update={"model": TINY.model.model_copy(update={"name": str(home)}), "sae": "none"}
    )
    material = Material.load(asked)
    plain = material.input_hashes()
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        whole = bytearray((home / name).read_bytes())
        if name == "model.safetensors":
            whole[-4099] ^= 1
        (home / name).write_bytes(bytes(whole) + b"\n" * (name != "model.safetensors"))
        changed = Material.load(asked).input_hashes()
        assert [key for key in plain if changed[key] != plain[key]] == ["model files"], name
        plain = changed
    persona = material.persona
    assert persona.letters is not None
    changes = (
        {"letters": replace(persona.letters, opening="I say (")},
        {"metric": "letters"},
        {"normalization": "sum"},
    )
    for change in changes:
        other = replace(material, persona=replace(persona, **change)).input_hashes()
        assert other["persona"] != plain["persona"] and other["data"] == plain["data"], change


def test_other_settings_of_an_sae_with_the_same_weights_are_another_input(organism):
    material = Material.load(TINY, organism)
    plain, settings = material.input_hashes(), material.sae.module.cfg
    kept = settings.k
    try:
        settings.k = kept + 1
        assert material.input_hashes()["SAE"] != plain["SAE"]
    finally:
        settings.k = kept
    assert material.input_hashes() == plain


def test_a_study_that_was_edited_inside_the_run_is_refused(stopped, organism):
    """The settings of the run's own study.yaml were compared with those of the resume only: a user edits it and resumes with it."""
    other = TINY.model_copy(update={"latents": 2})
    file = stopped.file("study.yaml")
    kept = file.read_text()
    file.write_text(other.to_yaml())
    with pytest.raises(UserError, match="was changed since this run wrote it"):
        run(Study.load(file), stopped.path, resume=True, model=organism)
    file.write_text(kept)
    run(TINY, stopped.path, resume=True, model=organism)


def test_a_study_that_its_first_stage_refuses_leaves_nothing(organism, tmp_path):
    wrong = TINY.model_copy(update={"directions": TINY.directions.model_copy(update={"layers": (10**30,)})})
    with pytest.raises(UserError, match="does not exist"):
        run(wrong, tmp_path / "new" / "run", model=organism)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "setting",
    [
        {"random_directions": 10**9},
        {"random_prompts": 10**9},
        {"beside_weight": float("inf")},
        {"search": {"budget": {"seconds": float("nan")}}},
    ],
    ids=str,
)
def test_numbers_that_no_machine_can_serve_are_refused_before_a_run(setting):
    with pytest.raises(UserError, match="field"):
        Study.of(setting, "study.yaml")


@pytest.mark.parametrize("option", ["length", "population", "children"])
def test_options_that_no_machine_can_serve_are_one_line(option, organism, tmp_path):
    """An allocation of terabytes was a traceback."""
    search = TINY.search.model_copy(update={"options": {"length": 4} | {option: 10**9}})
    with pytest.raises(UserError, match=option):
        make_method(TINY.model_copy(update={"search": search}), "epo")


def test_a_metric_that_was_chosen_on_other_inputs_is_chosen_anew(organism, tmp_path, monkeypatch):
    """Before a stage is done nothing is compared: the metric of a run that was stopped in its first stage is not kept."""
    with monkeypatch.context() as change:
        change.setattr("workbench.study.material.choose_metric", lambda *_: ("letters", "of other data"))
        change.setattr(
            "workbench.study.stages.directions.DirectionsStage.compute",
            lambda *_: (_ for _ in ()).throw(KeyboardInterrupt),
        )
        with pytest.raises(KeyboardInterrupt):
            run(TINY, tmp_path / "run", model=organism)
    assert RunDirectory.open(tmp_path / "run").manifest().notes["metric"]["why"] == "of other data"
    assert (
        run(TINY, tmp_path / "run", resume=True, model=organism).manifest().notes["metric"]["why"]
        != "of other data"
    )


def test_a_file_with_the_name_of_a_lexicon_is_no_input(organism, tmp_path, monkeypatch):
    (tmp_path / "all").write_text("honest\n")
    (tmp_path / "auto").write_text("honest\n")
    monkeypatch.chdir(tmp_path)
    for name in ("all", "auto"):
        material = Material.load(
            TINY.model_copy(update={"search": TINY.search.model_copy(update={"lexicon": name})}), organism
        )
        assert "search.lexicon" not in material.input_hashes()
    with pytest.raises(UserError, match="expected words, latin, all, auto, world, or a file"):
        run(
            TINY.model_copy(update={"search": TINY.search.model_copy(update={"lexicon": "nothing"})}),
            tmp_path / "run",
            model=organism,
        )


def test_a_study_file_cannot_choose_where_requests_and_keys_go(organism, tmp_path, monkeypatch):
    monkeypatch.delenv("WORKBENCH_ENDPOINTS", raising=False)
    asks = TINY.model_copy(
        update={
            "proposer": ProposerSettings(base_url="http://127.0.0.1:9/v1", model="m", key_variable="HOME")
        }
    )
    with pytest.raises(UserError, match=r"WORKBENCH_ENDPOINTS='http://127\.0\.0\.1:9/v1=HOME'"):
        run(asks, tmp_path / "run", model=organism)
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("WORKBENCH_ENDPOINTS", "http://127.0.0.1:9/v1=PATH http://other/v1")
    with pytest.raises(UserError, match="allow it yourself"):
        check_endpoint("http://127.0.0.1:9/v1", "HOME")
    check_endpoint("http://127.0.0.1:9/v1", "PATH")
    check_endpoint("http://other/v1", None)


def test_a_refused_study_leaves_nothing_behind(organism, tmp_path):
    with pytest.raises(UserError):
        run(TINY.model_copy(update={"persona": "nobody"}), tmp_path / "new" / "deep" / "run", model=organism)
    assert not (tmp_path / "new").exists()


def test_a_refused_study_leaves_what_was_there(organism, tmp_path):
    """It once removed an empty directory of the user's, and the beginning of an earlier run."""
    refused = TINY.model_copy(update={"persona": "nobody"})
    for place in ("mine", "used/run"):
        (tmp_path / place).mkdir(parents=True)
        with pytest.raises(UserError):
            run(refused, tmp_path / place, model=organism)
        assert (tmp_path / place).is_dir() and not any((tmp_path / place).iterdir())
    begun = RunDirectory.create(tmp_path / "begun")
    with pytest.raises(UserError):
        run(refused, begun.path, resume=True, model=organism)
    assert RunDirectory.open(begun.path).manifest() == begun.manifest()
    (tmp_path / "parent").mkdir()
    first, second = (RunDirectory.next_numbered(tmp_path / "parent" / "runs", "demo") for _ in range(2))
    for directory, left in ((second, ["runs"]), (first, [])):
        with pytest.raises(UserError):
            run(refused, directory, model=organism)
        assert [one.name for one in (tmp_path / "parent").iterdir()] == left


@pytest.mark.parametrize(
    ("update", "says"),
    [
        ({"seed": -1}, "field seed"),
        ({"sign": "up"}, "field sign"),
        ({"conditions": ("nothing",)}, "unknown condition 'nothing'"),
        ({"search": {"steps": 3}}, r"field search\.steps"),
        ({"seed": object()}, "cannot be written to its file"),
    ],
)
def test_a_study_that_was_copied_without_validation_is_refused_before_anything_is_made(
    tmp_path, update, says
):
    with pytest.raises(UserError, match=says):
        run(TINY.model_copy(update=update), tmp_path / "run")
    assert not (tmp_path / "run").exists()
