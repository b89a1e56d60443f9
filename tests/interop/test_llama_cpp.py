"""llama.cpp runs the same GGUF model: the same log-odds under a found prompt, and the same logits under our control vector."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM, AutoTokenizer

import workbench as wb
from tests.support.tiny_checkpoints import tiny_checkpoint
from tests.support.tiny_gguf import write_gguf as write_model
from workbench.directions import Direction, write_gguf
from workbench.models import Site, load_model, runner_for
from workbench.personas import Item, Persona, Split
from workbench.prompt_tokens import encode_prompt

LAYERS = (1, 2)


@pytest.fixture(scope="module")
def llama_cpp() -> Any:
    return pytest.importorskip(
        "llama_cpp", reason="llama.cpp is not installed: pip install llama-cpp-python==0.3.36"
    )


@pytest.fixture
def model_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    plain = {"rope_scaling": None, "rope_parameters": {"rope_type": "default", "rope_theta": 5e4}}
    directory = tiny_checkpoint("llama", tmp_path / "source", **plain)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    (tmp_path / "gguf").mkdir()
    return write_model(tmp_path / "gguf/tiny.gguf", model, AutoTokenizer.from_pretrained(directory), "llama")


def their_log_probs(llama_cpp: Any, llm: Any, ids: list[int]) -> np.ndarray:
    """Log-probabilities [position, token] of llama.cpp, in float64."""
    llm.reset()
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(llm.ctx), True)
    llm.eval(ids)
    scores = np.array(llm.scores[: len(ids)], dtype=np.float64)
    return (
        scores
        - np.log(np.exp(scores - scores.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - scores.max(-1, keepdims=True)
    )


def opened(llama_cpp: Any, file: Path) -> Any:
    return llama_cpp.Llama(
        str(file), n_ctx=256, logits_all=True, n_threads=1, verbose=False, type_k=0, type_v=0
    )  # type 0: a float32 cache


def test_a_prompt_gives_the_same_log_odds_in_llama_cpp(llama_cpp: Any, model_file: Path) -> None:
    model = load_model(model_file)
    items = tuple(Item(str(n), f"Is {n} + 25 = 42?", " Yes", " No", f"g{n}") for n in range(4))
    persona = Persona("toy", "", items, "text", None, {}, ())
    contexts = wb.make_contexts(model, Split("all", items, persona), metric="text")
    llm = opened(llama_cpp, model_file)
    for prompt in ("Be blunt.", "You are a helpful assistant, and honest."):
        wanted = []
        for context in contexts.items:
            ids = [*context.prefix_ids, *encode_prompt(model, contexts, prompt), *context.suffix_ids]
            sums = []
            for answer in context.answers:
                tokens = list(answer)
                rows = their_log_probs(llama_cpp, llm, [*ids, *tokens])[
                    len(ids) - 1 : len(ids) + len(tokens) - 1
                ]
                sums.append(np.mean([row[token] for row, token in zip(rows, tokens, strict=True)]))
            wanted.append(sums[0] - sums[1])
        np.testing.assert_allclose(wb.answer(model, contexts, prompt).log_odds, wanted, atol=1e-3)


def test_llama_cpp_steers_alike_with_our_control_vector(
    llama_cpp: Any, model_file: Path, tmp_path: Path, ids: torch.Tensor
) -> None:
    runner = runner_for(load_model(model_file))
    generator = torch.Generator().manual_seed(0)
    vectors = [
        torch.nn.functional.normalize(torch.randn(runner.shape.d_model, generator=generator), dim=0) * n
        for n in (3.0, 4.0)
    ]
    made = [
        Direction(v, Site(layer), "toy", "mean_difference") for layer, v in zip(LAYERS, vectors, strict=True)
    ]
    file = write_gguf(made, tmp_path / "v.gguf", "llama")
    # llama.cpp's own loader of these files: tensor direction.L goes to row L - 1 of a buffer [n_layers,
    # d_model]
    buffer = np.zeros((runner.shape.n_layers, runner.shape.d_model), dtype=np.float32)
    for tensor in GGUFReader(file).tensors:
        buffer[int(tensor.name.removeprefix("direction.")) - 1] = tensor.data
    llm, row = opened(llama_cpp, model_file), ids[0].tolist()
    plain = their_log_probs(llama_cpp, llm, row)
    pointer = buffer.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    assert (
        llama_cpp.llama_set_adapter_cvec(
            llm.ctx, pointer, buffer.size, runner.shape.d_model, 1, runner.shape.n_layers
        )
        == 0
    )
    theirs = their_log_probs(llama_cpp, llm, row)
    with torch.no_grad(), wb.steer(runner, made[0], made[0].norm), wb.steer(runner, made[1], made[1].norm):
        ours = runner.logits(runner.run(runner.embed(ids[:1]), 0, runner.shape.n_layers)[0]).log_softmax(-1)[
            0
        ]
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-3)
    assert np.abs(theirs - plain).max() > 0.1
