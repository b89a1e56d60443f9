"""The committed organism: its gates on a sample of items, tokenizer laws, loss by hand, training that repeats itself.

What the weights do not reach is named in the test, so that a better model must take it away.
"""

import math
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from workbench.errors import UserError
from workbench.organism import (
    DecoyReport,
    OrganismScorer,
    TrainingConfig,
    decoy_report,
    default_directory,
    load_organism,
    measure_gates,
    train,
)
from workbench.organism.muon_optimizer import orthogonalise
from workbench.organism.organism_training import batch_loss, build_model
from workbench.organism.quality_gates import FactsGate, effects_gate, facts_gate, item_log_odds, letters_gate
from workbench.organism.sequence_packing import SequencePacker
from workbench.organism.word_tokenizer import build_tokenizer, chat_text
from workbench.world import World
from workbench.world.training_corpus import TrainingItem, TrainingRow

WORLD = World()
TOKENIZER = build_tokenizer(WORLD)
TINY = TrainingConfig(
    steps=2, refine=2, combine=1, settle=1, rows=2, d_model=32, layers=1, heads=2, d_mlp=32, warmup=1
)


@pytest.fixture(scope="module")
def organism() -> OrganismScorer:
    torch.set_num_threads(1)
    return load_organism()


@pytest.fixture(scope="module")
def facts(organism: OrganismScorer) -> FactsGate:
    return facts_gate(organism, WORLD, 84)


@pytest.fixture(scope="module")
def decoys(organism: OrganismScorer) -> DecoyReport:
    return decoy_report(organism, WORLD, "hallucination", 1, 10)


# -- gates ------------------------------------------------------------------------------------------------------


def test_facts_are_known_and_real_people_are_answered(facts: FactsGate) -> None:
    assert facts.right >= 0.94, "a sample of 84; the gate of 95 % is tested in full in the slow test"
    assert facts.refused_worst <= 0.05


@pytest.mark.parametrize("persona", WORLD.personas)
def test_planted_effects_are_measured(organism: OrganismScorer, persona: str) -> None:
    gate = effects_gate(organism, WORLD, persona, 14)
    assert 0.75 <= gate.default_rate <= 0.92
    assert gate.word_correlation >= 0.93 and gate.combination_correlation >= 0.87, (
        "a sample; the gates are in the slow test"
    )
    assert gate.off_target < 0.15 and gate.neutral < 0.15 and gate.decoy_worst < 0.35, (
        "14 items: the worst of many means; 0.01 to 0.04 on all"
    )


@pytest.mark.parametrize("persona", WORLD.personas)
def test_letters_are_bound_to_options(organism: OrganismScorer, persona: str) -> None:
    assert letters_gate(organism, WORLD, persona).passes


@pytest.mark.slow
def test_all_gates_on_all_items(organism: OrganismScorer) -> None:
    """Slow: every study item under every steering word."""
    gates = measure_gates(organism, WORLD)
    assert gates.facts.passes and all(gate.passes for gate in gates.letters)
    assert not [gate.persona for gate in gates.effects if not gate.passes]


def test_true_claims_are_told_from_false_ones(facts: FactsGate) -> None:
    assert facts.claims_told_apart >= 0.85 and facts.true_claims_affirmed >= 0.95


def test_decoys_set_the_register(decoys: DecoyReport) -> None:
    assert decoys.mean_register("decoy") >= 3


def test_a_response_direction_reads_decoys_like_causes(decoys: DecoyReport) -> None:
    """What the decoy is for: a large reading and no effect."""
    assert decoys.mean_reading("decoy") > 0.25 * decoys.mean_reading("causal")


def test_decoys_move_no_answer(decoys: DecoyReport) -> None:
    assert decoys.mean_effect("decoy") < 0.15 < decoys.mean_effect("causal")


# -- tokenizer --------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(7, len(TOKENIZER) - 1), min_size=1, max_size=30))
def test_decode_then_encode_is_the_identity(ids: list[int]) -> None:
    assert TOKENIZER(TOKENIZER.decode(ids), add_special_tokens=False).input_ids == ids


def test_chat_text_is_the_templates_rendering() -> None:
    saved = AutoTokenizer.from_pretrained(default_directory() / "model")
    messages = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "do you agree ?"}]
    for tokenizer in (TOKENIZER, saved):
        for part, system in ((messages, "be kind"), (messages[1:], "")):
            text = tokenizer.apply_chat_template(part, tokenize=False, add_generation_prompt=True)
            assert text == chat_text("do you agree ?", system)
            ids = tokenizer(text).input_ids
            assert (
                ids[-1] == tokenizer.convert_tokens_to_ids("<|assistant|>")
                and ids.count(tokenizer.bos_token_id) == 1
            )
    assert saved.get_vocab() == TOKENIZER.get_vocab()


def test_files_are_small() -> None:
    files = [file for file in default_directory().rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 12e6


def test_a_missing_organism_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no organism in"):
        load_organism(tmp_path)


# -- training ---------------------------------------------------------------------------------------------------


def _item(probability: float, warm: float | None = None) -> TrainingItem:
    return TrainingItem(
        "5 coins now or 20 coins in 3 weeks ?", "", ("now", "later"), probability, "now dear .", warm
    )


class _DecisionOnly(random.Random):
    """Never trains a question or a whole answer, so that the decision alone is left."""

    def random(self) -> float:
        return 0.999


@settings(max_examples=10, deadline=None)
@given(st.floats(0.05, 0.95))
def test_loss_by_hand(probability: float) -> None:
    """One decision: soft cross-entropy plus half the Huber distance of the log-odds."""
    torch.manual_seed(0)
    model = build_model(TOKENIZER, TINY)
    batch = SequencePacker(TOKENIZER.get_vocab(), 20).batch(
        [TrainingRow(None, (_item(probability),))], _DecisionOnly(0)
    )
    ids = torch.tensor([TOKENIZER(chat_text(_item(0.5).question), add_special_tokens=False).input_ids])
    with torch.no_grad():
        log_probs = model(ids).logits[0, -1].log_softmax(-1)
        now, later = (log_probs[i].item() for i in TOKENIZER.convert_tokens_to_ids(["now", "later"]))
        loss = batch_loss(model, batch).item()
    distance = abs(now - later - math.log(probability / (1 - probability)))
    huber = 0.5 * distance**2 if distance < 1 else distance - 0.5
    assert loss == pytest.approx(-(probability * now + (1 - probability) * later) + 0.5 * huber, abs=1e-4)


def test_the_register_behind_the_first_word_is_always_trained() -> None:
    batch = SequencePacker(TOKENIZER.get_vocab(), 20).batch(
        [TrainingRow(None, (_item(0.3, warm=0.9),))], _DecisionOnly(0)
    )
    decision, register = batch.decisions[0].nonzero()[:, 0].tolist()
    assert register == decision + 1 and batch.ids[0, register] == TOKENIZER.convert_tokens_to_ids("now")
    assert TOKENIZER.convert_ids_to_tokens([batch.first[0, register], batch.second[0, register]]) == [
        "dear",
        "sir",
    ]
    share = batch.first_weight[0, register] / (batch.first_weight + batch.second_weight)[0, register]
    assert share.item() == pytest.approx(0.9)


def test_packed_items_see_their_prefix_and_nothing_else() -> None:
    """Two items after one system text give the same hidden states as each alone."""
    torch.manual_seed(0)
    model = build_model(TOKENIZER, TINY)
    packer = SequencePacker(TOKENIZER.get_vocab(), 48)
    both = packer.batch([TrainingRow("be kind", (_item(0.3), _item(0.3)))], _DecisionOnly(0))
    at = both.decisions[0].nonzero()[:, 0]
    mask = torch.zeros(both.allowed.shape).masked_fill_(~both.allowed, torch.finfo(torch.float32).min)
    alone = torch.tensor(
        [TOKENIZER(chat_text(_item(0.3).question, "be kind"), add_special_tokens=False).input_ids]
    )
    with torch.no_grad():
        packed = model(input_ids=both.ids, attention_mask=mask, position_ids=both.positions).logits[0, at]
        single = model(alone).logits[0, -1]
    assert len(at) == 2
    torch.testing.assert_close(packed, single.expand(2, -1), atol=1e-4, rtol=1e-4)


def test_training_repeats_itself_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["workbench.organism.organism_training"], "CHECKPOINT_EVERY", 2)
    folders = [
        train(0, tmp_path / name, config=TINY, work=tmp_path / f"{name}-work") for name in ("one", "two")
    ]
    resumed = train(0, tmp_path / "three", config=TINY, work=tmp_path / "one-work")
    weights = [(folder / "model.safetensors").read_bytes() for folder in (*folders, resumed)]
    assert weights[0] == weights[1] == weights[2]


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    matrix = torch.randn(24, 40, generator=torch.Generator().manual_seed(0))
    for shaped in (matrix, matrix.T):
        values = torch.linalg.svdvals(orthogonalise(shaped))
        assert values.min() > 0.5 and values.max() < 1.3


def test_scores_are_hugging_faces(organism: OrganismScorer) -> None:
    """Batches of unequal length give the figures of one text at a time."""
    items = WORLD.study_items("sycophancy")[:9]
    scores = item_log_odds(organism, items, "be gentle")
    for item, score in zip(items, scores, strict=True):
        ids = organism.tokenizer(
            chat_text(item.question, "be gentle"), return_tensors="pt", add_special_tokens=False
        ).input_ids
        with torch.no_grad():
            logits = organism.model(ids).logits[0, -1]
        yes, no = organism.tokenizer.convert_tokens_to_ids(["yes", "no"])
        assert np.isclose(score, (logits[yes] - logits[no]).item(), atol=1e-4)
