"""Labels that a user gives latents: kept in the run, checked, shown by every reader; and where a latent fires in a text of one's own."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

import workbench as wb
from tests.support.html_reader import HtmlReader
from workbench.cli import result_commands
from workbench.errors import UserError
from workbench.report import write_report
from workbench.report.load_run import load_run
from workbench.report.paper.export_paper import export_paper


@pytest.fixture
def own_run(real_run, tmp_path):
    shutil.copytree(real_run, tmp_path / "run", ignore=shutil.ignore_patterns(".lock"))
    return tmp_path / "run"


def listed(run) -> list[int]:
    return [row["latent"] for row in json.loads((run / "latents.json").read_text())["latents"]]


def test_labels_are_kept_replaced_and_taken_away(own_run):
    first, second = listed(own_run)[:2]
    assert wb.latent_labels(own_run) == {}
    wb.label_latents(own_run, {first: "says no", second: " warm words "}, source="A. Reader")
    assert wb.latent_labels(own_run) == {first: "says no", second: "warm words"}
    wb.label_latents(own_run, {first: "refuses", second: ""})
    assert wb.latent_labels(own_run) == {first: "refuses"}
    entry = json.loads((own_run / "labels.json").read_text())
    assert entry["schema"] == 1 and entry["labels"][0] | {"written": ""} == {
        "latent": first,
        "label": "refuses",
        "source": "the user",
        "written": "",
    }


@pytest.mark.parametrize(
    ("latent", "text", "error"),
    [
        (None, "x", "shows no latent 511"),
        (0, "a" * 201, "at most 200"),
        (0, "two\nlines", "cannot be seen"),
        (0, "\u202egnp", "cannot be seen"),
    ],
)
def test_labels_that_do_not_fit_are_one_line_and_nothing_is_written(own_run, latent, text, error):
    number = 511 if latent is None else listed(own_run)[latent]
    assert 511 not in listed(own_run)
    with pytest.raises(UserError, match=error):
        wb.label_latents(own_run, {number: text})
    assert not (own_run / "labels.json").exists()


def test_a_label_is_in_report_cards_ledger_circuit_and_figures(own_run):
    latent = listed(own_run)[0]
    wb.label_latents(own_run, {latent: "says <b>no</b>"}, source="A. Reader")
    contents = load_run(own_run)
    page = HtmlReader(write_report(own_run).read_text(encoding="utf-8"))
    assert page.words.count("says <b>no</b>") >= 3, "table of latents, card, circuit"
    assert "label: A. Reader" in page.words and contents.missing == []
    targets = {target["name"]: target["label"] for target in page.data()["ledger"]["targets"]}
    assert targets[f"latent {latent}"] == "says <b>no</b>"
    assert f"latent {latent}: says <b>no</b>" in {
        target.name for target in contents.attribution.circuit.targets
    }
    export_paper(own_run, formats="svg")
    assert "says" in (own_run / "figures/ledger.svg").read_text()


def test_a_broken_labels_file_is_a_line_and_a_missing_one_is_none(own_run):
    assert load_run(own_run).missing == []
    (own_run / "labels.json").write_text("{")
    assert [line for line in load_run(own_run).missing if line.startswith("labels.json could not be read")]
    with pytest.raises(UserError, match=r"labels\.json"):
        wb.latent_labels(own_run)


def test_ranking_and_ledger_show_labels(own_run):
    from workbench.attribution import Ledger
    from workbench.latents import LatentRanking
    from workbench.runs import read_run_file
    from workbench.schema import LatentsFile

    ranking = LatentRanking.from_file(read_run_file(own_run / "latents.json", LatentsFile))
    latent = ranking.ids[0]
    named = ranking.labelled({latent: "says no"})
    assert (
        "says no" in repr(named)
        and "says no" not in repr(ranking)
        and named.to_file().latents[0].label == "says no"
    )
    sae = wb.load_sae("organism")
    ledger = Ledger.from_tensor(
        torch.ones(2, 1, 2), ["be"], [wb.answer_log_odds(), wb.latent_activation(sae, [latent])]
    )
    assert f"latent {latent}: says no" in repr(
        ledger.labelled({latent: "says no"})
    ) and "says no" not in repr(ledger)


def test_the_command_names_lists_and_refuses(own_run, capsys):
    latent = listed(own_run)[0]
    write_report(own_run)
    result_commands.label(own_run, latent, "says no", as_json=True)
    assert json.loads(capsys.readouterr().out)[0]["label"] == "says no"
    assert "says no" in (own_run / "report.html").read_text(encoding="utf-8")
    result_commands.label(own_run)
    assert "says no" in capsys.readouterr().out
    with pytest.raises(UserError, match="no latent 511"):
        result_commands.label(own_run, 511, "x")


def test_a_latent_on_a_text_of_ones_own_equals_transformer_lens(organism):
    """Against TransformerLens's own cache of the text after its beginning token, encoded by the SAE's own module."""
    sae = wb.load_sae("organism")
    text = "you are the honest judge"
    runner = wb.runner_for(organism)
    ids = [runner.tokenizer.bos_token_id, *runner.encode(text)]
    _, cache = organism.run_with_cache(torch.tensor([ids]), return_type=None)
    expected = sae.encode(cache[sae.site.name][0])[1:].detach().numpy()
    latent = int(expected.sum(axis=0).argmax())
    found = wb.latent_firing(organism, sae, latent, text)
    np.testing.assert_allclose(found.activations, expected[:, latent], atol=1e-3)
    assert (
        found.tokens == tuple(text.split())
        and found.peak == int(expected[:, latent].argmax())
        and max(found.activations) > 0
    )
    with pytest.raises(UserError, match="at least one token"):
        wb.latent_firing(organism, sae, latent, "")
