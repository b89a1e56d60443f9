"""Registries: one file adds a condition or a search method, collisions name both files, and every list is made of the entries."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import altair
import pytest
import torch

from tests.support.paths import ROOT
from tests.support.registries import restored_registries
from workbench.attribution import ESTIMATORS
from workbench.budget import Budget
from workbench.comparison import compare
from workbench.conditions import (
    CLAIMS,
    CONDITION_KINDS,
    GROUPS,
    STUDY_CONDITIONS,
    Found,
    Prompt,
    default_conditions,
)
from workbench.directions import DIRECTION_METHODS, default_methods
from workbench.errors import UserError
from workbench.personas import DATA_FORMATS, load_persona
from workbench.registry import RegistrationError, Registry
from workbench.report import figures, write_report
from workbench.report.figures import chart_style
from workbench.report.load_run import load_run
from workbench.report.verdict import UNKNOWN, caveats, group_of, is_control, label
from workbench.sae import SAE_FORMATS, load_sae
from workbench.search import SEARCH_METHODS
from workbench.study import Study, run
from workbench.study.study_settings import (
    AttributionSettings,
    DataSettings,
    DirectionSettings,
    OffTargetSettings,
    SearchSettings,
)

CONDITION = '''
"""The persona's last written prompt, twice: a toy."""

from workbench.conditions import BuildContext, ConditionKind, Prompt, StudyCondition, register_kind, register_study_condition


def _build(context: BuildContext) -> list[Prompt]:
    text = context.manual_prompts[-1]
    return [Prompt(f"{text} {text}", name="said twice", kind="twice", selection_rate=0.5)]


register_kind(ConditionKind("twice", "control", "the same sentence twice", control_of=("works",)))
register_study_condition(StudyCondition("said_twice", "twice", "the last written prompt, twice", _build))
'''
METHOD = '''
"""Every child is the parent with its first token drawn anew: a toy."""

import torch

from workbench.search import SEARCH_METHODS, SearchMethod


@SEARCH_METHODS.register("first_token")
class FirstToken(SearchMethod):
    def propose(self, bench, prepared, step):
        tokens = torch.nonzero(bench.allowed)[:, 0]
        chosen = tokens[torch.randint(len(tokens), (len(prepared.ids), self.children), generator=bench.generator)]
        rows = prepared.ids.tolist()
        return bench.from_list([(p, (t, *rows[p][1:])) for p, drawn in enumerate(chosen.tolist()) for t in drawn], prepared.ids)
'''
STUDY = {
    "data": DataSettings(train_items=24, search_items=6, selection_items=8, test_items=24),
    "directions": DirectionSettings(layers=(1,), methods=("own_choice",), rows=48, texts=6, contexts=4),
    "random_directions": 0,
    "sae": "none",
    "attribution": AttributionSettings(contexts=3, circuit=0, cards=0),
    "collateral": OffTargetSettings(items=4),
}


def load(path: Path, text: str) -> ModuleType:
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def toys(tmp_path):
    condition, method = tmp_path / "said_twice.py", tmp_path / "first_token.py"
    with restored_registries():
        load(condition, CONDITION)
        load(method, METHOD)
        yield condition, method


def test_one_file_each_is_enough_for_a_study_a_comparison_and_a_report(toys, organism, tmp_path):
    search = SearchSettings(
        method="first_token",
        options={"length": 4, "population": 2, "children": 4},
        budget=Budget(steps=2),
        contexts=3,
        neutral=6,
    )
    study = Study(conditions=("resga", "said_twice"), search=search, **STUDY)
    assert Study.from_yaml(study.to_yaml()) == study
    out = run(study, tmp_path / "run", model=organism).path
    found = {c["name"]: c for c in json.loads((out / "comparison.json").read_text())["conditions"]}
    assert list(found) == ["no prompt", "resga", "said twice"]
    text = load_persona("sycophancy").manual_prompts["suppress"][-1]
    assert (found["said twice"]["kind"], found["said twice"]["prompt"]) == ("twice", f"{text} {text}")
    assert found["resga"]["method"] == "firsttoken"
    page = (out / "report.html").read_text()
    assert "the same sentence twice" in page and is_control("twice") and group_of("twice") == "control"
    domain = figures.forest(json.loads((out / "comparison.json").read_text())).to_dict()["layer"][1][
        "encoding"
    ]["color"]["scale"]["domain"]
    assert domain == list(GROUPS.values())

    given = [Prompt(text, kind="twice", name="toy"), Found(text, "resga", "by hand")]
    compared = compare(organism, load_persona("sycophancy").split().test.take(6, 0), given)
    assert compared.primary == (compared.entries[-1].name,) and compared.entries[-1].condition.kind == "resga"


def test_a_run_of_somebodys_own_kind_is_read_without_it(toys, organism, tmp_path):
    """Its group is named as unknown: it is no control, and no prompt that the head of the page shows."""
    study = Study(conditions=("said_twice",), **STUDY)
    out = run(study, tmp_path / "run", model=organism).path
    CONDITION_KINDS.discard("twice")
    contents = load_run(out)
    page = write_report(out, tmp_path / "page.html").read_text()
    assert UNKNOWN[1] in page and not is_control("twice") and group_of("twice") == UNKNOWN[0]
    assert contents.comparison is not None
    assert not any("control" in line for line in caveats(contents, contents.comparison.conditions[0]))
    frame = figures.forest(json.loads((out / "comparison.json").read_text())).to_dict()
    assert frame["layer"][1]["encoding"]["color"]["scale"]["domain"] == [*GROUPS.values(), UNKNOWN[1]]


@pytest.mark.parametrize("text", [CONDITION, METHOD])
def test_a_name_that_is_taken_is_refused_at_import_and_both_files_are_named(toys, text, tmp_path):
    first = toys[0] if text == CONDITION else toys[1]
    second = tmp_path / "second.py"
    line = next(
        i for i, code in enumerate(text.splitlines(), start=1) if "register" in code and "import" not in code
    )
    with pytest.raises(RegistrationError) as refused:
        load(second, text)
    assert f"{first}:{line}" in str(refused.value) and f"{second}:{line}" in str(refused.value)


def test_an_unknown_name_is_a_users_mistake_that_lists_what_exists():
    with pytest.raises(UserError, match=r"unknown condition 'magic': expected one of .*resga.*gepa"):
        Study.of({"conditions": ["magic"]})
    with pytest.raises(UserError, match=r"unknown condition kind 'magic': expected one of resga, "):
        compare(None, load_persona("sycophancy").split().test, [Prompt("be kind", kind="magic")])
    for field, says in {
        "search: {method: magic}": r"field search.method: .*unknown search method 'magic': expected one of beam, epo, gcg, guided, random",
        "directions: {methods: [own_choice, magic]}": r"field directions.methods: .*unknown direction method 'magic'.*response_mean",
        "attribution: {estimators: [magic]}": r"field attribution.estimators: .*unknown estimator 'magic'.*shapley",
    }.items():
        with pytest.raises(UserError, match=says):
            Study.from_yaml(field)
    assert CONDITION_KINDS.get("magic") is None and "magic" not in CONDITION_KINDS


def test_a_registry_finds_the_files_of_its_package_and_keeps_their_order(tmp_path, monkeypatch):
    package = tmp_path / "toy_shapes"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from workbench.registry import Registry\nSHAPES = Registry('shape', 'toy_shapes', order=lambda n: n)\n"
    )
    for name, sides in (("square", 4), ("triangle", 3)):
        (package / f"{name}.py").write_text(f"from toy_shapes import SHAPES\nSHAPES.add('{name}', {sides})\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import toy_shapes  # type: ignore[import-not-found]

    assert dict(toy_shapes.SHAPES) == {"triangle": 3, "square": 4} and list(toy_shapes.SHAPES) == [
        "triangle",
        "square",
    ]
    assert toy_shapes.SHAPES.file("square") == f"{package / 'square.py'}:2"
    with pytest.raises(UserError, match="unknown shape 'circle': expected one of triangle, square"):
        toy_shapes.SHAPES.file("circle")


def test_an_entry_can_be_forgotten_and_added_anew():
    numbers: Registry[int] = Registry("number")
    numbers.add("one", 1)
    numbers.discard("one")
    assert numbers.add("one", 11) == 11 and dict(numbers) == {"one": 11}


def test_what_is_a_control_of_what():
    """The claims of a verdict and their controls, written down by hand; constant answers and steering are shown and control nothing."""
    controls = {
        claim: {k.kind for k in CONDITION_KINDS.values() if claim in k.control_of} for claim in CLAIMS
    }
    assert controls == {
        "works": {"none", "random_prompt", "random_text", "neutral_text"},
        "optimizer_matters": {"random_search", "random_updates"},
        "direction_is_specific": {"random_direction"},
        "internals_matter": {"answer_objective", "gcg"},
        "better_than_writing": {"manual", "llm_proposed", "few_shot"},
        "clean": set(),
    }
    assert {k.kind for k in CONDITION_KINDS.values() if k.same_search_as} == {
        "random_search",
        "random_direction",
    }
    tested = {k.kind for k in CONDITION_KINDS.values() if k.is_tested}
    searched = {"resga", "saega", "answer_objective", "gcg", "warm_start"}
    assert tested == searched | {"steering", "latent_clamp", "soft_prompt", "llm_proposed", "few_shot"}


def test_methods_and_estimators_are_registered_under_their_own_names():
    assert default_methods() == ("mean_difference", "own_choice", "own_choice_within", "logistic")
    assert set(DIRECTION_METHODS) == {
        *default_methods(),
        "principal_difference",
        "own_choice_weighted",
        "whitened",
        "response_mean",
    }
    assert all(method.name == name for name, method in DIRECTION_METHODS.items())
    assert set(ESTIMATORS) == {
        "removal",
        "replacement",
        "gradient_x_input",
        "relevance",
        "integrated_gradients",
        "shapley",
    }
    assert all(estimator().name == name for name, estimator in ESTIMATORS.items())


FORMAT = '''
"""Statements with a stance: a toy."""

from workbench.personas import DataFormat, Item, register_format

FIELDS = ("statement", "agrees", "disagrees")
register_format(DataFormat("stances", FIELDS, lambda row, grouping: Item(row.source, *map(row.text, FIELDS), "one group"), "a toy"))
'''


def test_a_data_format_is_one_file(tmp_path):
    with restored_registries():
        load(tmp_path / "stances.py", FORMAT)
        rows = [
            {"statement": f"Tea is {word}.", "agrees": "yes", "disagrees": "no"} for word in ("warm", "dry")
        ]
        (tmp_path / "data.json").write_text(json.dumps(rows))
        item, other = load_persona("stances", tmp_path / "data.json").items
        assert (item.question, item.matching, item.not_matching, item.group) == (
            "Tea is warm.",
            "yes",
            "no",
            "one group",
        )
        assert other.question == "Tea is dry."
        with pytest.raises(
            RegistrationError,
            match=r"data format 'stances' is registered twice: in .*stances\.py:7 and in .*again\.py:7",
        ):
            load(tmp_path / "again.py", FORMAT)
    with pytest.raises(
        UserError,
        match=r"data\.json, row 1: expected the fields of a format \(question, answer_matching_behavior",
    ):
        load_persona("stances", tmp_path / "data.json")
    assert list(DATA_FORMATS) == ["caa_and_anthropic_evals", "caa_mmlu", "truthfulqa", "own_fields"]


SAE = '''
"""SAEs of one's own store: a toy that hands the name to the organism's."""

from workbench.sae import SAE_FORMATS, SaeFormat, find_sae, register_sae_format


def find(name):
    return find_sae("organism") if str(name) == "store:1" else None


register_sae_format(SaeFormat("store", find, SAE_FORMATS["organism"].load, "'store:NUMBER'", order=1))
'''


def test_an_sae_format_is_one_file(tmp_path):
    with restored_registries():
        load(tmp_path / "store.py", SAE)
        assert torch.equal(load_sae("store:1").W_dec, load_sae("organism").W_dec)
        with pytest.raises(
            UserError,
            match=r"no SAE at store:2: expected 'store:NUMBER'; 'organism'; one of llama.*; a directory; 'release/id'",
        ):
            load_sae("store:2")
        with pytest.raises(
            RegistrationError,
            match=r"SAE format 'store' is registered twice: in .*store\.py:\d+ and in .*again\.py:\d+",
        ):
            load(tmp_path / "again.py", SAE)
    assert list(SAE_FORMATS) == ["organism", "preset", "sae-lens directory", "sae-lens release"]


def test_the_words_of_the_contract_are_registered():
    kinds = (
        "none constant_answer manual random_prompt random_text random_search random_direction random_updates resga saega answer_objective gcg "
        "steering latent_clamp soft_prompt llm_proposed few_shot warm_start"
    )
    assert set(CONDITION_KINDS) == {*kinds.split(), "neutral_text"}
    assert all(entry.kind in CONDITION_KINDS for entry in STUDY_CONDITIONS.values())
    usual = "constant_answer manual random_tokens neutral_text random_text resga saega answer_objective random_direction random_search steering"
    assert " ".join(default_conditions()) == usual
    shown = {
        "resga": "RESGA",
        "random_direction 2": "random direction 2",
        "gcg": "GCG",
        "epo": "EPO",
        "always A": "always A",
    }
    assert {name: label(name) for name in shown} == shown


def test_every_group_has_its_colour_and_mark_in_charts():
    keys = {*GROUPS, UNKNOWN[0]}
    assert set(chart_style.COLOURS) == set(chart_style.SHAPES) == keys
    assert altair.Scale(range=list(chart_style.COLOURS.values())).to_dict()["range"]
    style, marks = ((ROOT / "workbench/report" / name).read_text() for name in ("report.css", "dom.mjs"))
    drawn = re.search(r"GROUP_MARKS = \{(.*)\};", marks)
    assert drawn is not None and set(re.findall(r"(\w+): \[", drawn[1])) == keys
    assert set(re.findall(r"svg \.g-(\w+)", style)) == keys


def test_the_documented_conditions_are_the_registered_ones():
    """docs/study.md lists every name with its kind and description, in the registry's order."""
    section = (ROOT / "docs/study.md").read_text().partition("## Conditions\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (.*?) \|", section, flags=re.M)
    assert rows == [(name, entry.kind, entry.description) for name, entry in STUDY_CONDITIONS.items()]


def test_the_registries_of_the_architecture_page_are_the_real_ones():
    rows = re.findall(
        r"^\| `([a-z]+)\.([A-Z_]+)` \| `(.*?)/` \| (.*?) \|$",
        (ROOT / "docs/architecture.md").read_text(),
        flags=re.M,
    )
    assert len(rows) == 7
    for module, name, folder, names in rows:
        registry = getattr(importlib.import_module(f"workbench.{module}"), name)
        assert all(
            Path(registry.file(entry).rpartition(":")[0]).parent == ROOT / "workbench" / folder
            for entry in registry
        )
        assert names in (", ".join(sorted(registry)), "see [study.md](study.md)")


def test_the_setting_and_its_page_name_every_search_method():
    listed = ", ".join(SEARCH_METHODS)
    assert SearchSettings.model_fields["method"].description == f"A registered search method: {listed}."
    assert f"# {listed} " in (ROOT / "docs/study.md").read_text()
