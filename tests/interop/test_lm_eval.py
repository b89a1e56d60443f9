"""A found prompt and a vector give the same scores in lm-evaluation-harness as here."""

from __future__ import annotations

import pytest
import torch

import workbench as wb
from tests.support.toy_models import toy_persona
from workbench.interventions import steer

reason = "lm-evaluation-harness is not installed: pip install lm-eval==0.4.13"
harness = pytest.importorskip("lm_eval.models.huggingface", reason=reason)
PROMPT = "Be honest, be blunt."


def scores(model, contexts, prompt):
    """log p(matching) - log p(not matching) of each context, from the harness's own loglikelihood."""
    from lm_eval.api.instance import Instance

    requests = []
    for context in contexts:
        left = context.prefix_text + prompt + context.suffix_text
        for answer in context.answers:
            requests.append(Instance("loglikelihood", {}, (left, model.tokenizer.decode(answer)), 0))
    found = [value for value, _ in model.loglikelihood(requests, disable_tqdm=True)]
    return [found[i] - found[i + 1] for i in range(0, len(found), 2)]


@pytest.fixture(scope="module")
def contexts(pair):
    return wb.make_contexts(pair.runner, toy_persona().split().test, "system", n=3)


def test_a_prompt_has_the_harness_s_log_likelihoods(pair, contexts):
    model = harness.HFLM(
        pretrained=pair.theirs, tokenizer=pair.runner.tokenizer, batch_size=2, add_bos_token=False
    )
    assert all(len(answer) == 1 for context in contexts for answer in context.answers), (
        "letters are one token"
    )
    assert wb.answer(pair.runner, contexts, PROMPT).log_odds.tolist() == pytest.approx(
        scores(model, contexts, PROMPT), abs=1e-3
    )


def test_a_direction_has_the_harness_s_log_likelihoods(pair, contexts, tmp_path):
    from lm_eval.models.hf_steered import SteeredModel

    direction = pair.directions[0]
    entry = {"action": "add", "steering_vector": direction.unit[None], "steering_coefficient": 2.5}
    torch.save({f"layers.{direction.site.layer}": entry}, tmp_path / "steer.pt")
    model = SteeredModel(
        pretrained=str(pair.directory),
        steer_path=str(tmp_path / "steer.pt"),
        device="cpu",
        batch_size=2,
        add_bos_token=False,
        dtype="float32",
    )
    with steer(pair.runner, direction, 2.5):
        ours = wb.answer(pair.runner, contexts, PROMPT).log_odds
    assert ours.tolist() == pytest.approx(scores(model, contexts, PROMPT), abs=1e-3)
    assert abs(ours - wb.answer(pair.runner, contexts, PROMPT).log_odds).max() > 0.05
