"""Broken, foreign and hostile directories: one clear line, nothing executed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.support.tiny_checkpoints import tiny_checkpoint
from tests.support.tiny_families import TinyFamilies
from workbench.errors import UserError
from workbench.models import model_directory, runner_for
from workbench.models.loading import load_model
from workbench.models.model_directory import INDEX, all_finite, load_tokenizer, open_model_directory

SIZES = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "vocab_size",
    "intermediate_size",
    "head_dim",
    "num_key_value_heads",
)


@pytest.fixture
def directory(families: TinyFamilies, tmp_path: Path) -> Path:
    """A sound Llama checkpoint to spoil."""
    return Path(shutil.copytree(families.directory("llama"), tmp_path / "model"))


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return tiny_checkpoint("llama", tmp_path / "sharded", max_shard_size="60KB")


def _refused(directory: Path, *words: str) -> None:
    """load_model raises one line that holds the words and names the place."""
    with pytest.raises(UserError) as caught:
        load_model(directory)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    assert str(directory) in message or directory.name in message
    for word in words:
        assert word in message, message


def _edit_json(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


def _edit_weights(file: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.slow
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_refused(directory: Path, share: float) -> None:
    whole = (directory / "model.safetensors").read_bytes()
    try:
        (directory / "model.safetensors").write_bytes(whole[: int(share * len(whole))])
        _refused(directory, "model.safetensors", "broken or cut short")
    finally:
        (directory / "model.safetensors").write_bytes(whole)


def test_a_header_that_lies_is_refused(directory: Path) -> None:
    file = directory / "model.safetensors"
    whole = file.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    for header in (
        b"{" * length,
        b'{"a":{"dtype":"F32","shape":[99,99],"data_offsets":[0,8]}}'.ljust(length),
    ):
        file.write_bytes(whole[:8] + header + whole[8 + length :])
        _refused(directory, "broken or cut short")
    file.write_bytes((2**62).to_bytes(8, "little") + whole[8:])
    _refused(directory, "broken or cut short")


def test_a_missing_shard(sharded: Path) -> None:
    (sharded / "model-00002-of-00004.safetensors").unlink(missing_ok=True)
    sorted(sharded.glob("model-*.safetensors"))[-1].unlink(missing_ok=True)
    _refused(sharded, INDEX, "is missing")


@pytest.mark.parametrize(
    "name", ("../model.safetensors", "/etc/hosts", "sub/model.safetensors", "model.bin", "..")
)
def test_an_index_that_leaves_the_directory(sharded: Path, name: str) -> None:
    def change(index: dict[str, Any]) -> None:
        index["weight_map"]["lm_head.weight"] = name

    _edit_json(sharded / INDEX, change)
    _refused(sharded, INDEX, repr(name), "expected a safetensors file in the same directory")


def test_an_index_that_lies(sharded: Path) -> None:
    def change(index: dict[str, Any]) -> None:
        index["weight_map"]["model.norm.bias"] = index["weight_map"]["model.norm.weight"]

    _edit_json(sharded / INDEX, change)
    _refused(sharded, "weight model.norm.bias is missing although the index lists it")
    (sharded / INDEX).write_text('{"weight_map": ["model.safetensors"]}')
    _refused(sharded, "expected a weight_map")


def test_pickles_are_refused_and_not_opened(directory: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (directory / "executed",))

    (directory / "model.safetensors").unlink()
    (directory / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
    _refused(directory, "pytorch_model.bin", "pickles can run code: refused")
    assert not (directory / "executed").exists()


@pytest.mark.parametrize("file", ("config.json", "tokenizer_config.json"))
def test_code_of_a_checkpoint_is_refused_and_not_run(directory: Path, file: str) -> None:
    (directory / "modeling_own.py").write_text(f"open({str(directory / 'executed')!r}, 'w')")

    def change(config: dict[str, Any]) -> None:
        config["auto_map"] = {"AutoConfig": "modeling_own.Own", "AutoTokenizer": ["modeling_own.Own", None]}

    _edit_json(directory / file, change)
    _refused(directory, file, "auto_map", "no code is run from a checkpoint")
    assert not (directory / "executed").exists()


def test_code_hidden_in_a_part_of_the_config(families: TinyFamilies, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(families.directory("gemma3_multimodal"), tmp_path / "model"))
    _edit_json(
        directory / "config.json", lambda config: config["text_config"].update(auto_map={"AutoConfig": "x.Y"})
    )
    _refused(directory, "auto_map")


def test_links_that_leave_the_directory(directory: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.safetensors"
    (directory / "model.safetensors").rename(elsewhere)
    (directory / "model.safetensors").symlink_to(elsewhere)
    _refused(directory, "is a link that leaves the model's directory")


def test_links_within_the_directory_are_fine(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "weights.safetensors")
    (directory / "model.safetensors").symlink_to("weights.safetensors")
    assert open_model_directory(directory).architecture == "LlamaForCausalLM"


def test_the_tokenizer_of_another_model(directory: Path) -> None:
    tokens = json.loads((directory / "tokenizer.json").read_text())
    tokens["added_tokens"].append(
        {"id": 336, "content": "<|new|>", "special": True, "normalized": False}
        | {"single_word": False, "lstrip": False, "rstrip": False}
    )
    (directory / "tokenizer.json").write_text(json.dumps(tokens))
    _refused(directory, "ids up to 336", "vocabulary of 336", "another model's tokenizer")


def test_a_tokenizer_that_its_library_gives_up_on(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A prefix longer than a merged token makes the library's Rust code panic, which is no Exception in Python and prints a trace."""
    tokens = json.loads((directory / "tokenizer.json").read_text())
    tokens["model"]["continuing_subword_prefix"] = "####"
    (directory / "tokenizer.json").write_text(json.dumps(tokens))
    _refused(directory, "no usable tokenizer")
    assert capfd.readouterr().err == ""


def test_other_output_survives_the_reading_of_a_tokenizer(
    directory: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a panic's trace is left out of the error output; it is written by descriptor, past Python's own stream."""
    read = model_directory.AutoTokenizer.from_pretrained

    def noisy(*given: Any, **options: Any) -> Any:
        os.write(2, b"a library's warning\n")
        return read(*given, **options)

    monkeypatch.setattr(model_directory.AutoTokenizer, "from_pretrained", noisy)
    load_tokenizer(open_model_directory(directory))
    assert capfd.readouterr().err == "a library's warning\n"


def test_no_tokenizer(directory: Path) -> None:
    for file in directory.glob("tokenizer*"):
        file.unlink()
    _refused(directory, "no usable tokenizer")


def test_weights_that_are_missing_misshapen_or_not_finite(directory: Path) -> None:
    file, name = directory / "model.safetensors", "model.layers.1.mlp.up_proj.weight"
    whole = file.read_bytes()
    _edit_weights(file, lambda weights: weights.pop(name))
    _refused(directory, "1 weights are missing", name)
    file.write_bytes(whole)
    _edit_weights(file, lambda weights: weights.update({name: torch.zeros(3, 5)}))
    _refused(directory)
    file.write_bytes(whole)
    _edit_weights(file, lambda weights: weights[name].view(-1)[7].fill_(float("nan")))
    _refused(directory, name, "not finite")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("n", [1, 7, 16, 33, 1000])
def test_one_value_that_is_not_finite_is_found_anywhere(dtype: torch.dtype, value: float, n: int) -> None:
    weight = torch.randn(n, generator=torch.Generator().manual_seed(n)).to(dtype)
    assert all_finite(weight) and all_finite(weight[:0])
    for place in {0, n // 2, n - 1}:
        damaged = weight.clone()
        damaged[place] = value
        assert not all_finite(damaged)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ("no JSON",)),
        ("[1, 2]", ("expected a JSON object, found a list",)),
        ("{}", ("not understood by transformers",)),
        ('{"model_type": "llama", "hidden_size": "many"}', ("config.json",)),
        ('{"model_type": "bert", "architectures": ["BertForMaskedLM"]}', ()),
        ('{"model_type": "t5"}', ("is no causal language model",)),
        (
            '{"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}',
            ("found quantisation 'gptq'",),
        ),
        ("[" * 100_000, ("no JSON",)),
    ],
)
def test_configs_that_make_no_model(directory: Path, content: str, words: tuple[str, ...]) -> None:
    (directory / "config.json").write_text(content)
    _refused(directory, *words)


def test_sizes_that_do_not_fit_the_weights(directory: Path) -> None:
    _edit_json(directory / "config.json", lambda config: config.update(hidden_size=64))
    _refused(directory)


def test_an_adapter_directory(directory: Path) -> None:
    (directory / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/else"}')
    _refused(directory, "merge it into its base model first")


def test_an_empty_directory(tmp_path: Path) -> None:
    _refused(tmp_path, "missing file", "config.json")


def test_a_multimodal_checkpoint_without_its_text_part(families: TinyFamilies, tmp_path: Path) -> None:
    """Hugging Face would fill the text model with random weights and only report it."""
    directory = Path(shutil.copytree(families.directory("gemma3_multimodal"), tmp_path / "model"))

    def change(weights: dict[str, Tensor]) -> None:
        for name in [name for name in weights if name.startswith("language_model.")]:
            weights["other." + name] = weights.pop(name)

    _edit_weights(directory / "model.safetensors", change)
    _refused(directory, "weights are missing")


@pytest.mark.parametrize("change", ("biases", "layers"))
def test_weights_without_a_place_are_refused_by_name(change: str, tmp_path: Path) -> None:
    """Biases that config.json does not announce, and more layers in the file than in it (case 20)."""
    directory = tiny_checkpoint(
        "llama", tmp_path / "m", **({"attention_bias": True} if change == "biases" else {})
    )
    config = json.loads((directory / "config.json").read_text())
    config |= {"attention_bias": False} if change == "biases" else {"num_hidden_layers": 3}
    (directory / "config.json").write_text(json.dumps(config))
    named = (
        r"16 weights .* model\.layers\.0\.self_attn\.k_proj\.bias"
        if change == "biases"
        else r"9 weights .* model\.layers\.3\."
    )
    with pytest.raises(UserError, match=named):
        load_model(directory)


def test_a_left_over_index_does_not_matter(tmp_path: Path) -> None:
    """transformers reads the single file (case 22)."""
    directory = tiny_checkpoint("llama", tmp_path / "m")
    (directory / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}})
    )
    assert runner_for(load_model(directory)).shape.n_layers == 4


@pytest.mark.parametrize("backend", ("hooked", "bridge"))
def test_a_second_head_in_a_tied_file_is_used_as_transformers_does(backend: str, tmp_path: Path) -> None:
    directory = tiny_checkpoint("qwen3", tmp_path / "m")
    tensors = load_file(directory / "model.safetensors")
    head = tensors["model.embed_tokens.weight"].flip(0).contiguous()
    save_file({**tensors, "lm_head.weight": head}, directory / "model.safetensors", {"format": "pt"})
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        want = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager")(ids).logits
        runner = runner_for(load_model(directory, backend=backend))
        torch.testing.assert_close(
            runner.logits(runner.run(runner.embed(ids), 0, 4)[0]), want, atol=2e-5, rtol=0
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(
            ({name: value}, f"field {name}: expected a number from 1 to")
            for name in SIZES
            for value in (0, -1, 10**9, 10**400)
        ),
        ({"max_position_embeddings": 0}, "field max_position_embeddings: expected a number from 1 to"),
        ({"quantization_config": [1]}, "expected plain weights, found quantisation"),
        ({"hidden_act": "foo"}, "do not fit the config: 'foo'"),
        ({"rope_theta": "x"}, "do not fit the config: unsupported operand"),
        ({"rope_scaling": {"rope_type": "foo"}}, "do not fit the config: 'foo'"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_absurd_numbers_of_a_config_are_refused_at_once(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    directory = tiny_checkpoint("llama", tmp_path / "m")
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    begin = time.perf_counter()
    with pytest.raises(UserError, match=message) as caught:
        load_model(directory)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500 and time.perf_counter() - begin < 2


@pytest.mark.parametrize(
    "content",
    ["[]", "5", '{"model": {"type": "X"}}', '{"model": null}', "{", "[" * 100_000],
    ids=lambda text: text[:20],
)
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_tokenizer_of_a_wrong_type_is_refused(content: str, name: str, tmp_path: Path) -> None:
    directory = tiny_checkpoint("llama", tmp_path / "m")
    (directory / name).write_text(content)
    if name == "tokenizer_config.json" and content.startswith('{"'):
        pytest.skip("a table of settings that nobody reads")
    with pytest.raises(UserError) as caught:
        load_model(directory)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_window_that_hugging_face_s_llama_does_not_read_is_not_read_here(tmp_path: Path) -> None:
    directory = tiny_checkpoint("llama", tmp_path / "m")
    ids = torch.randint(8, 300, (1, 12), generator=torch.Generator().manual_seed(0))
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"sliding_window": 4}))
    with torch.no_grad():
        want = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()(ids).logits
        runner = runner_for(load_model(directory))
        torch.testing.assert_close(
            runner.logits(runner.run(runner.embed(ids), 0, runner.shape.n_layers)[0]),
            want,
            rtol=1e-4,
            atol=1e-4,
        )


@pytest.mark.parametrize("length", [[], "x"])
def test_a_tokenizer_setting_of_a_wrong_type_is_refused(length: object, tmp_path: Path) -> None:
    directory = tiny_checkpoint("llama", tmp_path / "m")
    file = directory / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": length}))
    with pytest.raises(UserError, match="no usable tokenizer"):
        load_model(directory)
