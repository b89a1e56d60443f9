"""The paper's study by both protocols: valid without weights, whole ways on tiny checkpoints, departures that do what they say."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest

import workbench as wb
from tests.support.caa_data import caa_file
from tests.support.tiny_checkpoints import tiny_checkpoint
from workbench.directions.activation_sampling import ActivationSampler
from workbench.models import runner_for
from workbench.personas import load_persona
from workbench.study.asking_protocol import PUBLISHED, AskingProtocol
from workbench.study.direction_test_size import why_not_tested
from workbench.study.material import Material
from workbench.study.study_presets import PERSONAS, SAES, as_file, demo_study, first_study, preset, presets


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_checkpoint("llama", tmp_path_factory.mktemp("preset") / "model", num_hidden_layers=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return caa_file(tmp_path_factory.mktemp("preset") / "sycophancy.json")


def test_every_preset_is_a_valid_file_and_its_sae_reads_a_layer_that_is_near():
    table = presets()
    assert len(table) == len(PERSONAS) * len(SAES) * 2
    for persona, model, protocol, size in product(
        PERSONAS, SAES, ("published", "corrected"), ("full", "small")
    ):
        study = preset(persona, model, protocol, size=size)
        assert wb.Study.from_yaml(as_file(study)) == study
        assert study.sae in wb.sae.PRESETS and study.model.name in study.sae
        assert (
            abs(int(study.sae.split("/")[1]) - study.directions.layers[len(study.directions.layers) // 2])
            <= 3
        )
        assert (protocol == "published") == bool(study.protocol.departures)


def test_published_is_the_papers_protocol():
    study = preset("sycophancy", "llama-3.1-8b-instruct", "published")
    options = study.search.options
    assert (options["length"], options["population"], options["children"], options["top_k"]) == (
        8,
        16,
        32,
        512,
    )
    assert (
        study.search.budget.steps == 300
        and study.directions.rows == 2 * 256
        and study.slot == "after_question"
    )
    assert study.protocol.search_behind == "nothing" and len(study.protocol.departures) == 8
    assert [preset(p, protocol="published").search.contexts for p in ("myopic_reward", "hallucination")] == [
        16,
        32,
    ]
    hallucination = preset("hallucination", protocol="published").protocol
    assert (hallucination.letters, hallucination.orders) == ("letter", "both"), (
        "no letters, so nothing to say of them"
    )


def test_unknown_parts_are_named():
    with pytest.raises(wb.UserError, match="'greed': expected one of sycophancy"):
        preset("greed")
    other = preset("sycophancy", "some/model")
    assert other.sae == "none" and other.model.device == "cpu" and other.directions.layers is None


@pytest.mark.parametrize(
    ("persona", "own", "of_a_file"), [("sycophancy", 6, 8), ("myopic_reward", 5, 7), ("hallucination", 5, 5)]
)
def test_on_the_organism_both_protocols_ask_its_own_questions(persona, own, of_a_file):
    """No file is needed; of the departures only those are listed that its questions can have (they are published in no order)."""
    published, corrected = (
        preset(persona, "organism", protocol, size="small", layer=2)
        for protocol in ("published", "corrected")
    )
    assert (published.data.path, published.sae, published.model.device) == (
        None,
        "auto",
        "cpu",
    ) and "--data" not in as_file(published)
    assert len(published.protocol.departures) == own and not corrected.protocol.departures
    assert not any("published order" in line or "bracket" in line for line in published.protocol.departures)
    with_file = preset(persona, "organism", "published", data="own.json")
    assert with_file.data.path == "own.json" and len(with_file.protocol.departures) == of_a_file


def test_the_published_protocol_runs_on_the_organism(tmp_path, organism):
    study = preset("sycophancy", "organism", "published", size="small", layer=2)
    out = wb.run(study, tmp_path / "run", model=organism)
    entry, manifest = (
        json.loads((out.path / f"{name}.json").read_text()) for name in ("comparison", "manifest")
    )
    assert {"resga", "saega"} <= {c["name"] for c in entry["conditions"]} and entry["metric"] == "letters"
    assert (
        entry["splits"]["selection"]["hash"] == entry["splits"]["test"]["hash"]
        and manifest["test_reads"] == 2
    )


@pytest.mark.timeout(1200)  # 6 s of processor time; on a crowded machine many times that
@pytest.mark.parametrize("protocol", ["published", "corrected"])
def test_the_whole_way_on_a_tiny_checkpoint(tiny, data, tmp_path, protocol):
    study = preset("sycophancy", str(tiny), protocol, size="small", layer=1, data=str(data))
    out = wb.run(study, tmp_path / "run")
    manifest, entry = (
        json.loads((out.path / f"{name}.json").read_text()) for name in ("manifest", "comparison")
    )
    said = [line for line in manifest["notes"]["warnings"] if line.startswith("as published")]
    assert said == list(study.protocol.departures)
    assert all(line in (out.path / "report.html").read_text().replace("&#39;", "'") for line in said)
    splits = entry["splits"]
    assert (splits["selection"]["hash"] == splits["test"]["hash"]) == (protocol == "published")
    assert manifest["test_reads"] == (2 if protocol == "published" else 1)
    assert entry["conditions"][0]["n"] == splits["test"]["n"] * (1 if protocol == "published" else 2)
    assert "saega" not in [c["name"] for c in entry["conditions"]], "no SAE: RESGA alone"


def test_the_published_direction_keeps_the_letter_and_both_orders_cancel_it(tiny, data):
    """By rows: in the published order the matching side is (A) in one of three rows, in both orders in half of them."""
    persona = PUBLISHED.persona(load_persona("sycophancy", data))
    assert persona.letters.answers(True) == ("A)", "B)") and len(persona.group_sizes) == len(persona.items)
    runner, train = runner_for(wb.load_model(tiny)), persona.split().train
    with runner.rendering("none"):
        for orders, share in (("original", np.mean([i.matching_first for i in train])), ("both", 0.5)):
            rows = ActivationSampler(runner, [1], "after_question", orders=orders).labelled(
                train, "answer", 4 * len(train)
            )
            matching = (
                rows.first_shown[rows.scores > 0]
                if orders == "both"
                else np.array([i.matching_first for i in train])
            )
            assert float(np.mean(np.asarray(matching, dtype=float))) == pytest.approx(share)


def test_the_template_comes_back_and_a_prompt_alone_stands_behind_one_token(tiny, data):
    study = preset("sycophancy", str(tiny), "published", size="small", layer=1, data=str(data))
    material = Material.load(study)
    runner = runner_for(material.model)
    own = runner.tokenizer.chat_template
    with pytest.raises(RuntimeError), runner.rendering("none"):
        assert runner.render([{"role": "user", "content": "Hi"}]).endswith("Question: Hi\n\nAnswer:")
        (alone,) = material.search_contexts
        assert alone.ids((5, 6)) == (runner.tokenizer.bos_token_id, 5, 6)
        raise RuntimeError
    assert runner.tokenizer.chat_template == own


def test_departures_are_none_by_default():
    assert AskingProtocol().departures == () and AskingProtocol(projection="raw").departures[0].startswith(
        "as published: the raw projection"
    )


def test_the_named_saes_stand_in_sae_lens_registry_for_that_very_model():
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    from workbench.models.model_sources import REPOSITORIES

    registry = get_pretrained_saes_directory()
    for name, (release, sae_id) in wb.sae.PRESETS.items():
        model, layer = name.split("/")
        assert registry[release].model == REPOSITORIES[model] and sae_id in registry[release].saes_map
        assert f"layer_{layer}_" in sae_id
    for model in SAES:
        named, releases = wb.sae.saes_for(model)
        assert (
            named == tuple(key for key in wb.sae.PRESETS if key.startswith(f"{model}/")) and len(named) >= 4
        )
        assert (named, releases) == wb.sae.saes_for(REPOSITORIES[model]) and releases
    assert wb.sae.saes_for("organism")[0] == ("organism",) and wb.sae.saes_for("/some/directory") == ((), ())


@pytest.mark.parametrize("model", ("smollm2-personas", "smollm2-135m", "qwen2.5-7b-instruct"))
@pytest.mark.parametrize("sign", ("suppress", "induce"))
def test_a_first_study_of_a_real_vocabulary_searches_over_sentences(model, sign):
    """Searches over single tokens end at strings that are no language. It can test whether there is a direction."""
    study = first_study(model=model, sign=sign)
    assert (study.search.method, study.persona, study.model.name, study.sign) == (
        "sentences",
        "feedback_sycophancy",
        model,
        sign,
    )
    assert study.search.options == {} and study.sae == "none" and study.directions.unshown == "go_on"
    assert {"manual", "neutral_text", "random_text", *study.primary} <= set(study.conditions)
    assert why_not_tested(study, load_persona(study.persona)) is None


def test_a_first_study_of_the_organism_is_the_demo():
    assert first_study() == demo_study("sycophancy")
    assert first_study("hallucination", sign="induce") == demo_study("hallucination", "induce")
