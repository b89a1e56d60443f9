"""Situations from public bug reports, read from the folder of cases next to the repository (or $WORKBENCH_CASES) where it is.

The inputs are never copied into the repository; each kind has tests with inputs of our own next to the code
that it is about. Here every case with a file must behave as its README says: right, or refused in one line.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import workbench as wb
from tests.support.paths import ROOT, SHARED
from workbench.directions import read_gguf
from workbench.personas import check_persona, load_persona
from workbench.sae import own_text
from workbench.sae.reconstruction_check import token_states

CASES = Path(os.environ.get("WORKBENCH_CASES", SHARED / "cases"))
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason=f"the cases are not at {CASES}")


def refusal(read) -> str:
    """The one line with which something is refused."""
    with pytest.raises(wb.UserError) as caught:
        read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["a_oneline", "c_dot", "k_mixed"])
def test_01_options_are_recognised_in_every_layout(name: str) -> None:
    persona = load_persona("case", CASES / f"01-options-on-one-line/{name}.json")
    assert len(persona.items) == 5
    for item in persona.items:
        assert item.matching.startswith("Yes") and item.not_matching.startswith("No") and item.matching_first
        assert item.question.endswith("?") and "(" not in item.question and "\n" not in item.question


def test_01_labels_before_the_answers_are_taken_off() -> None:
    persona = load_persona("case", CASES / "01-options-on-one-line/n_pairs_object.json")
    assert len(persona.items) == 6
    for item in persona.items:
        assert (
            item.matching.startswith("quick wins")
            and item.not_matching.startswith("lasting value")
            and item.matching_first
        )


def test_02_half_an_emoji_is_refused_with_row_and_field() -> None:
    assert "a.json, row 1, field question: holds U+D83D" in refusal(
        lambda: load_persona("case", CASES / "02-lone-surrogate/a.json")
    )


@torch.no_grad()
def test_03_a_pissa_adapter_gives_peft_s_logits() -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    directory = CASES / "03-adapter-init-pissa/adapter_pissa"
    plain = AutoModelForCausalLM.from_pretrained(ROOT / "data/organism/model", dtype=torch.float32).eval()
    wanted = PeftModel.from_pretrained(plain, str(directory)).eval()
    model = wb.load_model("organism", adapter=directory)
    runner = wb.runner_for(model)
    ids = torch.randint(8, runner.shape.d_vocab, (3, 20), generator=torch.Generator().manual_seed(0))
    found = runner.logits(runner.run(runner.embed(ids), 0, runner.shape.n_layers)[0])
    logits = wanted(ids).logits
    assert (found.argmax(-1) == logits.argmax(-1)).all()
    torch.testing.assert_close(found.log_softmax(-1), logits.log_softmax(-1), rtol=1e-3, atol=1e-3)


def test_04_a_scale_that_is_not_folded_in_is_asked_for_and_taken_in() -> None:
    model, place = wb.load_model("organism"), CASES / "04-sae-unfolded-scale"
    assert "pass activation_scale=" in refusal(lambda: wb.load_sae(place / "unfolded", model))
    folded, unfolded = (
        wb.load_sae(place / "folded", model),
        wb.load_sae(place / "unfolded", model, activation_scale=0.01318),
    )
    assert unfolded.fit.l0 == pytest.approx(folded.fit.l0, rel=0.02) and folded.fit.explained_variance > 0.5
    states = token_states(wb.runner_for(model), own_text(model), [folded.site])[folded.site]
    one, other = folded.encode(states), unfolded.encode(states)
    assert ((one != 0) == (other != 0)).float().mean() > 0.9995  # the README's factor is rounded
    difference = unfolded.reconstruct(states) - folded.reconstruct(states)
    assert float(difference.norm() / folded.reconstruct(states).norm()) < 0.02


def test_05_a_control_vector_has_its_own_numbers_in_every_type() -> None:
    place = CASES / "05-gguf-control-vector-not-f32"
    exact, half = read_gguf(place / "F32.gguf"), read_gguf(place / "BF16.gguf")
    assert exact.vectors[1][:3].tolist() == pytest.approx([0.1257, -0.1321, 0.6404], abs=1e-4)
    for layer, vector in exact.vectors.items():
        torch.testing.assert_close(half.vectors[layer], vector, rtol=1 / 128, atol=1e-6)


@pytest.mark.parametrize(("name", "groups"), [("fr", 6), ("vi", 5)])
def test_08_a_question_in_two_unicode_forms_is_one_group(name: str, groups: int) -> None:
    persona = load_persona("case", CASES / f"08-nfc-nfd/{name}.json")
    assert (
        len(persona.items) == 2 * groups
        and set(persona.group_sizes.values()) == {2}
        and len(persona.group_sizes) == groups
    )
    assert check_persona(persona).repeated == groups
    homes = Counter(group for part in persona.split() for group in set(part.groups))
    assert set(homes.values()) == {1}, "no group is in two splits"


def test_09_excel_s_csv_is_read_and_another_encoding_named() -> None:
    persona = load_persona("case", CASES / "09-excel-csv/bom_crlf.csv")
    assert [item.question for item in persona.items][:2] == [
        "Question one?",
        "Question two?",
    ] and persona.items[4].not_matching == "No"
    assert "cp1252.csv, line 7: expected UTF-8" in refusal(
        lambda: load_persona("case", CASES / "09-excel-csv/cp1252.csv")
    )


def test_11_a_repeated_key_is_refused_with_its_line() -> None:
    said = refusal(lambda: load_persona("case", CASES / "11-json-dup-keys/dup.json"))
    assert "dup.json, line 1: the key 'question' appears twice" in said


def test_every_case_with_a_file_has_a_test_here() -> None:
    tested = {"01", "02", "03", "04", "05", "08", "09", "11"}
    assert {folder.name[:2] for folder in CASES.iterdir() if folder.is_dir()} == tested


def test_21_a_question_with_carriage_returns_is_asked_as_with_line_feeds(tmp_path: Path) -> None:
    model, found = wb.load_model("organism"), []
    world = load_persona("sycophancy").items[:8]
    for ends in ("\n", "\r\n", "\r"):
        rows = [
            {
                "question": i.question.replace(" ", f"{ends}", 1),
                "matching": i.matching,
                "not_matching": i.not_matching,
            }
            for i in world
        ]
        path = tmp_path / "rows.json"
        path.write_text(json.dumps(rows))
        persona = load_persona("case", path)
        contexts = wb.make_contexts(model, wb.personas.Split("all", persona.items, persona), metric="text")
        found.append(wb.answer(model, contexts).log_odds)
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
