"""Whole answers, of any length and beginning alike: everything that reads a log-odds agrees with plain passes of Hugging Face's model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from workbench.answer_tokens import AnswersNotComparable, answer_branches
from workbench.attribution import AttributionProblem, GradientXInput
from workbench.attribution import heads_and_mlps as units
from workbench.attribution.attribution_patching import about_answer
from workbench.attribution.attribution_targets import as_targets
from workbench.audit.shared_prefix import shared_prefix_scores
from workbench.conditions.soft_prompt import _log_odds as soft_log_odds
from workbench.contexts import make_contexts
from workbench.errors import UserError
from workbench.forced_choice import answer, answer_prompts
from workbench.models import Site, vocabulary_chunks
from workbench.models.vocabulary_chunks import log_normalizer
from workbench.objectives import (
    AnswerLogProbObjective,
    ProjectionObjective,
    answer_log_odds,
    hold_direction,
    read,
)
from workbench.panel.prompt_reader import _shared_prefix_scores
from workbench.personas import Item, Persona
from workbench.prompt_tokens import encode_prompt
from workbench.search import ChildProposals, Optimizations, Scorer

SLOTS = ("system", "before_question", "after_question", "answer_opening")
NORMALIZATIONS = ("sum", "mean", "character", "pmi")
#: Answers that begin alike, that go on after they part, and that are of unequal length.
ANSWERS = (
    ("I agree with you", "I do not agree with you at all"),
    ("I think Paris", "I think Rome is right"),
    ("Yes", "No, blunt"),
    ("100", "120"),
)
PROMPT = "Be honest and blunt."


def persona(normalization: str = "sum", answers=ANSWERS) -> Persona:
    items = tuple(
        Item(
            f"i{n}",
            f"Question number {n}: would you rather{' not' * (n % 3)} agree?",
            *answers[n % len(answers)],
            group=f"g{n}",
        )
        for n in range(8)
    )
    return Persona(
        "whole", "answers of many tokens", items, "text", None, {}, (), normalization=normalization
    )


def slots_of(family: str) -> tuple[str, ...]:
    return SLOTS[1:] if family.startswith("gemma") else SLOTS


def contexts_for(runner, slot: str, normalization: str = "sum", answers=ANSWERS):
    made = persona(normalization, answers)
    return make_contexts(runner, replace(made.split().train, items=made.items), slot)


@torch.no_grad()
def hugging_face_log_probs(reference, left, answer_ids) -> torch.Tensor:
    """log p of each token of an answer, from one plain pass of Hugging Face's own model."""
    logits = reference(input_ids=torch.tensor([[*left, *answer_ids]])).logits[0].float()
    return logits.log_softmax(-1)[
        range(len(left) - 1, len(left) + len(answer_ids) - 1), list(answer_ids)
    ].double()


def expected_log_odds(reference, runner, contexts, prompt_ids, normalization: str) -> np.ndarray:
    found = []
    for context in contexts:
        sides = []
        for ids, text in zip(
            context.answers, (context.item.matching, context.item.not_matching), strict=True
        ):
            total = float(hugging_face_log_probs(reference, context.ids(prompt_ids), ids).sum())
            if normalization == "mean":
                total /= len(ids)
            elif normalization == "character":
                total /= len(text)
            elif normalization == "pmi":
                empty = runner.encode(runner.render([{"role": "user", "content": ""}]))
                total -= float(hugging_face_log_probs(reference, empty, ids).sum())
            sides.append(total)
        found.append(sides[0] - sides[1])
    return np.array(found)


@pytest.mark.parametrize("backend", ["hooked", "bridge"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "gemma3", "gpt2", "mistral"])
def test_log_odds_are_hugging_faces(families, family, backend):
    """In every slot and by every normalization, with a prompt and without one."""
    runner, reference = families.runner(family, backend, "float32"), families.reference(family, torch.float32)
    for slot in slots_of(family) if family != "gpt2" else ("system", "after_question"):
        for normalization in NORMALIZATIONS if slot == "after_question" else ("mean",):
            contexts = contexts_for(runner, slot, normalization)
            ids = encode_prompt(runner, contexts, PROMPT)
            for prompt in (ids, None):
                wanted = expected_log_odds(reference, runner, contexts, prompt, normalization)
                np.testing.assert_allclose(
                    answer(runner, contexts, prompt, batch_tokens=200).log_odds, wanted, atol=2e-4, rtol=2e-4
                )


@pytest.mark.parametrize("backend", ["hooked", "bridge"])
@pytest.mark.parametrize("slot", SLOTS)
def test_search_selection_attribution_audit_and_panel_read_the_same(families, slot, backend):
    """One prompt, one number: the search's score, the answers, the ledger's, the audit's, the panel's, and a soft prompt's."""
    runner, reference = (
        families.runner("llama", backend, "float32"),
        families.reference("llama", torch.float32),
    )
    contexts = contexts_for(runner, slot, "mean")
    ids = encode_prompt(runner, contexts, PROMPT)
    wanted = expected_log_odds(reference, runner, contexts, ids, "mean")
    close = {"atol": 3e-4, "rtol": 3e-4}
    for optimizations in (Optimizations(), Optimizations(False, False, False, False, False, False)):
        scorer = Scorer(runner, answer_log_odds(), contexts, optimizations, batch_tokens=150)
        assert float(scorer.score(torch.tensor([ids])).objective) == pytest.approx(wanted.mean(), abs=3e-4)
        assert float(scorer.objectives(torch.tensor([ids]))) == pytest.approx(wanted.mean(), abs=3e-4)
    np.testing.assert_allclose(
        answer_prompts(runner, contexts, [PROMPT, "I think"])[0].log_odds, wanted, **close
    )
    problem = AttributionProblem(runner, ids, contexts, as_targets([]), batch_tokens=150)
    np.testing.assert_allclose(problem.with_prompt[:, 0], wanted, **close)
    if slot == "system":
        np.testing.assert_allclose(shared_prefix_scores(problem, [ids])[0, :, 0], wanted, **close)
        np.testing.assert_allclose(_shared_prefix_scores(problem, [ids, ids[:-1]])[0, :, 0], wanted, **close)
    vectors = runner.embed(torch.tensor([ids]), offset=len(contexts[0].prefix_ids))[0]
    if (
        len({len(c.prefix_ids) for c in contexts}) == 1 or runner.shape.n_ctx == 512
    ):  # rotary: an embedding has no place
        np.testing.assert_allclose(soft_log_odds(runner, list(contexts), vectors).detach(), wanted, **close)
    mean = read(runner, answer_log_odds(), contexts, ids)
    assert float(answer_log_odds().raw(mean).mean()) == pytest.approx(wanted.mean(), abs=3e-4)


@pytest.mark.parametrize("slot", ["system", "after_question"])
def test_children_and_gradients(families, slot):
    """Children's scores with every saving on, and the gradient, against Hugging Face's own from the prompt's embeddings."""
    runner, reference = (
        families.runner("llama", "hooked", "float32"),
        families.reference("llama", torch.float32),
    )
    contexts = contexts_for(runner, slot, "mean")
    parents = torch.tensor([[60, 70, 80, 90]])
    children = ChildProposals(
        torch.tensor([[60, 70, 99, 90], [61, 70, 80, 90]]), torch.tensor([0, 0]), torch.tensor([2, 0])
    )
    unit = torch.nn.functional.normalize(torch.arange(1.0, runner.shape.d_model + 1), dim=0)
    goal = answer_log_odds() + 0.1 * ProjectionObjective(unit, Site(1), "raw")
    scorer = Scorer(runner, goal, contexts, Optimizations(halving=0.3), batch_tokens=120)
    _, scored = scorer.score_children(scorer.prepare(parents), children)
    kept = scored.objective.isfinite()
    for ids, found in zip(children.ids[kept].tolist(), scored.objective[kept].tolist(), strict=True):
        rows = [torch.tensor([c.ids(ids)]) for c in contexts]
        reading = [
            float(runner.read(row, [Site(1)], torch.tensor([row.shape[1] - 1]))[Site(1)][0] @ unit)
            for row in rows
        ]
        wanted = expected_log_odds(reference, runner, contexts, ids, "mean").mean() + 0.1 * np.mean(reading)
        assert found == pytest.approx(wanted, abs=5e-4)
    found = Scorer(runner, answer_log_odds(), contexts, batch_tokens=120).gradients(parents)[0]
    torch.testing.assert_close(
        found, hugging_face_gradient(reference, contexts, parents[0].tolist()), atol=2e-4, rtol=2e-3
    )


def hugging_face_gradient(reference, contexts, prompt: list[int]) -> torch.Tensor:
    table = reference.get_input_embeddings().weight
    leaf = table[prompt].detach().clone().requires_grad_(True)
    total = torch.zeros(())
    for context in contexts:
        for ids, sign in zip(context.answers, (1, -1), strict=True):
            left, right = (
                table[list(part)].detach() for part in (context.prefix_ids, (*context.suffix_ids, *ids))
            )
            logits = reference(inputs_embeds=torch.cat([left, leaf, right])[None]).logits[0]
            start = len(left) + len(prompt) + len(context.suffix_ids) - 1
            log_probs = logits.log_softmax(-1)[range(start, start + len(ids)), list(ids)]
            total = total + sign * log_probs.mean() / len(contexts)
    return torch.autograd.grad(total, leaf)[0]


def test_ledger_gradients_and_patches(families):
    """Gradient x input is the gradient's product, and with every node patched the whole effect is gone, at the answer's tokens too."""
    runner, reference = (
        families.runner("llama", "hooked", "float32"),
        families.reference("llama", torch.float32),
    )
    contexts = contexts_for(runner, "system", "mean")
    ids = encode_prompt(runner, contexts, PROMPT)
    problem = AttributionProblem(runner, ids, contexts, as_targets([]))
    found = GradientXInput().estimate(problem).values[:, :, 0].mean(axis=0)
    step = problem.prompt_embeddings()[0] - problem.baseline_embeddings()[0]
    wanted = (hugging_face_gradient(reference, contexts, list(ids)) * step).sum(-1)
    np.testing.assert_allclose(found, wanted.detach(), atol=1e-3, rtol=1e-2)
    one, other = about_answer(problem), tuple(reversed(ids))
    everything = np.ones(units.grid_shape(one), dtype=bool)
    for pair in units.pairs(one, other):
        patched = units.patched(one, pair, units.activations(one, pair.corrupted), everything)[:, 0]
        torch.testing.assert_close(
            patched,
            one.run(pair.corrupted, runner.embed(pair.corrupted.ids))[:, 0].detach(),
            atol=1e-3,
            rtol=1e-3,
        )


def test_one_answer_alone_is_its_log_probability(families):
    runner, reference = (
        families.runner("qwen2", "hooked", "float32"),
        families.reference("qwen2", torch.float32),
    )
    contexts = contexts_for(runner, "system", "sum")
    ids = encode_prompt(runner, contexts, PROMPT)
    for side in (0, 1):
        wanted = np.mean(
            [float(hugging_face_log_probs(reference, c.ids(ids), c.answers[side]).sum()) for c in contexts]
        )
        found = Scorer(runner, AnswerLogProbObjective(side), contexts).score(torch.tensor([ids])).objective
        assert float(found) == pytest.approx(wanted, abs=1e-3)


def test_answers_of_one_token_are_read_as_before(families):
    """Two logits at the decision token, no branch, no tail, whatever the normalization that leaves them as they are."""
    runner, reference = (
        families.runner("qwen2", "hooked", "float32"),
        families.reference("qwen2", torch.float32),
    )
    contexts = contexts_for(runner, "system", "mean", (("A", "B"),))
    assert contexts.branched is contexts
    with torch.no_grad():
        logits = torch.stack(
            [reference(input_ids=torch.tensor([c.bare_ids])).logits[0, -1].float() for c in contexts]
        )
    wanted = [
        float(row[c.answers[0][0]] - row[c.answers[1][0]]) for row, c in zip(logits, contexts, strict=True)
    ]
    np.testing.assert_allclose(answer(runner, contexts).log_odds, wanted, atol=1e-5)


@pytest.mark.parametrize("answers", [("Yes", "Yes, honest"), ("I think so", "I think"), ("  Yes", "Yes  ")])
def test_answers_that_cannot_be_compared(families, answers):
    runner = families.runner("llama", "hooked", "float32")
    with pytest.raises(
        UserError if answers[0].strip() == answers[1].strip() else AnswersNotComparable,
        match=r"beginning of the other|same",
    ):
        contexts_for(runner, "system", "sum", (answers,))


@pytest.mark.parametrize(
    "a, b",
    [((1, 2), (1, 3)), ((1, 2, 3), (1, 4, 5)), ((1,), (2, 3)), ((1, 2, 3, 4), (5,)), ((9, 1), (9, 2, 3))],
)
def test_branches_read_every_token_once(a, b):
    """Both answers' tokens, each at the place that predicts it, with its own weight; no sequence is run that is not needed."""
    branches = answer_branches((a, b), (0.5, 0.25))
    seen = sorted(
        (place, token, mine, other) for branch in branches for place, token, mine, other in branch.reads
    )
    part = next(k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    alike = [(k, a[k], 0.5, 0.25) for k in range(part)]
    own = [(k, a[k], 0.5, 0.0) for k in range(part, len(a))] + [
        (k, b[k], 0.0, 0.25) for k in range(part, len(b))
    ]
    assert seen == sorted(alike + own)
    assert len(branches) == (2 if min(len(a), len(b)) > part + 1 else 1)
    for branch in branches:
        assert branch.tail in (a[:-1], b[:-1])


def test_an_answer_of_several_tokens_cannot_be_held(families):
    runner = families.runner("llama", "hooked", "float32")
    contexts = contexts_for(runner, "system")
    held = replace(
        hold_direction(_Direction(torch.ones(runner.shape.d_model), Site(1))), inner=answer_log_odds()
    )
    with pytest.raises(UserError, match="cannot be held"):
        Scorer(runner, held, contexts).score(torch.tensor([[60, 70]]))


class _Direction:
    def __init__(self, vector, site):
        self.vector, self.site = vector, site


@pytest.mark.parametrize("softcap", [0.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_normalizer_by_chunks(monkeypatch, softcap, dtype):
    """The log-normalizer and its gradient are those of the whole logits, in float32 whatever the weights' dtype."""
    monkeypatch.setattr(vocabulary_chunks, "CHUNK", 700)
    generator = torch.Generator().manual_seed(0)
    weight, bias = (
        torch.randn(97, 16, generator=generator).to(dtype),
        torch.randn(97, generator=generator).to(dtype),
    )
    normed = torch.randn(11, 16, generator=generator, requires_grad=True)
    logits = normed.double() @ weight.double().T + bias.double()
    wanted = (softcap * torch.tanh(logits / softcap) if softcap else logits).logsumexp(-1)
    found = log_normalizer(normed, weight, bias, softcap)
    torch.testing.assert_close(found, wanted.float(), atol=1e-5, rtol=1e-5)
    out = torch.randn(11, generator=generator)
    (mine,), (theirs,) = (
        torch.autograd.grad(found @ out, normed),
        torch.autograd.grad(wanted @ out.double(), normed),
    )
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)
