"""The planner against published sizes, Hugging Face's own counts, and the meter of real runs."""

from __future__ import annotations

import json
import sys
from itertools import product

import pytest

import workbench as wb
from tests.support.caa_data import caa_file
from tests.support.tiny_checkpoints import FAMILIES, tiny_checkpoint
from workbench import cli
from workbench.budget import Budget
from workbench.models import runner_for
from workbench.models.memory_estimate import LargestBatch
from workbench.models.model_sizes import KNOWN, model_sizes_of
from workbench.study import Study, machine_speeds
from workbench.study.cost_estimate import plan
from workbench.study.data_sizes import DataSizes
from workbench.study.machine_speeds import MACHINES
from workbench.study.off_target_measures import PROSE
from workbench.study.stage_costs import StageCounts, StageTokens
from workbench.study.study_presets import PERSONAS, SAES, preset
from workbench.study.study_settings import (
    AttributionSettings,
    DataSettings,
    DirectionSettings,
    SearchSettings,
)


def test_the_papers_models_have_their_published_numbers_of_weights():
    assert KNOWN["llama-3.1-8b-instruct"].parameters == 8_030_261_248
    assert KNOWN["qwen2.5-7b-instruct"].parameters == 7_615_616_512
    assert (
        KNOWN["gemma-3-4b-it"].parameters == 3_880_263_168
    )  # google/gemma-3-4b-it without its vision tower (4.30 billion with it)


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_from_the_config_are_the_loaded_models(family, tmp_path):
    """Counted on the meta device, against the weights that `load_model` has (its runner's shape)."""
    directory = tiny_checkpoint(family, tmp_path / family)
    facts = model_sizes_of(str(directory))
    shape = runner_for(wb.load_model(directory, backend="bridge")).shape
    assert (facts.shape.n_layers, facts.shape.d_model, facts.shape.d_head, facts.shape.d_vocab) == (
        shape.n_layers,
        shape.d_model,
        shape.d_head,
        shape.d_vocab,
    )
    assert (facts.shape.n_heads, facts.shape.n_kv_heads, facts.shape.tied) == (
        shape.n_heads,
        shape.n_kv_heads,
        shape.tied,
    )
    assert facts.shape.block_parameters == pytest.approx(
        shape.block_parameters, rel=0.1
    )  # the bridge holds GPT-2's joint weights twice


@pytest.mark.parametrize(
    ("persona", "model", "protocol"), [*product(PERSONAS, SAES, ("published", "corrected"))]
)
def test_every_preset_can_be_planned_without_weights_or_data(persona, model, protocol):
    found = plan(preset(persona, model, protocol))
    table = found.table.set_index("stage")
    assert (
        table.loc["all", "tflops"] == pytest.approx(table["tflops"].iloc[:-1].sum())
        and "is not here" in found.notes[0]
    )
    assert (
        table.loc["all", "80 GB GPU (H100) s"] > 0
        and table.loc["all", "80 GB GPU (H100) GB"] >= 2 * found.facts.parameters / 1e9
    )
    assert 60 < table.loc["all", f"{MACHINES[0].name} s"] < 24 * 3600, (
        "one GPU of 80 GB holds each of them, within a day"
    )


def test_more_steps_cost_in_proportion_and_what_does_not_fit_has_no_time():
    study = preset("sycophancy", "llama-3.1-8b-instruct", "corrected")
    twice = study.model_copy(update={"search": study.search.model_copy(update={"budget": Budget(steps=600)})})
    one, two = (next(s.flops for s in plan(s).stages if s.name == "search resga") for s in (study, twice))
    assert one < two < 2 * one and two > 1.9 * one
    wide = study.model_copy(update={"search": study.search.model_copy(update={"batch_tokens": 10**6})})
    row = plan(wide).table.set_index("stage").loc["search resga"]
    assert row["24 GB GPU (RTX 4090) GB"] > 24 and row.isna()["24 GB GPU (RTX 4090) s"]


def test_every_limit_of_a_budget_counts_and_the_tightest_ends_the_search():
    """A budget in model calls was planned as a minute of a GPU. By definition: n calls are n questions run through all blocks."""
    study = preset("sycophancy", "organism", "corrected")
    search_cost = lambda **limits: next(  # noqa: E731
        stage.token_layers - once
        for stage in plan(
            study.model_copy(update={"search": study.search.model_copy(update={"budget": Budget(**limits)})})
        ).stages
        if stage.name == "search resga"
    )
    once = 0.0
    one, two = search_cost(steps=1), search_cost(steps=2)
    step, once = two - one, 2 * one - two
    found = plan(study)
    call = found.question * found.facts.shape.n_layers
    assert search_cost(model_calls=5000) == pytest.approx(5000 * call)
    assert (
        search_cost(model_calls=5000, steps=1)
        == pytest.approx(step)
        == pytest.approx(search_cost(model_calls=1e9, steps=1))
    )


def test_a_search_over_sentences_costs_its_candidates_and_not_every_parents_children():
    """Twice the sentences scored a step, and twice the edits, cost more, in proportion to what each is; gradients are no part of a step."""
    study = preset("sycophancy", "llama-3.1-8b-instruct", "corrected")

    def cost(**options) -> float:
        search = study.search.model_copy(
            update={"method": "sentences", "options": options, "budget": Budget(steps=100)}
        )
        return next(
            s.token_layers
            for s in plan(study.model_copy(update={"search": search})).stages
            if s.name == "search resga"
        )

    layers = 32
    assert cost(edited=160) - cost(edited=80) == pytest.approx(100 * 80 * 12 * layers / 2)
    assert cost(children=32) > cost(children=16) and cost(population=3) == cost(population=6)


def test_unknown_data_is_named():
    with pytest.raises(wb.UserError, match=r"nowhere\.json: no such data file"):
        plan(preset("sycophancy", data="nowhere.json"))


MEASURED = Study(
    data=DataSettings(train_items=24, search_items=12, selection_items=8, test_items=24),
    sae="none",
    directions=DirectionSettings(
        layers=(2,), methods=("own_choice", "mean_difference"), rows=96, texts=8, contexts=8
    ),
    search=SearchSettings(
        options={"length": 6, "population": 4, "children": 8, "top_k": 32, "restart_every": 0},
        budget=Budget(steps=6),
        contexts=6,
        neutral=8,
    ),
    conditions=("manual", "resga", "steering"),
    random_directions=0,
    random_prompts=1,
    attribution=AttributionSettings(contexts=4),
)


def test_planned_flops_are_near_the_meters(organism, tmp_path):
    """Every stage of a run on the organism within a factor of 2 of what the runner counted (measured ratios: docs/models.md)."""
    done = wb.run(MEASURED, tmp_path / "run", model=organism).manifest().stages
    planned = {stage.name: stage.flops for stage in plan(MEASURED).stages}
    assert set(planned) == set(done) - {"report"}
    for name, flops in planned.items():
        assert 0.5 < flops / done[name].flops < 2, (name, flops / done[name].flops)


@pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
def test_the_command_plans_with_the_data_and_the_autoencoder_that_it_is_given(tmp_path, capsys, monkeypatch):
    (tmp_path / "study.yaml").write_text(MEASURED.to_yaml())
    planned = {}
    for name, extra in {
        "own": [],
        "given": ["--data", str(caa_file(tmp_path / "sycophancy.json")), "--sae", "somewhere"],
    }.items():
        monkeypatch.setattr(
            sys, "argv", ["workbench", "plan", str(tmp_path / "study.yaml"), "--json", *extra]
        )
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code
        planned[name] = {row["stage"]: row["tflops"] for row in json.loads(capsys.readouterr().out)}
    assert "latents" in planned["given"] and "latents" not in planned["own"]
    assert planned["given"]["directions"] != planned["own"]["directions"]


def test_gpu_seconds_include_the_starts_of_kernels():
    """A short search on a small model is bound by the host: seconds by hand from the runs of a block, 3 ms each."""
    study = Study.of(
        {"sae": "none", "conditions": ["resga"], "primary": ["resga"], "search": {"budget": {"steps": 12}}}
    )
    found = plan(study)
    stage, gpu = next(s for s in found.stages if s.name == "search resga"), found.machines[0]
    assert stage.seconds(gpu) == pytest.approx(
        stage.flops / gpu.speed + 0.003 * stage.block_runs + 2 * stage.weights_read / gpu.bandwidth
    )
    layers = found.facts.shape.n_layers
    assert stage.block_runs >= 12 * 5 * layers / 2 and 0.003 * stage.block_runs > 20 * stage.flops / gpu.speed
    assert found.machines[-1].launch == 0


def test_memory_of_a_gradient_is_planned_only_where_one_is_taken():
    """A search over sentences and exact removal take none: their peak is that of a pass."""
    plain = {"sae": "none", "conditions": ["answer_objective"], "primary": ["answer_objective"]}
    removal = {"attribution": {"estimators": ["removal"], "circuit": 0, "cards": 0}}
    stages = {
        s.name: s.memory
        for s in plan(
            Study.of(plain | removal | {"search": {"method": "sentences", "budget": {"model_calls": 60}}})
        ).stages
    }
    assert (
        stages["search answer_objective"] == "score candidates after a cached prefix"
        and stages["attribution"] == "forced-choice answers"
    )
    stages = {s.name: s.memory for s in plan(Study.of(plain)).stages}
    assert {stages["search answer_objective"], stages["attribution"]} == {"gradient of an objective"}


def test_the_largest_batch_of_a_stage_by_hand():
    """Cut by search.batch_tokens, a quarter with gradients, one row at least; a stage with fewer tokens has a smaller batch."""
    tokens = StageTokens(
        forward=6000, length=100, gradient=1500, gradient_blocks=7, cached=300, unembedded=0.02
    )
    assert tokens.batch(8192) == LargestBatch(60, 100, 15, 7, 300, 120)
    assert tokens.batch(2000) == LargestBatch(20, 100, 5, 7, 300, 40)
    assert (tokens.batch(64).sequences, tokens.batch(64).gradient_sequences) == (1, 1)


def test_a_comparison_runs_both_orders_of_its_questions_and_the_written_prompts_that_there_are():
    """By hand from the persona: 24 test questions in two orders are one batch, and each written prompt costs the selection questions once."""
    study = MEASURED.model_copy(update={"metric": "letters"})
    persona = wb.load_persona("sycophancy")
    found = {
        name: next(
            s for s in plan(study.model_copy(update={"conditions": names})).stages if s.name == "comparison"
        )
        for name, names in {"written": ("manual",), "none": ()}.items()
    }
    stage = found["written"]
    assert (
        stage.tokens.forward == pytest.approx(2 * 24 * stage.tokens.length) and stage.tokens.unembedded == 0
    )
    asked = len(persona.manual_prompts["suppress"]) * 2 * 8 + 2 * 24 + study.collateral.items
    per_question = (found["none"].token_layers - _prose_layers(study)) / (2 * 24 + study.collateral.items)
    assert stage.token_layers - found["none"].token_layers == pytest.approx(
        asked * per_question + _prose_layers(study)
    )


def _prose_layers(study: Study) -> float:
    """Token-layers of the unrelated prose under one condition, at 4 characters a token."""
    return sum(map(len, PROSE)) / 4 * plan(study).facts.shape.n_layers


def test_no_batch_of_a_study_has_more_tokens_than_it_allows(organism, tmp_path, monkeypatch):
    """Directions, comparison and attribution too, which ran 8,192 tokens at a time whatever was set."""
    runner, seen = runner_for(organism), []
    run = runner.run

    def noted(resid, *rest, **named):
        seen.append((resid.shape[0] * resid.shape[1], resid.shape[0], resid.requires_grad))
        return run(resid, *rest, **named)

    monkeypatch.setattr(runner, "run", noted)
    small = MEASURED.search.model_copy(update={"batch_tokens": 128, "budget": Budget(steps=1)})
    wb.run(MEASURED.model_copy(update={"search": small}), tmp_path / "run", model=organism)
    assert 64 < max(tokens for tokens, rows, _ in seen if rows > 1) <= 128
    assert any(slope for *_, slope in seen) and all(
        rows == 1 or tokens <= 32 for tokens, rows, slope in seen if slope
    )
    assert runner.at_most(8192) == 8192, "the limit ends with the run"


def test_the_core_is_measured_in_the_dtype_that_is_used(monkeypatch):
    """A study in bfloat16 is planned with the core's speed in bfloat16, on the CPU only."""
    monkeypatch.setattr(
        machine_speeds, "core_speed", lambda dtype="float32": {"float32": 1e11, "bfloat16": 4e11}[dtype]
    )
    peaks = {}
    for dtype in ("float32", "bfloat16"):
        *gpus, cpu = plan(Study.of({"model": {"name": "organism", "dtype": dtype}})).machines
        peaks[dtype] = cpu.peak
        assert cpu.dtype == dtype and {gpu.dtype for gpu in gpus} == {"bfloat16"}
    assert peaks == {"float32": 1e11, "bfloat16": 4e11}


def test_what_fits_is_said_with_dtype_and_batch():
    study = preset("sycophancy", "llama-3.1-8b-instruct", "corrected")
    (note,) = [n for n in plan(study).notes if n.startswith("24 GB GPU (RTX 4090), bfloat16")]
    batch = int(note.split("fits with ")[1].split()[0])
    smaller = study.model_copy(update={"search": study.search.model_copy(update={"batch_tokens": batch})})
    table = plan(smaller).table.set_index("stage")
    assert (
        table.loc["all", "24 GB GPU (RTX 4090) GB"] <= 24 and table.loc["all", "24 GB GPU (RTX 4090) s"] > 0
    )
    assert not [n for n in plan(smaller).notes if n.startswith("24 GB")]
    assert any("the weights alone take 32.1 GB" in n and "4-bit" in n for n in plan(study, "float32").notes)


@pytest.mark.parametrize("dtype", ("4bit", "int4", "nf4", "q4_k_m", "8-bit", "gptq"))
def test_quantised_weights_are_refused_by_name(dtype):
    for call in (lambda: plan(Study(), dtype), lambda: wb.load_model("organism", dtype=dtype)):
        with pytest.raises(wb.UserError, match="quantised weights are not supported"):
            call()


def test_whole_answers_are_counted_as_two_rows():
    """By hand: a question of the feedback form is run once for each of its two verdicts, letters once for both."""
    study = Study.of(
        {"model": {"name": "organism"}, "persona": "feedback_sycophancy", "conditions": ["manual"]}
    )
    sizes = model_sizes_of("organism")
    text, letters = (
        StageCounts(study, sizes, DataSizes(240, 60.0, 50.0, 1, (), answers, 55.0)) for answers in (12.0, 1.0)
    )
    layers = sizes.shape.n_layers
    assert text._asked(10, 55.0)[0] == 10 * 2 * (55 + 6 - 1) * layers
    assert letters._asked(10, 55.0)[0] == 10 * 55 * layers
