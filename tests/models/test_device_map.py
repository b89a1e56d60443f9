"""A model whose blocks are on several devices."""

import json
import subprocess
import sys

import pytest
import torch
from transformers import LlamaForCausalLM

from tests.support.paths import ROOT
from tests.support.tiny_checkpoints import tiny_checkpoint
from workbench.errors import UserError
from workbench.models import load_model, model_directory, runner_for


@pytest.mark.parametrize(
    ("family", "tied"), [("llama", False), ("qwen2", True), ("gemma2", True), ("gemma3", True)]
)
def test_no_operation_meets_tensors_of_two_devices(family, tied, tmp_path):
    path = tiny_checkpoint(family, tmp_path / family, tie_word_embeddings=tied)
    command = [sys.executable, "-m", "tests.support.pretend_devices", path, "tied" if tied else "untied"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr[-2000:]
    found = json.loads(ran.stdout)
    assert found["blocks"] == ["pretend:0", *["pretend:1"] * (len(found["blocks"]) - 1)]
    assert found["out"] == ["pretend:0"] * 3, (
        "residuals, logits and what hooks see come back to the embedding"
    )
    assert found["kept"] == found["blocks"], "keys stay with their block"


def test_a_map_onto_one_device_gives_the_same_logits_through_accelerates_hooks(tmp_path):
    path = tiny_checkpoint("llama", tmp_path / "tiny")
    ids = torch.tensor([[3, 8, 21, 5]])
    whole = []
    for device in ("cpu", {"": "cpu"}):
        runner = runner_for(load_model(path, device=device, backend="bridge"))
        whole.append(runner.logits(runner.run(runner.embed(ids), 0, runner.shape.n_layers)[0]))
    torch.testing.assert_close(*whole)


def test_what_cannot_be_spread_is_told_in_one_line(tmp_path):
    path = tiny_checkpoint("llama", tmp_path / "tiny")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="'balanced' spreads a model over CUDA devices: none"):
            load_model(path, device="balanced")
        with pytest.raises(UserError, match="device 'cuda:7' is not available"):
            load_model(path, device={"": 7})
    with pytest.raises(UserError, match=r"cannot hold .* exactly .*device map"):
        load_model(path, device={"": "cpu"}, backend="hooked")
    with pytest.raises(
        UserError, match="does not fit into the GPUs: 1 modules are left out, the first is lm_head"
    ):
        model_directory._refuse_offloaded(
            model_directory.open_model_directory(path), {"model": 0, "lm_head": "cpu"}
        )


def test_weights_left_outside_the_gpus_are_told_before_their_values_are_looked_at(tmp_path, monkeypatch):
    """Accelerate keeps them on the meta device, where nothing can be asked."""
    path = tiny_checkpoint("llama", tmp_path / "tiny", tie_word_embeddings=False)
    checkpoint = model_directory.open_model_directory(path)
    own = LlamaForCausalLM.from_pretrained

    def offloaded(*args, device_map, **named):
        model, info = own(*args, **named)
        model.lm_head.to("meta")
        model.hf_device_map = {"model": 0, "lm_head": "cpu"}
        return model, info

    monkeypatch.setattr(LlamaForCausalLM, "from_pretrained", offloaded)
    with pytest.raises(
        UserError, match="does not fit into the GPUs: 1 modules are left out, the first is lm_head"
    ):
        model_directory.load_reference(checkpoint, torch.float32, "balanced")
