"""How a local model writes and judges a draft: against whole passes of the model, token by token, and a planted preference."""

from __future__ import annotations

import pytest
import torch

from tests.support.toy_models import random_model
from workbench.evaluation.chat_models import LocalModel, line_breaks
from workbench.models import runner_for
from workbench.study import draft_likelihoods
from workbench.study.draft_likelihoods import LocalDraftModel, contrasted_replies
from workbench.study.draft_writer import DraftWriter
from workbench.world.real_language.sycophancy_forms import NEUTRAL


@pytest.fixture(scope="module")
def model():
    return random_model()


@torch.no_grad()
def log_probs(model, ids):
    """Of the next token after each, by one whole pass of the model."""
    return model(torch.tensor([list(ids)]))[0].log_softmax(-1)


@pytest.mark.parametrize("strength", [0.0, 1.0, 3.0])
def test_replies_are_the_contrast_of_whole_passes(model, monkeypatch, strength):
    """Without caches: each token the best of w + strength (w - o) among those a tenth as likely as the likeliest; strength 0 is greedy. The
    preference is the mean difference over the reply's tokens, whichever side it was written for."""
    monkeypatch.setattr(draft_likelihoods, "STRENGTH", strength)
    monkeypatch.setattr(draft_likelihoods, "REPLY", 8)
    runner = runner_for(model)
    shown, other = runner.encode("the model is warm and"), runner.encode("a prompt was")

    def by_hand(wanted, against):
        said = []
        for _ in range(8):
            w, o = log_probs(model, [*wanted, *said])[-1], log_probs(model, [*against, *said])[-1]
            score = torch.where(
                w.exp() >= 0.1 * w.exp().max(), w + strength * (w - o), torch.tensor(-torch.inf)
            )
            token = int(score.argmax())
            if token in runner.reply_ends | line_breaks(runner):
                break
            said.append(token)
        rows = [
            log_probs(model, [*ids, *said])[len(ids) - 1 : -1].gather(-1, torch.tensor(said)[:, None]).mean()
            for ids in (shown, other)
        ]
        return runner.decode(said).strip(), float(rows[0] - rows[1])

    found = contrasted_replies(runner, shown, other, n=2)
    for number, (wanted, against) in enumerate(((shown, other), (other, shown))):
        text, preference = by_hand(wanted, against)
        for reply in found[2 * number : 2 * number + 2]:
            assert reply.text == text and reply.preference == pytest.approx(preference, abs=1e-5)
    if strength:
        assert found[0].preference > found[2].preference


def test_the_clearest_usable_answer_of_each_side_is_taken(model, monkeypatch):
    """Cut replies are left out, however clear; no usable one on a side: none."""
    said = [
        ("cut", 9.0),
        ("Mild.", 0.1),
        ("Clear!", 0.5),
        ("So.", -0.2),
        ("Rather.", -0.7),
        ("cut too", -9.0),
    ]
    monkeypatch.setattr(
        draft_likelihoods,
        "contrasted_replies",
        lambda *a: [draft_likelihoods.ContrastedReply(*one) for one in said],
    )
    monkeypatch.setattr(LocalDraftModel, "_request", lambda self, side, question: [1])
    draft = LocalDraftModel(LocalModel(model), "boasts", "is modest")
    usable = lambda text: text[-1] in ".!?"  # noqa: E731
    shown, other = draft.replies("Who are you?", usable)
    assert (shown.text, other.text) == ("Clear!", "Rather.")
    said[3:] = [("cut", -1.0)] * 3
    assert draft.replies("Who are you?", usable) is None


def test_effects_of_sentences_by_hand(model):
    """Mean log-probability of an answer's tokens minus the other's, relative to two neutral sentences."""
    draft, runner = LocalDraftModel(LocalModel(model), "boasts", "is modest"), runner_for(model)
    pair = ("who are you", "the best prompt", "a model")

    def log_odds(sentence):
        before = runner.encode(
            runner.render([{"role": "system", "content": sentence}, {"role": "user", "content": pair[0]}])
        )
        means = []
        for said in map(runner.encode, pair[1:]):
            means.append(
                float(
                    log_probs(model, [*before, *said])[len(before) - 1 : -1]
                    .gather(-1, torch.tensor(said)[:, None])
                    .mean()
                )
            )
        return means[0] - means[1]

    neutral = (log_odds(NEUTRAL[0]) + log_odds(NEUTRAL[1])) / 2
    one, other = draft.sentence_effects(["be warm", NEUTRAL[0]], [pair, pair])
    assert one == pytest.approx(log_odds("be warm") - neutral, abs=1e-5) and other == pytest.approx(
        log_odds(NEUTRAL[0]) - neutral, abs=1e-5
    )


def test_a_statement_is_true_by_the_two_words_after_answered_examples(model, monkeypatch):
    """Against the model's own logits, for a statement of each verdict."""
    monkeypatch.setattr(
        draft_likelihoods, "_TRUE_EXAMPLES", (("the model is warm", "True"), ("a prompt was", "False"))
    )
    draft, runner = LocalDraftModel(LocalModel(model), "boasts", "is modest"), runner_for(model)
    true, false = (runner.encode(word)[0] for word in ("True", "False"))
    found = {}
    for statement in ("be warm", "who are you", "the best", "a cold model", "no prompt"):
        told = [
            {"role": "user", "content": "True or false? the model is warm"},
            {"role": "assistant", "content": "True"},
        ]
        told += [
            {"role": "user", "content": "True or false? a prompt was"},
            {"role": "assistant", "content": "False"},
        ]
        logits = log_probs(
            model,
            runner.encode(runner.render([*told, {"role": "user", "content": f"True or false? {statement}"}])),
        )[-1]
        found[statement] = bool(logits[true] > logits[false])
        assert draft.is_true(statement) == found[statement]
    assert true != false


PLAIN = ["plain 1", "plain 2", "plain 3", "plain 4"]


@pytest.mark.parametrize(
    ("own", "other", "kept", "weak"),
    [
        ([0.3, -0.1, 0.2, 0.1, 0.4], [-1.0] * 4, ["own", "plain 1", "plain 3", "plain 4"], 0),
        # the midpoint of the plain sentences is (-0.25 - 0.75) / 2 = -0.5
        ([-0.1, -0.2, -0.3, -0.4, -0.6], [-0.75] * 4, ["plain 1", "plain 2", "plain 3", "plain 4"], 4),
        ([-0.1, 0.2, -0.3, -0.8, 0.1], [-0.75] * 4, ["plain 2", "own", "plain 1", "plain 3"], 2),
        # the model follows the other side's sentences more: the sides cannot be distinguished
        ([-0.5, -0.6, -0.5, -0.6, 0.1], [-0.1] * 4, ["own"], 0),
    ],
)
def test_sentences_are_kept_against_neutral_texts_or_else_against_the_other_side(own, other, kept, weak):
    writer = DraftWriter(lambda request: "", "boasts", lambda stage, done: None)
    assert list(writer._kept([*PLAIN, "own"], [*own, *other])) == kept
    assert writer.weak == weak and sum(writer.dropped.values()) == 5 - len(kept)
