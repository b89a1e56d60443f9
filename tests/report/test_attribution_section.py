"""Circuit, doses, side effects and latents' cards on the page: their figures are there, and what does not fit is said in a line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.html_reader import read_report
from workbench.plots.svg import circuit_svg, dose_svg
from workbench.report.attribution_section import cut_cards
from workbench.schema import CardEntry, CardsFile


def change(directory: Path, name: str, **entries) -> Path:
    content = json.loads((directory / name).read_text())
    (directory / name).write_text(json.dumps(content | entries))
    return directory


def test_the_circuit_and_its_proof_are_told(make_run):
    seen = read_report(make_run())
    assert "3 parts reproduce 87%." in seen.words and "effect that remains (faithfulness)" in seen.words
    assert "87 % 80 % to 94 % 10 % 0 % to 30 %" in seen.words, "own share with interval, random mean, least to most"
    assert "token blunt" in seen.words and "MLP of layer 1 at the question" in seen.words and "path patching" in seen.words
    labels = [a.get("aria-label", "") for tag, a in seen.elements if tag == "svg"]
    assert any("Circuit of 3 heads and MLPs with 7 edges" in label for label in labels)
    assert any("Dose and response" in label for label in labels) and any("Histogram of 13 activations" in label for label in labels)


def test_side_effects_and_cards_are_told(make_run):
    seen = read_report(make_run())
    assert "Active latents: 16." in seen.words and "Beside the objective 44 0.2 1.1 0.9 to 1.3 0.4" in seen.words
    assert "(label: the user)" in seen.words and "It never fires in this corpus of 4,000 tokens." in seen.words
    links = [a["href"] for tag, a in seen.elements if tag == "a" and not a["href"].startswith("#")]
    assert set(links) == {"https://www.neuronpedia.org/toy/1/17"}
    assert [a["class"] for tag, a in seen.elements if tag == "span" and (a.get("class") or "").startswith("act")][:2] == ["act a0", "act a0"]


@pytest.mark.parametrize(("piece", "wrong", "stays"), [
    ("circuit", {"tokens": "x", "nodes": 3}, "Active latents: 16."), ("circuit", [1], "Active latents: 16."),
    ("dose", [{"kind": "prompt"}], "3 parts"),
    ("side_effects", {"beside": [{"latent": "</script>"}]}, "3 parts"),
])  # fmt: skip
def test_a_piece_edited_by_hand_is_left_out_with_a_line(make_run, piece, wrong, stays):
    seen = read_report(change(make_run(), "attribution.json", **{piece: wrong}))
    assert "could not be read, so this page does not show it" in seen.words and stays in seen.words


def test_a_run_without_autoencoder_or_attribution_stands_and_says_so(make_run):
    seen = read_report(make_run(without=("attribution.parquet", "attribution.json", "latents.json", "cards.json")))
    assert "cards.json is not there: this page cannot show what each latent fires on." in seen.words
    assert "attribution.json is not there" in seen.words and "The circuit" not in seen.words and "How it was made" in seen.words


def test_an_older_ledger_without_circuit_stands(make_run):
    seen = read_report(change(make_run(), "attribution.json", circuit=None, dose=None, side_effects=None))
    assert "Which words do it" in seen.words and "The circuit" not in seen.words


def test_too_many_cards_are_cut_and_it_is_said():
    missing: list[str] = []
    cards = CardsFile(cards=[CardEntry(latent=i) for i in range(130)])
    assert len(cut_cards(cards, missing).cards) == 100 and "130" in missing[0]


def test_pictures_of_nothing():
    assert dose_svg([]) == "" and circuit_svg({"tokens": [], "nodes": [], "edges": [], "targets": []}).startswith("<svg")
