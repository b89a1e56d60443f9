"""Conditions: what each answers, that choosing looks at selection alone, and that what is planted is found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.support.toy_models import random_model, toy_persona
from workbench.conditions import (
    CapabilityGuard,
    ConstantAnswer,
    Found,
    LatentClamp,
    ManualPrompts,
    NoPrompt,
    Prompt,
    RandomText,
    RandomTokens,
    Steering,
    constant_answers,
    few_shot,
    spending,
)
from workbench.conditions.build_context import BuildContext
from workbench.conditions.capability_guard import model_vitals
from workbench.conditions.prompt_cross_entropy import prompt_cross_entropy
from workbench.contexts import make_contexts
from workbench.directions import Direction
from workbench.errors import UserError
from workbench.forced_choice import answer
from workbench.interventions import steer
from workbench.models import Site, runner_for
from workbench.prompt_tokens import allowed_ids, encode_prompt
from workbench.study import Study

MODEL = random_model()
LAST = Site(2)
SPLITS = toy_persona().split()
LETTERS = make_contexts(MODEL, SPLITS.test)
TEXT = make_contexts(MODEL, SPLITS.test, metric="text")


def towards_yes() -> Direction:
    """At the last block, what the unembedding adds to `yes` over `no`: steering along it must raise yes."""
    matching, other = (ids[0] for ids in TEXT[0].answers)
    return Direction(MODEL.W_U[:, matching] - MODEL.W_U[:, other], Site(2), "toy", "planted")


def test_no_prompt_and_a_prompt_are_the_answers_of_the_model() -> None:
    assert np.array_equal(NoPrompt().answer(MODEL, LETTERS).log_odds, answer(MODEL, LETTERS).log_odds)
    there = Prompt("Be blunt.").answer(MODEL, LETTERS)
    assert np.array_equal(
        there.log_odds, answer(MODEL, LETTERS, encode_prompt(MODEL, LETTERS, "Be blunt.")).log_odds
    )


def test_a_found_prompt_carries_what_the_search_knows() -> None:
    found = Found("Be blunt.", "saega", "EPO", cross_entropy=3.5, selection_rate=0.25)
    assert (found.kind, found.prompt, found.cross_entropy, found.selection_rate) == (
        "saega",
        "Be blunt.",
        3.5,
        0.25,
    )
    with pytest.raises(UserError, match="empty prompt"):
        Prompt("  ")


def test_a_constant_letter_scores_exactly_half_in_both_orders() -> None:
    for condition, share in zip(constant_answers(LETTERS), (1.0, 0.0), strict=True):
        answers = condition.answer(MODEL, LETTERS)
        assert answers.rate == 0.5 and answers.letter_a_share == share and answers.log_odds.mean() == 0.0


def test_a_constant_word_scores_all_or_nothing() -> None:
    assert {c.constant: c.answer(MODEL, TEXT).rate for c in constant_answers(TEXT)} == {"yes": 1.0, "no": 0.0}
    assert ConstantAnswer("perhaps").answer(MODEL, TEXT).log_odds.tolist() == [0.0] * len(TEXT)
    with pytest.raises(UserError, match=r"A \(shown first\) or B"):
        ConstantAnswer("yes").answer(MODEL, LETTERS)


def test_the_manual_prompt_is_the_best_on_selection_for_each_sign() -> None:
    selection = make_contexts(MODEL, SPLITS.selection)
    texts = ("Be blunt.", "Agree with them.", "Say no.", "In a month.")
    means = {text: answer(MODEL, selection, text).log_odds.mean() for text in texts}
    low = ManualPrompts(texts).choose(MODEL, SPLITS.selection, "suppress")
    high = ManualPrompts(texts).choose(MODEL, selection, "induce")
    assert low.prompt == min(means, key=means.get) and high.prompt == max(means, key=means.get)
    assert low.selection_rate == answer(MODEL, selection, low.prompt).rate
    tokens = sum(len(c.ids(encode_prompt(MODEL, selection, text))) for text in texts for c in selection)
    assert (
        2 * tokens <= low.cost.forward < 1.1 * 3 * tokens
    )  # two whole blocks, of the third keys and values; padding is counted too
    with pytest.raises(UserError, match="a list of at least one"):
        ManualPrompts("Be blunt.")
    with pytest.raises(UserError, match="'suppress' or 'induce'"):
        ManualPrompts(texts).choose(MODEL, selection, "more")  # type: ignore[arg-type]


def test_random_tokens_are_seeded_allowed_and_of_equal_length() -> None:
    drawn = RandomTokens(6, seeds=(0, 1, 2)).draw(MODEL, LETTERS)
    again = RandomTokens(6, seeds=(2,)).draw(MODEL, LETTERS)
    assert len({p.prompt for p in drawn}) == 3 and again[0].prompt == drawn[2].prompt
    for prompt in drawn:
        ids = encode_prompt(MODEL, LETTERS, prompt.prompt)
        assert len(ids) == 6 and bool(allowed_ids(MODEL)[list(ids)].all())
    assert len({p.name for p in drawn}) == 3
    with pytest.raises(UserError, match="at least 1"):
        RandomTokens(0)


def test_studies_of_different_seeds_draw_different_random_prompts() -> None:
    """Their seeds are disjoint, and equal numbers have equal names, so that a table over seeds may average them."""
    seeds = [
        BuildContext.random_seeds.fget(SimpleNamespace(study=Study(seed=seed, random_prompts=3)))
        for seed in range(4)
    ]
    assert len({seed for each in seeds for seed in each}) == 12
    drawn = [RandomTokens(6, each).draw(MODEL, LETTERS) for each in seeds]
    assert [[p.name for p in prompts] for prompts in drawn] == [[f"random tokens {n}" for n in range(3)]] * 4
    assert len({p.prompt for prompts in drawn for p in prompts}) == 12


def test_random_text_is_more_fluent_than_random_tokens() -> None:
    texts = RandomText(5, seeds=(0, 1, 2)).draw(MODEL, LETTERS)
    tokens = RandomTokens(5, seeds=(0, 1, 2)).draw(MODEL, LETTERS)
    mean = lambda prompts: np.mean([prompt_cross_entropy(MODEL, LETTERS, p.prompt) for p in prompts])  # noqa: E731
    assert mean(texts) < mean(tokens)
    assert texts[0].prompt == RandomText(5, seeds=(0,)).draw(MODEL, LETTERS)[0].prompt


def test_fluency_is_the_cross_entropy_of_the_models_own_logits() -> None:
    prefix, ids = LETTERS[0].prefix_ids, encode_prompt(MODEL, LETTERS, "Be blunt.")
    log_probs = MODEL(torch.tensor([[*prefix, *ids]]))[0].log_softmax(-1)
    by_hand = -np.mean([float(log_probs[len(prefix) + k - 1, token]) for k, token in enumerate(ids)])
    assert prompt_cross_entropy(MODEL, LETTERS, "Be blunt.") == pytest.approx(by_hand, rel=1e-4)


def test_few_shot_shows_wanted_answers_and_alternating_letters() -> None:
    prompt = few_shot(MODEL, SPLITS.train, TEXT, n=2)
    assert prompt.prompt.count("\nno") == 2 and "\nyes" not in prompt.prompt
    with pytest.raises(UserError, match="this model's context holds 256"):
        few_shot(MODEL, SPLITS.train, LETTERS, n=8)


def test_steering_moves_the_answers_monotonically() -> None:
    means = [
        Steering(towards_yes(), c).answer(MODEL, TEXT).log_odds.mean() for c in (-8.0, -2.0, 0.0, 2.0, 8.0)
    ]
    assert means == sorted(means) and means[-1] - means[0] > 1
    assert means[2] == pytest.approx(answer(MODEL, TEXT).log_odds.mean(), abs=1e-6)


def test_steering_is_tuned_on_selection_in_units_of_the_residual_norm() -> None:
    free = CapabilityGuard(keep_mass=0.0, text_rise=1e9)
    selection = make_contexts(MODEL, SPLITS.selection, metric="text")
    for sign, side in (("suppress", -1), ("induce", 1)):
        tuned = Steering(towards_yes()).tune(MODEL, selection, sign, grid=(0.1, 0.5), guard=free)
        runner = runner_for(MODEL)
        norms = [
            runner.read(torch.tensor([c.bare_ids]), [Site(2)], torch.tensor([len(c.bare_ids) - 1]))[
                Site(2)
            ].norm()
            for c in selection
        ]
        assert tuned.coefficient == pytest.approx(side * 0.5 * float(np.mean(norms)), rel=1e-4)
        assert tuned.selection_rate == tuned.answer(MODEL, selection).rate and tuned.cost.forward > 0


def test_the_guard_drops_strengths_that_break_the_model() -> None:
    selection = make_contexts(MODEL, SPLITS.selection, metric="text")
    away = Direction(
        -MODEL.W_U[:, TEXT[0].answers[0][0]] - MODEL.W_U[:, TEXT[0].answers[1][0]],
        Site(2),
        "toy",
        "both answers down",
    )
    with pytest.raises(UserError, match="every strength"):
        Steering(away).tune(MODEL, selection, "induce", grid=(2.0, 4.0))
    watch = CapabilityGuard().watching(MODEL, selection)
    assert watch.holds(MODEL, selection)
    with steer(MODEL, away, 50.0):
        assert not watch.holds(MODEL, selection)


def test_a_guard_with_true_statements_stops_short_of_one_answer_to_all() -> None:
    grid, loose = (0.01, 4.0), {"keep_mass": 0.0, "text_rise": 1e9}
    truth = replace(
        TEXT, items=tuple(replace(c, answers=c.answers[::-1], weights=c.weights[::-1]) for c in TEXT)
    )  # as if `no` were true here
    level = answer(MODEL, truth).rate
    free = Steering(towards_yes()).tune(MODEL, TEXT, "induce", grid=grid, guard=CapabilityGuard(**loose))
    held = Steering(towards_yes()).tune(
        MODEL, TEXT, "induce", grid=grid, guard=CapabilityGuard(**loose, truth=truth, truth_fall=0.2)
    )
    assert level > 0.2 and free.answer(MODEL, truth).rate < level - 0.2 <= held.answer(MODEL, truth).rate
    assert abs(held.coefficient) < abs(free.coefficient)


def test_vital_signs_by_hand() -> None:
    one = replace(TEXT, items=TEXT.items[:1])
    ids = list(one[0].bare_ids)
    log_probs = MODEL(torch.tensor([ids]))[0].log_softmax(-1)
    mass = sum(float(log_probs[-1, a[0]].exp()) for a in one[0].answers)
    loss = -np.mean([float(log_probs[k, ids[k + 1]]) for k in range(len(ids) - 1)])
    found = model_vitals(MODEL, one)
    assert (found.answer_mass, found.text) == pytest.approx((mass, loss), rel=1e-4)


def test_conditional_steering_touches_only_readings_beyond_its_limit() -> None:
    direction = towards_yes()
    far = Steering(direction, coefficient=1e6, conditional=True, side=-1)
    assert np.allclose(far.answer(MODEL, TEXT).log_odds, answer(MODEL, TEXT).log_odds)
    tuned = Steering(direction, conditional=True).tune(
        MODEL, TEXT, "suppress", grid=(0.5,), guard=CapabilityGuard(0.0, 1e9)
    )
    assert tuned.answer(MODEL, TEXT).log_odds.mean() < answer(MODEL, TEXT).log_odds.mean()


@dataclass(frozen=True)
class Autoencoder:
    W_dec: torch.Tensor
    site: Site = LAST

    def encode_some(self, x: torch.Tensor, latents: list[int]) -> torch.Tensor:
        return torch.relu(x @ self.W_dec[latents].T)


def test_latents_are_clamped_up_with_the_persona_and_off_against_it() -> None:
    unit = towards_yes().unit
    sae = Autoencoder(torch.stack([unit, -unit, torch.zeros(32)]))
    clampable = LatentClamp(sae, (0, 1), signs=(1, -1))
    free = CapabilityGuard(0.0, 1e9)
    up, down = (
        clampable.tune(MODEL, TEXT, sign, grid=(0.0, 4.0), guard=free) for sign in ("induce", "suppress")
    )
    assert up.values[0] > 0 and up.values[1] == 0.0 and down.values[0] == 0.0 and down.values[1] > 0
    assert (
        down.answer(MODEL, TEXT).log_odds.mean()
        < answer(MODEL, TEXT).log_odds.mean()
        < up.answer(MODEL, TEXT).log_odds.mean()
    )
    ranked = SimpleNamespace(ids=[1, 0, 2], weights=[-0.7, 0.5, 0.1])
    assert (LatentClamp.of(sae, ranked, 2).latents, LatentClamp.of(sae, ranked, 2).signs) == ((1, 0), (-1, 1))
    assert LatentClamp(sae, 2).latents == (2,)
    with pytest.raises(UserError, match="one of signs for each of 2"):
        LatentClamp(sae, (0, 1), signs=(1,))


def test_spending_counts_what_the_block_ran() -> None:
    with spending(MODEL, LETTERS) as receipt:
        answer(MODEL, LETTERS)
    assert (
        2 / 3 * len(LETTERS) < receipt.cost.model_calls < len(LETTERS)
    )  # of the last of three blocks little more than keys and values
    assert receipt.cost.flops > 0 and receipt.cost.backward == 0
