"""A study on a GPU with too little memory for its plan: refused before weights are read, with what would fit.

The GPU is pretended: only its free memory is asked before a model is loaded."""

from __future__ import annotations

import sys

import pytest
import torch

from tests.support.tiny_study import TINY
from workbench import cli
from workbench.errors import UserError
from workbench.runs import RunDirectory
from workbench.study import Study, material, room_for_study, run
from workbench.study.cost_estimate import counted
from workbench.study.room_for_study import refuse_plan, refuse_without_room
from workbench.study.study_presets import preset
from workbench.study.study_settings import ModelSettings
from workbench.sweep import study_worker
from workbench.sweep.study_worker import StudyWorker

#: A study whose searches, with their largest batches, need more memory than its other stages.
CUDA = Study(model=ModelSettings(device="cuda:0", dtype="float32"))


class Loaded(Exception):
    """Raised where the weights would be read."""


@pytest.fixture
def gpu(monkeypatch):
    """Function that sets the free memory of the pretended GPU."""

    def load(*settings):
        raise Loaded

    monkeypatch.setattr(room_for_study, "choose_device", str)
    monkeypatch.setattr(material, "load_model", load)
    monkeypatch.setattr(study_worker, "load_model", load)
    return lambda free: monkeypatch.setattr(room_for_study, "free_memory", lambda device: int(free))


def least(study: Study) -> int:
    """Bytes that a study needs: each stage at its setting, searches at batches of 16 tokens, to which they shrink."""
    found = counted(study)
    return max(
        found.bytes(stage, study.model.dtype, 16 if stage.name.startswith("search") else None)
        for stage in found.stages
    )


def test_the_limit_is_what_the_study_can_run_with(gpu, tmp_path):
    """95 % of the free memory may be planned. Above the limit weights are read, although the searches' largest batches need more."""
    need = least(CUDA)
    gpu(need / 0.95 + 1000)
    with pytest.raises(Loaded):
        run(CUDA, tmp_path / "more/run")
    found = counted(CUDA)
    assert max(found.bytes(stage, "float32") for stage in found.stages) > need / 0.95 + 1000
    gpu(need / 0.95 - 1000)
    with pytest.raises(
        UserError, match=r"^organism: the plan needs too much memory: cuda:0 with 0\.1 GB free"
    ):
        run(CUDA, tmp_path / "less/run")
    assert not (tmp_path / "less").exists()


def test_a_cpu_is_not_asked_for_its_memory(gpu, tmp_path):
    gpu(1)
    with pytest.raises(Loaded):
        run(TINY, tmp_path / "run")


@pytest.mark.parametrize(
    "dtype, free, says",
    [
        ("bfloat16", 24e9, "fits with 2048 (22.7 GB): "),
        ("float32", 24e9, "weights alone take 32.1 GB; 4-bit weights are not supported: bfloat16 fits with "),
        ("float32", 80e9, None),
        (
            "bfloat16",
            10e9,
            "weights alone take 16.1 GB; 4-bit weights are not supported: a smaller model, or ",
        ),
    ],
)
def test_an_8b_model_is_told_what_would_fit(gpu, dtype, free, says):
    """8,030,261,248 weights of 2 or 4 bytes; no weights are on this machine."""
    study = preset("sycophancy", "llama-3.1-8b-instruct", "corrected")
    study = study.model_copy(
        update={"model": study.model.model_copy(update={"device": "cuda", "dtype": dtype})}
    )
    gpu(free)
    if says is None:
        refuse_without_room(study)
        return
    with pytest.raises(UserError) as refused:
        refuse_without_room(study)
    words = str(refused.value)
    assert "\n" not in words and says in words, words
    assert words.startswith(
        f"llama-3.1-8b-instruct: the plan needs too much memory: cuda with {free / 1e9:.1f} GB free, {dtype}: "
    )
    advised = words.partition("search.batch_tokens ")[2].split()[0] if "bfloat16 fits" in words else None
    if tokens := advised or ("2048" if "fits with 2048" in words else None):
        search = study.search.model_copy(update={"batch_tokens": int(tokens)})
        model = study.model.model_copy(update={"dtype": "bfloat16"})
        refuse_without_room(study.model_copy(update={"search": search, "model": model}))


def test_a_resumed_study_needs_what_is_left(gpu):
    weights = 4 * counted(CUDA).facts.parameters
    names = [stage.name for stage in counted(CUDA).stages]
    gpu(1.2 * weights)
    with pytest.raises(UserError, match="cuda:0 with"):
        refuse_without_room(CUDA, names[:2])
    refuse_without_room(CUDA, names)


@pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
def test_the_program_ends_with_one_line_and_leaves_nothing(gpu, tmp_path, capsys, monkeypatch):
    file = tmp_path / "study.yaml"
    file.write_text("persona: sycophancy\nmodel: {name: organism, device: 'cuda:0'}\n")
    gpu(1e6)
    monkeypatch.setattr("workbench.models.loading.choose_device", str)
    monkeypatch.setattr(sys, "argv", ["workbench", "run", str(file), "--out", str(tmp_path / "new/run")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err.strip()
    assert ended.value.code == 2 and "memory: cuda:0 with 0.0 GB free" in said, said
    assert not (tmp_path / "new").exists()


def test_a_worker_counts_the_weights_that_it_holds(gpu, tmp_path, monkeypatch):
    """The first study's model stays in the GPU's memory, of which then less is free; a study with larger batches is refused by itself."""
    ran: list[int] = []
    weights = 4 * counted(CUDA).facts.parameters
    held = torch.nn.Linear(weights // 4, 1, bias=False)
    monkeypatch.setattr(study_worker, "load_model", lambda *settings: held)
    monkeypatch.setattr(study_worker, "run", lambda study, *rest, **named: ran.append(study.seed))
    memory = least(CUDA) / 0.95 + 1000
    worker = StudyWorker(1)
    (tmp_path / "runs").mkdir()
    for seed, free in ((0, memory), (1, memory - weights), (2, memory - weights - 4000)):
        gpu(free)
        worker.run(tmp_path, f"{seed:016d}", CUDA.model_copy(update={"seed": seed}), lambda *at: None)
    assert ran == [0, 1]
    reason = RunDirectory.open(next((tmp_path / "runs").glob("*2"))).file("failure.json").read_text()
    assert "fits with" in reason or "does not fit" in reason


def test_memory_is_compared_with_the_plan_of_any_device():
    refuse_plan(CUDA, least(CUDA) / 0.95 + 1000, "a GPU")
    with pytest.raises(UserError, match="a GPU, float32"):
        refuse_plan(CUDA, least(CUDA) / 0.95 - 1000, "a GPU")
