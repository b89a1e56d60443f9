"""Log-odds under short weights are read in float32, and values that are no finite numbers are errors that name block and dtype."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from tests.support.tiny_families import TinyFamilies
from tests.support.toy_models import toy_persona
from workbench.activations import collect
from workbench.contexts import make_contexts
from workbench.directions.labelled_activations import own_choices
from workbench.errors import UserError
from workbench.forced_choice import answer
from workbench.models import Site
from workbench.models.doctor import diagnose
from workbench.models.output_head import find_output_head
from workbench.objectives import answer_log_odds, read
from workbench.search import Scorer

HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("backend", ["hooked", "bridge"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "gemma3", "gpt2"])
def test_logits_of_short_weights_are_float32(families: TinyFamilies, family: str, backend: str, dtype: str):
    """Final norm and unembedding of the same residuals in float32 by a float32 copy of the model are met to 1e-5, not to a bfloat16 step."""
    runner, exact = families.runner(family, backend, dtype), families.runner(family, backend, "float32")
    resid = torch.randn(5, runner.shape.d_model, generator=torch.Generator().manual_seed(0)).to(HALF[dtype])
    ids = torch.randint(4, 300, (5, 2), generator=torch.Generator().manual_seed(1))
    short = families.reference(family, HALF[dtype])
    rounded = copy.deepcopy(families.reference(family, torch.float32))
    rounded.load_state_dict({name: weight.float() for name, weight in short.state_dict().items()})
    norm = rounded.get_submodule("transformer.ln_f" if family == "gpt2" else "model.norm")
    with torch.no_grad():
        logits = rounded.get_output_embeddings()(norm(resid.float()))
    cap = exact.model.cfg.output_logits_soft_cap or 0
    logits = cap * torch.tanh(logits / cap) if cap > 0 else logits
    found = runner.logits_of(resid, ids)
    assert found.dtype == torch.float32
    some = exact.logits_between(resid.float(), 3, 40)
    assert (some is None) == (backend == "bridge")
    if some is not None:
        torch.testing.assert_close(some, exact.logits(resid.float())[:, 3:40], atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(found, logits.gather(1, ids), atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(runner.log_normalizer(resid), logits.logsumexp(-1), atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(
        runner.log_probs_of(resid, ids), logits.log_softmax(-1).gather(1, ids), atol=4e-5, rtol=4e-5
    )


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_a_bridge_finds_its_own_head(families: TinyFamilies, family: str):
    runner = families.runner(family, "bridge", "float32")
    assert find_output_head(runner.model, runner.shape.d_model, runner.logits) is not None
    assert (
        find_output_head(runner.model, runner.shape.d_model, lambda resid: 2 * runner.logits(resid)) is None
    )


@pytest.fixture
def broken(families: TinyFamilies):
    """A runner whose block 2 overflows, and comes whole again."""
    runner = families.runner("llama", "hooked", "float32")
    weight = runner.model.blocks[2].mlp.W_out
    before = weight[0, 0].item()
    with torch.no_grad():
        weight[0, 0] = float("nan")
    yield runner
    with torch.no_grad():
        weight[0, 0] = before


def test_no_finite_number_is_an_error_wherever_it_is_read(broken):
    """Answers, generation, calibration, activations, own choices, search: each names the block and the dtype."""
    contexts = make_contexts(broken, toy_persona("text").split(seed=0).train, n=3)
    where = r"block 2 \(torch.float32\) is the first"
    with pytest.raises(UserError, match=where):
        answer(broken, contexts)
    for temperature in (0.0, 1.0):
        with pytest.raises(UserError, match=where):
            broken.generate(torch.tensor([[5, 6, 7]]), 2, temperature, torch.Generator().manual_seed(0))
    with pytest.raises(UserError, match=where):
        read(broken, answer_log_odds(), contexts, None)
    with pytest.raises(UserError, match=where):
        answer_log_odds().calibrate(broken, contexts, n=4)
    with pytest.raises(UserError, match=where):
        collect(broken, [(5, 6, 7)], [Site(3)])
    with pytest.raises(UserError, match=where):
        own_choices(broken, contexts, [None] * len(contexts), [3])
    with pytest.raises(UserError, match=where):
        Scorer(broken, answer_log_odds(), contexts).score(torch.tensor([[60, 70]]))
    collect(broken, [(5, 6, 7)], [Site(1)])  # below it all is well


def test_overflow_of_float16_is_an_error_not_a_rate(families: TinyFamilies, tmp_path):
    """As Gemma 3's weights do: a residual beyond 65504."""
    from tests.support.tiny_checkpoints import tiny_checkpoint
    from workbench.models import load_model

    model = load_model(tiny_checkpoint("gemma3", tmp_path / "huge", initializer_range=40.0), dtype="float16")
    contexts = make_contexts(model, toy_persona("text").split(seed=0).train, "after_question", n=3)
    with pytest.raises(UserError, match=r"\(torch.float16\)"):
        answer(model, contexts)
    report = diagnose(tmp_path / "huge", dtype="float16")
    assert any(row.ok is False and "torch.float16" in row.detail for row in report.rows)


def test_doctor_states_the_resolution(families: TinyFamilies):
    """bfloat16 resolves a log-odds worse than float32, and the long chat text is longer than the window of 6."""
    found = {}
    for dtype in ("float32", "bfloat16"):
        rows = {row.check: row.detail for row in diagnose(families.directory("mistral"), dtype=dtype).rows}
        assert rows["logits after a chat text"].startswith("96 tokens; largest difference")
        found[dtype] = float(rows["log-odds resolution"].split()[1])
    assert (
        np.isfinite(list(found.values())).all()
        and 2e-3 < found["bfloat16"] < 2
        and 1e-8 < found["float32"] < 1e-4
    )
