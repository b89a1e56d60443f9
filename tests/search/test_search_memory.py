"""Memory of a search: the plan holds, the peak does not grow with candidates and contexts, running out halves the chunk."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.support.toy_models import random_model, toy_persona
from workbench.budget import Budget
from workbench.contexts import make_contexts
from workbench.errors import UserError
from workbench.models import Site, runner_for
from workbench.models.memory_in_use import is_out_of_memory, peak_memory
from workbench.objectives import projection
from workbench.search import EPO, Beam, Checkpoint, ChildProposals, Guided, RandomSearch, Scorer, search
from workbench.search import toolkit as bench_module
from workbench.search.scoring.batch_size import SMALLEST, BatchSize, BatchSizePlan, MemoryLine
from workbench.search.scoring.measured_batch_size import set_batch_size
from workbench.search.toolkit import SearchToolkit

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def setting():
    model = random_model()
    split = toy_persona().split().search
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    goal = projection(SimpleNamespace(vector=vector, site=Site(1)), "raw")
    return (
        runner_for(model),
        goal,
        {slot: make_contexts(model, split, slot) for slot in ("system", "after_question")},
    )


def children_of(parents: torch.Tensor, n: int, position: int = 1) -> ChildProposals:
    generator = torch.Generator().manual_seed(n)
    owner = torch.arange(n) % len(parents)
    ids = parents[owner].clone()
    ids[:, position:] = torch.randint(10, 300, (n, parents.shape[1] - position), generator=generator)
    return ChildProposals(ids, owner, torch.full((n,), position))


def test_counting_memory_prints_nothing(capfd):
    """The profiler wrote a line when it started and another when it stopped."""
    with peak_memory(CPU) as peak:
        torch.zeros(1000, 1000).sum()
    out = capfd.readouterr()
    assert peak.bytes >= 4_000_000 and (out.out, out.err) == ("", "")


def step_peak(scorer: Scorer, parents: torch.Tensor, n: int) -> int:
    """Bytes at the peak of gradients, preparation and the scores of n children."""

    def step() -> None:
        scorer.gradients(parents)
        scorer.cross_entropy_gradients(parents)
        scorer.score_children(scorer.prepare(parents), children_of(parents, n))

    step()
    with peak_memory(CPU) as peak:
        step()
    return peak.bytes


def test_the_peak_is_that_of_the_allocator():
    with peak_memory(CPU) as peak:
        first = torch.zeros(1000, 250)  # 1 MB
        second = first + 1
        del first
        (second * 2).sum()
    assert 2_000_000 <= peak.bytes < 2_010_000


def test_measured_peak_is_within_15_per_cent_of_the_plan(setting):
    runner, goal, contexts = setting
    scorer = Scorer(runner, goal, contexts["after_question"].take(4))
    plan = replace(set_batch_size(scorer, length=6, population=2, children=100), ceiling=512)
    scorer.chunk.tokens, scorer.chunk.gradient_tokens = plan.chunk.tokens, plan.chunk.gradient_tokens
    parents = torch.randint(10, 300, (2, 6), generator=torch.Generator().manual_seed(0))
    assert step_peak(scorer, parents, 100) == pytest.approx(plan.peak, rel=0.15)


def test_the_plan_counts_logits_of_a_large_vocabulary():
    """Found by the benchmark for a GPU: tried on a few tokens only, where logits stay one row, the plan was half of what is held."""
    model, split = random_model(d_vocab=60_000), toy_persona().split().search
    goal = projection(SimpleNamespace(vector=torch.ones(32) / 32**0.5, site=Site(1)), "raw")
    scorer = Scorer(runner_for(model), goal, make_contexts(model, split, "after_question").take(4))
    plan = replace(set_batch_size(scorer, length=6, population=2, children=400), ceiling=2048)
    scorer.chunk.tokens, scorer.chunk.gradient_tokens = plan.chunk.tokens, plan.chunk.gradient_tokens
    parents = torch.randint(10, 300, (2, 6), generator=torch.Generator().manual_seed(0))
    assert step_peak(scorer, parents, 400) == pytest.approx(plan.peak, rel=0.15)


def test_trials_that_do_not_fit_are_made_smaller(setting, monkeypatch):
    runner, goal, contexts = setting
    scorer = Scorer(runner, goal, contexts["after_question"].take(4))
    monkeypatch.setattr("workbench.search.scoring.measured_batch_size.LOGITS_PER_TOKEN", 1)
    run, tokens = runner.run, []

    def limited(resid, *rest, **named):
        tokens.append(resid.shape[0] * resid.shape[1])
        if tokens[-1] > 400:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(resid, *rest, **named)

    monkeypatch.setattr(runner, "run", limited)
    plan = set_batch_size(scorer, length=6, population=2, children=12)
    assert max(tokens) > 400 >= tokens[-1] and plan.forward.per_token > 0 and scorer.chunk == plan.chunk


def test_with_long_suffixes_the_plan_is_not_exceeded(setting):
    """Whole suffixes fill a batch less well (here 450 of 512 tokens), so the plan may be above what is measured."""
    runner, goal, contexts = setting
    scorer = Scorer(runner, goal, contexts["system"].take(4))
    plan = replace(set_batch_size(scorer, length=6, population=2, children=12), ceiling=512)
    scorer.chunk.tokens, scorer.chunk.gradient_tokens = plan.chunk.tokens, plan.chunk.gradient_tokens
    parents = torch.randint(10, 300, (2, 6), generator=torch.Generator().manual_seed(0))
    assert 0.7 * plan.peak < step_peak(scorer, parents, 12) < 1.15 * plan.peak


@pytest.mark.parametrize("slot, few, many", [("system", 8, 32), ("after_question", 50, 200)])
def test_the_peak_does_not_grow_with_candidates_and_contexts(setting, slot, few, many):
    """Parents on four contexts fill a batch of 128 tokens: more contexts make more batches."""
    runner, goal, contexts = setting
    parents = torch.randint(10, 300, (2, 6), generator=torch.Generator().manual_seed(0))
    peaks = {
        (n, m): step_peak(
            Scorer(runner, goal, contexts[slot].take(m), batch_tokens=128, cross_entropy_groups=1), parents, n
        )
        for n, m in ((few, 4), (many, 4), (few, 8))
    }
    assert peaks[many, 4] < 1.2 * peaks[few, 4]
    assert peaks[few, 8] < 1.2 * peaks[few, 4]


def test_less_free_memory_gives_a_smaller_chunk():
    plan = BatchSizePlan(MemoryLine(1000, 10), MemoryLine(0, 40), room=1000 + 10 * 300, ceiling=8192)
    assert plan.chunk == BatchSize(256, 64) and plan.peak == 1000 + 10 * 256
    assert replace(plan, room=1e9).chunk == BatchSize(8192, 2048)
    assert replace(plan, room=0).chunk == BatchSize(SMALLEST, SMALLEST)
    assert MemoryLine.through((100, 1500), (300, 3500)) == MemoryLine(500, 10)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    ],
)
def test_out_of_memory_halves_the_chunk_and_gives_the_scores_of_the_smaller_one(setting, error, monkeypatch):
    runner, goal, contexts = setting
    parents = torch.randint(10, 300, (2, 6), generator=torch.Generator().manual_seed(0))
    scorer, small = (Scorer(runner, goal, contexts["after_question"], batch_tokens=n) for n in (2048, 512))
    expected = small.score_children(small.prepare(parents), children_of(parents, 60))
    run, tokens = runner.run, []

    def limited(resid, *rest, **named):
        tokens.append(resid.shape[0] * resid.shape[1])
        if tokens[-1] > 520:
            raise error
        return run(resid, *rest, **named)

    monkeypatch.setattr(runner, "run", limited)
    found = scorer.score_children(scorer.prepare(parents), children_of(parents, 60))
    assert max(tokens) > 520 and scorer.chunk == BatchSize(512, 128)
    for one, two in zip(found, expected, strict=True):
        assert torch.equal(one.objective, two.objective) and torch.equal(one.cross_entropy, two.cross_entropy)


def test_when_nothing_is_left_to_halve_it_is_said_and_other_errors_pass(setting, monkeypatch):
    runner, goal, contexts = setting
    scorer = Scorer(runner, goal, contexts["system"], batch_tokens=64)
    parents = torch.randint(10, 300, (2, 6), generator=torch.Generator().manual_seed(0))

    def fail(text):
        def run(*rest, **named):
            raise RuntimeError(text)

        return run

    monkeypatch.setattr(runner, "run", fail("CUDA out of memory. Tried to allocate 20 GB"))
    with pytest.raises(UserError, match="out of memory with batches of 16 tokens"):
        scorer.score(parents)
    monkeypatch.setattr(runner, "run", fail("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        scorer.score(parents)
    assert not is_out_of_memory(ValueError("out of memory"))


def test_a_resumed_search_keeps_the_halved_chunk_and_the_bits(setting, tmp_path, monkeypatch):
    runner, goal, contexts = setting
    method = EPO(length=4, population=3, children=8, top_k=16)
    run, errors = runner.run, []
    parents = 3 * (
        4 + max(len(c.suffix_ids) for c in contexts["after_question"])
    )  # one batch, whatever the chunk

    def limited(resid, *rest, **named):
        if resid.shape[0] > 1 and resid.shape[0] * resid.shape[1] > parents:
            errors.append(resid.shape)
            raise torch.OutOfMemoryError("out of memory")
        return run(resid, *rest, **named)

    def go(steps, **named):
        errors.clear()
        found = search(runner, goal, contexts["after_question"][:2], method, Budget(steps=steps), **named)
        return found.candidates, len(errors)

    monkeypatch.setattr(runner, "run", limited)
    checkpoint = Checkpoint(tmp_path / "state.safetensors", every=1)
    whole, halved = go(4)
    go(2, checkpoint=checkpoint)
    resumed, halved_again = go(4, checkpoint=checkpoint)
    assert resumed == whole
    assert halved > 3 > halved_again, "the chunk of the checkpoint was not taken on"


def test_gains_in_parts_of_the_vocabulary_are_the_whole_product(setting, monkeypatch):
    runner, goal, contexts = setting
    families = SearchToolkit.make(Scorer(runner, goal, contexts["system"]), seed=0)
    parents = torch.randint(10, 300, (2, 6), generator=torch.Generator().manual_seed(0))
    slope = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(1))
    whole = slope @ runner.model.W_E.T
    monkeypatch.setattr(bench_module, "VOCABULARY_CHUNK", 100)
    found = families.gains(families.scorer.prepare(parents), slope)
    torch.testing.assert_close(found, whole - whole.gather(-1, parents[..., None]), rtol=1e-5, atol=1e-5)


class Largest(TorchDispatchMode):
    """The most numbers that a tensor made by an operation has (expanded and other views left out)."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            made = (
                x.untyped_storage().nbytes() // x.itemsize
                for x in tree_leaves(out)
                if isinstance(x, torch.Tensor)
            )
            self.numbers = max([self.numbers, *made])
        return out


@pytest.mark.parametrize("method", [EPO, Guided, Beam, RandomSearch], ids=lambda kind: kind.__name__)
def test_no_table_of_all_parents_and_a_large_vocabulary_is_ever_whole(method):
    """262,144 tokens planted: the largest tensor of a step is one parent's or one position's table (and what the weights have anyway)."""
    d_vocab, length, parents = 262_144, 8, 8
    model, split = random_model(d_vocab=d_vocab, d_model=8), toy_persona().split().search
    goal = projection(SimpleNamespace(vector=torch.ones(8) / 8**0.5, site=Site(1)), "raw")
    scorer = Scorer(
        runner_for(model), goal, make_contexts(model, split, "after_question").take(2), batch_tokens=1024
    )
    bench = SearchToolkit.make(scorer, seed=0, lexicon=torch.arange(d_vocab) < 330)
    asked = method(length=length, population=parents, children=2)
    population = bench.random_prompts(parents, length)
    with Largest() as largest:
        asked.step(bench, population, None, 0)
    assert d_vocab < largest.numbers <= length * d_vocab, largest.numbers / (length * d_vocab)


def test_a_table_on_request_is_the_whole_table(setting, monkeypatch):
    runner, goal, contexts = setting
    parents = torch.randint(10, 300, (3, 5), generator=torch.Generator().manual_seed(0))
    scorer = Scorer(runner, goal, contexts["after_question"].take(4), cross_entropy_groups=3)
    whole = scorer.prepare(parents)
    monkeypatch.setattr("workbench.search.scoring.cross_entropy.WHOLE", 0)
    asked = scorer.prepare(parents)
    assert type(whole.log_probs) is not type(asked.log_probs)
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(asked.own, whole.own, **close)
    for row in range(3):
        torch.testing.assert_close(asked.log_probs.parent(row), whole.log_probs.parent(row), **close)
    for position in range(5):
        torch.testing.assert_close(
            asked.log_probs.position(position), whole.log_probs.position(position), **close
        )
    places = torch.tensor([0, 2, 1, 0]), torch.tensor([0, 4, 2, 1]), torch.tensor([17, 280, 33, 4])
    torch.testing.assert_close(asked.log_probs.tokens(*places), whole.log_probs.tokens(*places), **close)
    torch.testing.assert_close(
        asked.log_probs.between(40, 90),
        torch.cat([whole.log_probs.parent(row) for row in range(3)])[..., 40:90],
        **close,
    )
    one, two = (scorer.score_children(prepared, children_of(parents, 12)) for prepared in (whole, asked))
    torch.testing.assert_close(one[1].cross_entropy, two[1].cross_entropy, **close)


def test_the_best_swaps_of_a_large_vocabulary_are_those_of_one_table(setting, monkeypatch):
    """Parts of 50 tokens for all parents at a time, against whole tables of one parent at a time; the first position allows fewer tokens."""
    runner, goal, contexts = setting
    generator = torch.Generator().manual_seed(0)
    parents = torch.randint(10, 300, (3, 5), generator=generator)
    scorer = Scorer(runner, goal, contexts["after_question"].take(4), cross_entropy_groups=3)
    bench = SearchToolkit.make(scorer, seed=0)
    bench.first[:150] = False
    slope, weights = torch.randn(3, 5, 32, generator=generator), (0.3, 2.0, 0.01)
    whole = bench.best_swaps(scorer.prepare(parents), slope, weights, 20)
    monkeypatch.setattr("workbench.search.scoring.cross_entropy.WHOLE", 0)
    monkeypatch.setattr(bench_module, "VOCABULARY_CHUNK", 50)
    asked = scorer.prepare(parents)
    parts = bench.best_swaps(asked, slope, weights, 20)
    assert parts.shape == (3, 5, 20) and parts.equal(whole)
    assert (parts[:, 0] >= 150).all() and not (parts == parents[..., None]).any()
    monkeypatch.setattr(type(runner), "logits_between", lambda *given: None)
    assert bench.best_swaps(asked, slope, weights, 20).equal(whole), "a model without parts of its logits"


@pytest.mark.parametrize("groups", [1, 3])
def test_cross_entropy_by_parts_of_the_vocabulary_is_the_same(setting, monkeypatch, groups):
    """Scores and gradients, when all vocabularies count as large and no batch of whole logits as long enough."""
    runner, goal, contexts = setting
    parents = torch.randint(10, 300, (3, 5), generator=torch.Generator().manual_seed(0))
    scorer = Scorer(runner, goal, contexts["after_question"].take(4), cross_entropy_groups=groups)

    def found() -> list[torch.Tensor]:
        prepared = scorer.prepare(parents)
        _, children = scorer.score_children(prepared, children_of(parents, 12))
        return [
            scorer.score(parents).cross_entropy,
            prepared.own,
            children.cross_entropy,
            scorer.cross_entropy_gradients(parents),
            scorer.gradients(parents, weights=torch.tensor([0.5, 1.0, 2.0])),
        ]

    whole, rows = found(), []
    monkeypatch.setattr("workbench.search.scoring.cross_entropy.WHOLE", 0)
    monkeypatch.setattr("workbench.search.scoring.cross_entropy.LARGE_VOCABULARY", 0)
    monkeypatch.setattr("workbench.search.scoring.cross_entropy.FEW_POSITIONS", 1 << 30)
    monkeypatch.setattr("workbench.models.vocabulary_chunks.LOGITS", 600)
    own = runner.log_normalizer
    monkeypatch.setattr(runner, "log_normalizer", lambda resid: rows.append(len(resid)) or own(resid))
    for one, two in zip(whole, found(), strict=True):
        torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-5)
    assert len(rows) >= 5
