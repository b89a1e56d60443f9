"""Circuit, doses, side effects and latents' cards on the page: their figures are there, and what does not fit is said in a line."""

from __future__ import annotations

import pytest

from tests.support.html_reader import read_report
from tests.support.real_run import edit, read_entry
from workbench.plots.svg import circuit_svg, dose_svg
from workbench.report.attribution_section import cut_cards
from workbench.schema import CardEntry, CardsFile


def percent(value: float) -> str:
    return f"{100 * value:.0f} %".replace("-", "\N{MINUS SIGN}")


def test_the_circuit_and_its_faithfulness_are_told(make_run):
    circuit = read_entry(run := make_run(), "attribution.json")["circuit"]
    seen, proof = read_report(run), circuit["proof"]
    assert (
        circuit["verdict"].split(";")[1] in seen.words and "effect that remains (faithfulness)" in seen.words
    )
    for own, random in ((proof[name], proof[f"random_{name}"]) for name in ("faithfulness", "completeness")):
        figures = (
            f"{percent(own['mean'])} {percent(own['low'])} to {percent(own['high'])} {percent(random[0])} "
        )
        assert figures + f"{percent(random[1])} to {percent(random[2])}" in seen.words, (
            "own share with interval, random mean, least to most"
        )
    node = circuit["nodes"][0]
    place = {-2: "the question", -1: "the decision token"}.get(
        node["place"]
    ) or f"token {circuit['tokens'][node['place']]}"
    assert f"{node['name']} at {place}" in seen.words and "path patching" in seen.words
    labels = [a.get("aria-label", "") for tag, a in seen.elements if tag == "svg"]
    assert any(f"Circuit of {len(circuit['nodes'])} heads and MLPs with " in label for label in labels)
    fired = sum(read_entry(run, "cards.json")["cards"][0]["counts"])
    assert any("Dose and response" in label for label in labels) and any(
        f"Histogram of {fired:,} activations" in label for label in labels
    )


def test_side_effects_are_told(make_run):
    effects = read_entry(run := make_run(), "attribution.json")["side_effects"]
    seen = read_report(run)
    assert (
        effects["verdict"] in seen.words
        and f"Outside the objective {effects['beside'][0]['latent']} " in seen.words
    )


def test_cards_are_told_with_their_labels_source_and_link(make_run):
    def label(entry):
        entry["cards"][0].update(
            label="plain speech", label_source="the user", neuronpedia="https://www.neuronpedia.org/toy/1/17"
        )
        entry["cards"][1].update(density=0.0, neuronpedia="https://elsewhere.org/toy")

    run = edit(make_run(), "cards.json", label)
    cards = read_entry(run, "cards.json")["cards"]
    seen = read_report(run)
    assert "plain speech (label: the user)" in seen.words
    assert f"It never fires in this corpus of {cards[1]['n_tokens']:,} tokens." in seen.words
    links = [a["href"] for tag, a in seen.elements if tag == "a" and not a["href"].startswith("#")]
    assert set(links) == {"https://www.neuronpedia.org/toy/1/17"}
    example = cards[0]["examples"][0]
    shares = [round(4 * max(0.0, min(1.0, a / example["activation"]))) for a in example["activations"]]
    classes = [
        a["class"] for tag, a in seen.elements if tag == "span" and (a.get("class") or "").startswith("act")
    ]
    assert classes[: len(shares)] == [f"act a{share}" for share in shares]


@pytest.mark.parametrize(
    ("piece", "wrong", "stays"),
    [
        ("circuit", {"tokens": "x", "nodes": 3}, "What else moves"),
        ("circuit", [1], "What else moves"),
        ("dose", [{"kind": "prompt"}], "The circuit"),
        ("side_effects", {"beside": [{"latent": "</script>"}]}, "The circuit"),
    ],
)
def test_a_piece_edited_by_hand_is_left_out_with_a_line(make_run, piece, wrong, stays):
    seen = read_report(edit(make_run(), "attribution.json", lambda entry: entry.update({piece: wrong})))
    assert (
        f"{piece.replace('_', ' ')} could not be read, so this page does not show it" in seen.words
        and stays in seen.words
    )


def test_a_circuit_of_too_many_tokens_is_left_out_with_a_line(make_run):
    run = edit(make_run(), "attribution.json", lambda entry: entry["circuit"].update(tokens=["a"] * 81))
    assert "the circuit is too large to be drawn (81 tokens, at most 80)" in read_report(run).words


def test_a_run_without_autoencoder_or_attribution_stands_and_says_so(make_run):
    seen = read_report(
        make_run(without=("attribution.parquet", "attribution.json", "latents.json", "cards.json"))
    )
    assert "cards.json is not there: this page cannot show what each latent fires on." in seen.words
    assert (
        "attribution.json is not there" in seen.words
        and "The circuit" not in seen.words
        and "How it was made" in seen.words
    )


def test_an_older_ledger_without_circuit_stands(make_run):
    older = {"circuit": None, "dose": [], "side_effects": None}
    seen = read_report(edit(make_run(), "attribution.json", lambda entry: entry.update(older)))
    assert "Which words do it" in seen.words and "The circuit" not in seen.words


def test_too_many_cards_are_cut_and_it_is_said():
    missing: list[str] = []
    cards = CardsFile(cards=[CardEntry(latent=i) for i in range(130)])
    assert len(cut_cards(cards, missing).cards) == 100 and "130" in missing[0]


def test_pictures_of_nothing():
    assert dose_svg([]) == "" and circuit_svg(
        {"tokens": [], "nodes": [], "edges": [], "targets": []}
    ).startswith("<svg")
