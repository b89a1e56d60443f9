"""Slots, round trips and answers, on a word-level and a byte-level tokenizer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.cost_settings import random_llama
from tests.support.toy_models import random_model, toy_persona
from workbench.contexts import make_contexts
from workbench.errors import UserError
from workbench.forced_choice import answer, answer_each, answer_prompts
from workbench.models import load_model, runner_for
from workbench.personas import load_persona
from workbench.prompt_tokens import _windows, all_survive, allowed_ids, encode_prompt, survives

SLOTS = ("system", "before_question", "after_question", "answer_opening")


@pytest.fixture(scope="module")
def model():
    return random_model()


@pytest.mark.parametrize("slot", SLOTS)
def test_ids_are_those_of_the_whole_text(model, slot):
    """What a user would send, rendered and encoded as one string, has exactly the context's ids around the prompt's."""
    runner, split = runner_for(model), toy_persona().split().search
    contexts = make_contexts(model, split, slot=slot)
    for context in contexts[:6]:
        ids = encode_prompt(model, contexts, "Be honest and blunt.")
        whole = runner.encode(context.prefix_text + "Be honest and blunt." + context.suffix_text)
        assert tuple(whole[: len(context.ids(ids))]) == context.ids(ids)


def test_system_slot_equals_the_template_with_a_system_message(model):
    runner, split = runner_for(model), toy_persona().split().search
    contexts = make_contexts(model, split, slot="system")
    context = contexts[0]
    asked = split.persona.letters.ask(context.item, context.matching_first)
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": asked}]
    text = runner.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) + "("
    ids = context.ids(encode_prompt(model, contexts, "Be kind."))
    assert runner.encode(text)[: len(ids)] == list(ids)
    bare = (
        runner.tokenizer.apply_chat_template(messages[1:], tokenize=False, add_generation_prompt=True) + "("
    )
    assert runner.encode(bare)[: len(context.bare_ids)] == list(context.bare_ids)


def test_both_orders_of_every_item_and_what_the_letters_mean(model):
    split = toy_persona().split().search
    contexts = make_contexts(model, split)
    runner = runner_for(model)
    assert len(contexts) == 2 * len(split)
    for context in contexts:
        first, second = (runner.decode(a).strip(" (") for a in context.answers)
        assert (first, second) == (("A", "B") if context.matching_first else ("B", "A"))


@pytest.mark.parametrize("text", ["be honest and zweifelnd", "<unk>"])
def test_a_word_that_a_closed_vocabulary_lacks_is_named(text):
    model = load_model("organism")
    contexts = make_contexts(model, load_persona("sycophancy").split().search, n=2)
    with pytest.raises(UserError, match=f"does not have '{text.split()[-1]}'"):
        encode_prompt(model, contexts, text)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 400), min_size=1, max_size=6))
def test_survival_is_exactly_decode_then_encode(ids):
    model = random_model()
    runner = runner_for(model)
    ids = [i % runner.shape.d_vocab for i in ids]
    contexts = make_contexts(model, toy_persona().split().search, n=2)
    text = runner.decode(ids)
    honest = text == text.strip() and all(
        tuple(runner.encode(c.prefix_text + text + c.suffix_text))[: len(c.ids(ids))] == c.ids(ids)
        for c in contexts
    )
    assert survives(model, contexts, ids) == honest
    assert all_survive(runner, contexts, [tuple(ids)] * 2) == [honest, honest]


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    """One random block under SmolLM2's tokenizer (49k tokens, byte-level BPE)."""
    return runner_for(load_model(random_llama(tmp_path_factory.mktemp("llama"), n_layers=1, d_model=64)))


@pytest.mark.parametrize("slot", SLOTS)
def test_near_the_slot_the_same_prompts_survive_as_in_the_whole_text(byte_level, slot):
    """Random prompts, and prompts with white space and joiners at their edges."""
    runner = byte_level
    contexts = make_contexts(runner, load_persona("english_hallucination").split().test, slot, n=4)
    generator = torch.Generator().manual_seed(0)
    prompts = [tuple(row) for row in torch.randint(30, 49_000, (400, 5), generator=generator).tolist()]
    edges = (
        " leading",
        "trailing ",
        "s",
        "'s",
        "\n",
        "Yes",
        ".",
        "?!",
        " ",
        "n't go",
        "<|im_end|>",
        "a\n\nb",
        "0",
        "é",
    )
    odd = [tuple(runner.encode(text)) for text in edges]
    windows = _windows(runner, contexts)
    assert sum(len(w.ids(())) for w in windows) < 0.8 * sum(len(c.ids(())) for c in contexts)
    found = all_survive(runner, contexts, prompts + odd)
    assert (
        found == [survives(runner, contexts, ids) for ids in prompts + odd]
        and 0.1 < sum(found[:400]) / 400 < 0.99
    )


def test_no_special_or_broken_token_is_allowed(model):
    runner = runner_for(model)
    allowed = allowed_ids(model)
    for i in runner.tokenizer.all_special_ids:
        assert not allowed[i]
    for i in torch.nonzero(allowed)[:, 0].tolist():
        text = runner.decode([i])
        assert runner.encode(text) == [i] and "\N{REPLACEMENT CHARACTER}" not in text and text.strip()
    assert 50 < int(allowed.sum()) < runner.shape.d_vocab


def test_log_odds_equal_hand_arithmetic(model):
    """Single-letter answers: the difference of two logits of a plain forward pass of the whole sequence."""
    contexts = make_contexts(model, toy_persona().split().search, n=3)
    ids = encode_prompt(model, contexts, "Be kind.")
    found = answer(model, contexts, "Be kind.")
    for context, log_odds in zip(contexts, found.log_odds, strict=True):
        logits = model(torch.tensor([context.ids(ids)]))[0, -1]
        assert log_odds == pytest.approx(
            float(logits[context.answers[0][0]] - logits[context.answers[1][0]]), abs=1e-4
        )
    assert found.rate == pytest.approx((found.log_odds > 0).mean())
    assert 0 <= found.letter_a_share <= 1


def test_long_answers_use_the_mean_log_probability_per_token(model):
    persona = toy_persona("text")
    from dataclasses import replace

    split = persona.split().search
    items = tuple(replace(i, matching="yes I agree with you", not_matching="no") for i in split.items[:3])
    contexts = make_contexts(model, replace(split, items=items))
    assert len(contexts[0].answers[0]) > 1
    found = answer(model, contexts)
    for context, log_odds in zip(contexts, found.log_odds, strict=True):
        means = []
        for tokens in context.answers:
            logits = model(torch.tensor([[*context.bare_ids, *tokens]]))[0].log_softmax(-1)
            start = len(context.bare_ids) - 1
            means.append(sum(float(logits[start + k, t]) for k, t in enumerate(tokens)) / len(tokens))
        assert log_odds == pytest.approx(means[0] - means[1], abs=1e-4)


def test_padding_and_batching_change_nothing(model):
    contexts = make_contexts(model, toy_persona().split().search)
    together = answer(model, contexts, "Be kind.").log_odds
    ids = encode_prompt(model, contexts, "Be kind.")
    alone = [float(answer_each(model, [c], [ids])[0]) for c in contexts[:5]]
    assert together[:5] == pytest.approx(alone, abs=1e-4)
    assert answer(model, contexts, "Be kind.", batch_tokens=1).log_odds == pytest.approx(together, abs=1e-4)


@pytest.mark.parametrize("slot", ["system", "before_question", "after_question"])
def test_several_prompts_at_once_answer_as_alone(model, slot):
    contexts = make_contexts(model, toy_persona().split().search, slot, n=4)
    prompts = ["Be kind.", encode_prompt(model, contexts, "Never lie to anybody"), "Ok"]
    for batch_tokens in (8192, 16):
        for found, prompt in zip(
            answer_prompts(model, contexts, prompts, batch_tokens), prompts, strict=True
        ):
            alone = answer(model, contexts, prompt)
            assert found.log_odds == pytest.approx(alone.log_odds, abs=1e-4)
            assert (found.group, found.item_id) == (alone.group, alone.item_id)


def test_user_mistakes_are_told_in_one_line(model):
    split = toy_persona().split().search
    with pytest.raises(UserError, match="unknown slot 'head': expected one of system"):
        make_contexts(model, split, slot="head")
    with pytest.raises(UserError, match="empty prompt"):
        encode_prompt(model, make_contexts(model, split, n=1), "  ")
    for prompt in ("be \udcff calm", "be \ud83d"):
        with pytest.raises(UserError, match="half of a character"):
            encode_prompt(model, make_contexts(model, split, n=1), prompt)


def test_contexts_of_which_a_branch_is_missing_have_no_scores():
    contexts = make_contexts(random_model(), load_persona("feedback_sycophancy").split().search).take(4)
    branched = contexts.branched
    assert len(branched) == 8 and branched.branched is branched and branched.unbranched == contexts
    for lacking in (branched[:7], replace(branched, items=branched.items[::2])):
        with pytest.raises(RuntimeError, match="lack one of their branches"):
            _ = lacking.branched
