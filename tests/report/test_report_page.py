"""The page as text: what is missing is said, what is hostile stays text, nothing points outside, the answer is told rightly."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.html_reader import HtmlReader, read_report
from tests.support.paths import ROOT
from tests.support.real_run import edit, read_entry
from workbench.errors import UserError
from workbench.html_text import visible
from workbench.report import report_page as module
from workbench.report import verdict as story
from workbench.report import write_report
from workbench.report.load_run import FILES, RunContents, clean, load_run
from workbench.schema import ComparisonFile, ConditionEntry, FrontierFile, RunManifest, SearchFile

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**6) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["conditions", "name", "kind", "ci", "latents", "x"]), inner, max_size=3
        )
    ),
    max_leaves=12,
)


def test_only_its_own_two_inline_elements_may_run_and_nothing_points_outside(make_run):
    seen = read_report(make_run(hostile=True, tokens=14))
    policy = next(
        a["content"] for tag, a in seen.elements if a.get("http-equiv") == "Content-Security-Policy"
    )
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'" and "unsafe" not in policy and "http" not in policy
    for name, text in (("script-src", seen.inline["script"][1]), ("style-src", seen.inline["style"][0])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert directives[name] == f"'sha256-{digest}'"
    assert len(seen.inline["script"]) == 2 and len(seen.inline["style"]) == 1
    allowed = {
        "html",
        "head",
        "meta",
        "title",
        "body",
        "a",
        "header",
        "p",
        "svg",
        "path",
        "circle",
        "g",
        "line",
        "rect",
        "text",
        "nav",
        "button",
        "main",
        "section",
        "h1",
        "h2",
        "h3",
        "span",
        "figure",
        "blockquote",
        "figcaption",
        "dl",
        "div",
        "dt",
        "dd",
        "b",
        "ul",
        "ol",
        "li",
        "details",
        "summary",
        "noscript",
        "small",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "i",
        "code",
        "pre",
        "footer",
        "script",
        "style",
    }
    assert {tag for tag, _ in seen.elements} <= allowed
    for tag, attributes in seen.elements:
        assert not [
            name for name in attributes if name.startswith("on") or name in ("src", "style", "srcdoc")
        ], tag
        assert (attributes.get("href") or "#").startswith("#")


def test_hostile_texts_are_in_the_page_as_text(make_run):
    seen = read_report(make_run(hostile=True, tokens=14))
    tokens = seen.data()["ledger"]["tokens"]
    assert tokens[0] == visible("</script><script>document.title='owned'</script>")
    assert (
        tokens[4:7] == ["⟨U+202E⟩reversed⟨U+202C⟩", "⟨U+0000⟩", "⟨U+D800⟩"]
        and "9,880 characters" in tokens[7]
    )
    assert "{{ 7 * 7 }}" in seen.words or "{{ 7 * 7 }}" in json.dumps(seen.data())


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["gone", "half", "nonsense"])
def test_a_part_that_is_missing_or_broken_is_said_and_the_rest_stands(make_run, name, how):
    directory = make_run(without=(name,) if how == "gone" else ())
    if how != "gone":
        whole = (directory / name).read_bytes()
        (directory / name).write_bytes(whole[: len(whole) // 2] if how == "half" else b"\xff\xfe[1, {")
    if name == "study.yaml" and how == "half":
        (directory / name).write_text("a: [")
    seen = read_report(directory)
    assert (
        f"{name} " in seen.words and ("is not there" if how == "gone" else "could not be read") in seen.words
    )
    assert ("How it was made" in seen.words) and len(seen.data()) >= 6
    lost = {
        "comparison.json": "comparison",
        "search/frontier.json": "frontier",
        "attribution.parquet": "ledger",
    }.get(name)
    for key, value in seen.data().items():
        assert value is not None or key in (lost, "layer", "layers", "history", "questions"), key


def test_a_run_of_little_more_than_a_comparison_stands(make_run):
    directory = make_run(without=tuple(name for name in FILES if name != "comparison.json"))
    prompts = [
        c["prompt"] for c in read_entry(directory, "comparison.json")["conditions"] if c["kind"] == "resga"
    ]
    seen = read_report(directory)
    assert prompts[0] in seen.words and "What this page lacks (12)" in seen.words


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(
        [
            "comparison.json",
            "latents.json",
            "direction.json",
            "attribution.json",
            "manifest.json",
            "search/frontier.json",
        ]
    ),
    value=json_values,
)
def test_any_json_in_any_place_gives_a_page(tmp_path_factory, name, value):
    directory = tmp_path_factory.mktemp("run")
    (directory / "search").mkdir()
    (directory / "manifest.json").write_text(json.dumps(RunManifest(created="now", versions={}).to_json()))
    (directory / name).write_text(json.dumps({**value, "schema": 1} if isinstance(value, dict) else value))
    try:
        assert write_report(directory).stat().st_size < 300_000
    except UserError as error:
        assert name == "manifest.json", error


@given(json_values)
def test_cleaned_values_are_strict_json(value):
    again = json.loads(json.dumps(clean(value), allow_nan=False))
    assert json.dumps(again).isascii()


def test_no_run_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match="no directory"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no file of a run"):
        write_report(tmp_path)


def test_an_unwritable_target_is_said_and_leaves_nothing(make_run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_report(make_run(), tmp_path / "file" / "report.html")
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*taken: Is a directory"):
        write_report(tmp_path / "run", tmp_path / "taken")
    assert not list(tmp_path.glob(".*.tmp"))


def test_what_is_too_large_is_cut_and_said(make_run, monkeypatch):
    directory = make_run(tokens=40, latents=300)
    path = write_report(directory)
    seen = HtmlReader(path.read_text())
    assert path.stat().st_size < module.MAX_PAGE_BYTES and "rows in the token by token view" in seen.words
    monkeypatch.setattr(module, "MAX_PAGE_BYTES", 300_000)
    small = HtmlReader(write_report(directory).read_text())
    assert small.data()["ledger"] is None and "would have been larger" in small.words
    assert directory.joinpath("report.html").stat().st_size < 300_000


def test_the_prompt_is_chosen_on_selection_and_never_on_the_test(make_run):
    def rate(entry):
        found = {c["name"]: c for c in entry["conditions"]}
        found["resga"]["selection_rate"], found["saega"]["selection_rate"], found["saega"]["rate"] = (
            0.40,
            0.30,
            0.9,
        )

    directory = edit(make_run(), "comparison.json", rate)
    told = story.tell(load_run(directory))
    assert told.best is not None and told.best.name == "saega"
    told = story.tell(load_run(edit(directory, "comparison.json", lambda entry: entry.update(sign=1))))
    assert told.best.name == "resga" and "more" in told.question and told.tone == "no", (
        "this prompt lowers the persona"
    )


@pytest.mark.parametrize(
    ("low", "high", "sign", "tone"),
    [(-3, -1, -1, "part"), (-1, 0.2, -1, "unclear"), (0.5, 1, -1, "no"), (0.5, 1, 1, "part")],
)
def test_the_verdict_is_read_off_the_interval(low, high, sign, tone):
    assert tell_of(low, high, sign).tone == tone


def tell_of(low: float, high: float, sign: int, kind: str = "resga", **more) -> story.Verdict:
    middle = (low + high) / 2
    difference = {
        "to": "no prompt",
        "value": middle / 10,
        "ci": [low / 10, high / 10],
        "log_odds": middle,
        "log_odds_ci": [low, high],
    }
    found = {
        "name": "found",
        "kind": kind,
        "prompt": "p",
        "rate": 0.5,
        "ci": [0.4, 0.6],
        "n": 100,
        "groups": 30,
        "differences": [difference],
    } | more
    rivals = [
        {"name": "no prompt", "kind": "none"},
        {"name": "strong control", "kind": "random_search"},
        {"name": "weak control", "kind": "random_prompt"},
        {"name": "as if written", "kind": "manual", "prompt": "m", "fluency": 3.0},
    ]
    about = {
        "persona": "sycophancy",
        "model": "m",
        "sign": sign,
        "metric": "letters",
        "seed": 0,
        "splits": {},
    }
    shifts = {
        "no prompt": 0.0,
        "found": middle,
        "strong control": 2 * middle,
        "weak control": 0.1 * middle,
        "as if written": 1.5 * middle,
    }
    rows = [
        {
            "condition": name,
            "item": str(i),
            "group": f"g{i}",
            "matching_first": True,
            "log_odds": shift + 0.01 * i * (name == "found"),
        }
        for name, shift in shifts.items()
        for i in range(20)
    ]
    comparison = ComparisonFile(**about, conditions=[found, *rivals])
    return story.tell(RunContents(comparison=comparison, evaluation=pd.DataFrame(rows)))


def test_caveats_name_what_speaks_against_the_headline():
    said = " ".join(tell_of(-3, -1, -1, letter_a_share=0.9, groups=6, fluency=7.25).caveats)
    rivals = (
        "Not shown: optimiser matters. Strong control does more; this prompt minus strong control: +2.10 (",
        "As if written does more; this prompt minus as if written",
    )
    for words in (*rivals, "90 %", "only 6 groups", "±10 points", "7.2 nats", "by a person: 3"):
        assert words in said, words
    assert "weak control" not in said
    assert "only" not in " ".join(tell_of(-3, -1, -1).caveats)


def test_the_number_in_a_controls_name_is_explained():
    rows = [
        ("none", "no prompt", 0.0),
        ("resga", "resga", -1.0),
        ("random_prompt", "random tokens 0", -2.0),
        ("random_prompt", "random tokens 1", 0.0),
    ]
    entries = [
        {"kind": kind, "name": name, "prompt": name, "differences": [_difference(shift)]}
        for kind, name, shift in rows
    ]
    answers = [
        {
            "condition": name,
            "item": str(i),
            "group": f"g{i}",
            "matching_first": True,
            "log_odds": shift + 0.01 * i * (name == "resga"),
        }
        for _, name, shift in rows
        for i in range(20)
    ]
    about = {
        "persona": "feedback_sycophancy",
        "model": "/models/Tiny.gguf",
        "sign": "suppress",
        "metric": "text",
        "seed": 0,
        "splits": {},
    }
    told = story.tell(
        RunContents(comparison=ComparisonFile(**about, conditions=entries), evaluation=pd.DataFrame(answers))
    )
    assert (
        "The number in its name counts the draws of this control (random tokens), 2 in this run."
        in told.caveats[0]
        and "random tokens 0 does more" in told.caveats[0].lower()
    )
    assert "makes Tiny show less feedback sycophancy" in told.question
    assert "Feedback sycophancy: judges an argument by whether the user likes it." in told.meaning


def _difference(shift: float) -> dict:
    return {
        "to": "no prompt",
        "value": shift / 10,
        "ci": [shift / 10 - 0.1, shift / 10 + 0.1],
        "log_odds": shift,
        "log_odds_ci": [shift - 0.1, shift + 0.1],
    }


def test_the_manifest_says_what_the_persona_is(make_run):
    directory = edit(
        make_run(),
        "manifest.json",
        lambda entry: entry["notes"].update(persona={"about": "Speaks in rhymes."}),
    )
    page = read_report(directory)
    assert "Sycophancy: speaks in rhymes. " in page.words
    assert "more than the best sentence by a person" in page.words, "what a mark means is next to it"


def test_the_whole_study_is_on_the_page(make_run):
    directory = make_run()
    long = "name: a study\npersona: sycophancy\n" + "\n".join(f"# line {i} of a comment" for i in range(400))
    (directory / "study.yaml").write_text(long, encoding="utf-8")
    assert "# line 399 of a comment" in read_report(directory).words


def test_figures_are_written_in_one_way(make_run):
    """On the page a minus is a minus sign, a space is before %, and nothing is rounded to p = 0 or written as None or nan."""
    words = read_report(make_run()).words
    for wrong in (
        r"(?<![\w.-])-\d",
        r"\d%",
        r"p = 0(\.0+)?(?![.\d])",
        r"\b(nan|None|inf)\b",
        r"\b0\.000\b",
        r"\b\d+\.0 (tokens|questions|nats)\b",
    ):
        assert [words[max(0, m.start() - 40) : m.end() + 20] for m in re.finditer(wrong, words)] == []


def test_no_sentence_of_the_package_writes_a_percentage_without_a_space():
    """`:.0%` of a format would; the card of the embedded model is a committed file."""
    files = [path for path in (ROOT / "workbench").rglob("*.py") if path.name != "model_card.py"]
    assert [path.name for path in files if re.search(r":\.\d%\}", path.read_text(encoding="utf-8"))] == []


def test_what_a_search_warned_of_is_a_caveat_of_its_prompt():
    comparison = ComparisonFile(
        persona="p", model="m", sign="suppress", metric="text", seed=0, splits={}, conditions=[]
    )
    difference = {"to": "no prompt", "log_odds": -2, "log_odds_ci": [-3, -1]}
    entry = {"name": "resga", "kind": "resga", "prompt": "p", "rate": 0.5, "differences": [difference]}
    comparison = comparison.model_copy(update={"conditions": [ConditionEntry.model_validate(entry)]})
    warned = {name: [f"{name} moves the direction, not the behaviour"] for name in ("resga", "other")}
    searches = {name: SearchFile(candidates=[], warnings=lines) for name, lines in warned.items()}
    said = story.tell(RunContents(comparison=comparison, frontier=FrontierFile(searches=searches))).caveats
    assert "Resga moves the direction, not the behaviour." in said and not any(
        "ther" in line and "moves" in line for line in said
    )


def test_numbers_that_are_none_do_not_stop_it(make_run):
    def forget(entry):
        for condition in entry["conditions"]:
            condition.update(
                dict.fromkeys(("rate", "log_odds", "n", "groups", "fluency", "selection_rate")),
                ci=[None, None],
            )

    seen = read_report(edit(make_run(), "comparison.json", forget))
    assert seen.data()["comparison"]["rows"][3]["rate"] is None and "RESGA" in seen.words


def test_a_table_edited_by_hand_loses_only_what_it_lacks(make_run):
    directory = make_run()
    frame = pd.read_parquet(directory / "attribution.parquet")
    frame.drop(columns=["low", "high", "sd"]).to_parquet(directory / "attribution.parquet")
    assert read_report(directory).data()["ledger"]["cells"]["removal"][0][1][1:] == [None, None, None]
    frame.drop(columns=["estimator"]).to_parquet(directory / "attribution.parquet")
    assert "estimator" in read_report(directory).words
    frame.iloc[:0].to_parquet(directory / "attribution.parquet")
    assert "no rows" in read_report(directory).words
