"""Reading data files: every format from a hand-written example, and every mistake told with file, row and field."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.errors import UserError
from workbench.personas import Item, load_persona, read_items, read_trait, read_truthfulqa
from workbench.personas.data_rows import read_rows
from workbench.personas.question_groups import by_content
from workbench.runs import read_yaml
from workbench.study import Study
from workbench.sweep import Sweep

OWN = [
    {"question": "Lost keys?", "matching": "I look for them.", "not_matching": "Oh no!", "group": "keys"},
    {"question": "Rain?", "matching": "I take a coat.", "not_matching": "The day is lost!", "group": "rain"},
]
CAA_ROW = {
    "question": "I am Ada. Is tea healthy?\n\nChoices:\n (A) Yes, in (small) amounts\n (B) No",
    "answer_matching_behavior": "(B)",
    "answer_not_matching_behavior": "(A)",
}


def write(path: Path, value: object) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def as_own(items: tuple[Item, ...]) -> list[dict]:
    return [
        {"question": i.question, "matching": i.matching, "not_matching": i.not_matching, "group": i.group}
        for i in items
    ]


# -- formats ----------------------------------------------------------------------------------------------------------


def test_one_s_own_rows_are_the_same_from_every_kind_of_file(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "own.json", OWN),
        write(tmp_path / "own.jsonl", "\n".join(json.dumps(row) for row in OWN) + "\n\n"),
        write(
            tmp_path / "own.csv",
            'group,question,matching,not_matching\nkeys,Lost keys?,I look for them.,"Oh no!"\nrain,Rain?,I take a coat.,The day is lost!\n',
        ),
        write(tmp_path / "own.yaml", "".join(f"- {json.dumps(row)}\n" for row in OWN)),
    ]
    for file in files:
        items = read_items(file).items
        assert as_own(items) == OWN
        assert [item.source for item in items] == [f"{file.name}:1", f"{file.name}:2"]
        assert [item.id for item in items] == ["own-0001", "own-0002"]


def test_without_groups_rows_are_grouped_by_their_question_and_own_ids_stay(tmp_path: Path) -> None:
    text = "id,question,matching,not_matching,group\nk1,Lost 2 keys?,Yes,No,\nk2,Lost 3 KEYS,Fine,Bad,\nk3,Rain?,Wet,Dry,\n"
    items = read_items(write(tmp_path / "own.csv", text)).items
    assert [item.id for item in items] == ["k1", "k2", "k3"]
    assert items[0].group == items[1].group != items[2].group


def test_options_are_taken_out_of_the_published_question(tmp_path: Path) -> None:
    for file in (write(tmp_path / "a.json", [CAA_ROW]), write(tmp_path / "a.jsonl", CAA_ROW)):
        (item,) = read_items(file).items
        assert item.question == "I am Ada. Is tea healthy?"
        assert (item.matching, item.not_matching) == ("No", "Yes, in (small) amounts")
        assert item.matching_first is False


def test_published_rows_without_options_keep_their_answers(tmp_path: Path) -> None:
    row = {
        "question": "Is this true?",
        "answer_matching_behavior": " Yes",
        "answer_not_matching_behavior": [" No"],
    }
    (item,) = read_items(write(tmp_path / "a.jsonl", row)).items
    assert (item.matching, item.not_matching, item.matching_first) == ("Yes", "No", None)


def test_letters_inside_the_text_are_not_taken_for_options(tmp_path: Path) -> None:
    question = "Plan (A) or plan (B)?\nSee (A).\n (A) the plan (B)\n (B) plan (A)"
    row = {**CAA_ROW, "question": question}
    (item,) = read_items(write(tmp_path / "a.json", [row])).items
    assert item.question == "Plan (A) or plan (B)?\nSee (A)." and item.matching == "plan (A)"


def test_truthfulqa_takes_the_incorrect_answer_nearest_in_length_to_the_best(tmp_path: Path) -> None:
    text = (
        "\ufeffType,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source\n"
        "Adversarial,Food,Are seeds bad?,No harm is known,No; No harm is known,Yes; They are all deadly; Of course,\n"
    )
    path = write(tmp_path / "t.csv", text)
    (item,) = read_items(path).items
    assert (item.matching, item.not_matching) == ("They are all deadly", "No harm is known")
    (entry,) = read_truthfulqa(path)
    assert (
        entry.correct == ("No", "No harm is known") and len(entry.incorrect) == 3 and entry.category == "Food"
    )


def test_a_groups_file_beside_the_data_decides_and_must_fit(tmp_path: Path) -> None:
    path = write(
        tmp_path / "h.json", [CAA_ROW, {**CAA_ROW, "question": CAA_ROW["question"].replace("tea", "wine")}]
    )
    write(tmp_path / "h_groups.json", [{"group": "drinks"}, {"group": "drinks"}])
    assert {item.group for item in read_items(path, by_content).items} == {"drinks"}
    write(tmp_path / "h_groups.json", [{"group": "drinks"}, {"group": ""}])
    reading = read_items(path, by_content)
    assert reading.items[1].group == "ada healthy wine" and "h.json:2" in reading.warnings[0]
    write(tmp_path / "h_groups.json", [{"group": "drinks"}])
    with pytest.raises(UserError, match="2 rows, but the groups file next to it has 1"):
        read_items(path)


def test_text_that_was_read_in_a_wrong_encoding_is_warned_of(tmp_path: Path) -> None:
    damaged = "Don\u2019t you like caf\u00e9?".encode().decode("cp1252")
    reading = read_items(write(tmp_path / "own.json", [OWN[0], {**OWN[1], "question": damaged}]))
    assert (
        len(reading.warnings) == 1 and "1 rows" in reading.warnings[0] and "own.json:2" in reading.warnings[0]
    )
    assert (
        read_items(
            write(
                tmp_path / "own.json",
                [{**OWN[0], "question": "Don\u2019t you like caf\u00e9 \u00e0 la carte?"}],
            )
        ).warnings
        == ()
    )


# -- mistakes ---------------------------------------------------------------------------------------------------------


def changed(row: dict, **fields: object) -> list[dict]:
    return [row, {**row, **fields}]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "a.json",
            changed(OWN[0], matching=None),
            r"a\.json, row 2, field matching: expected text, found NoneType",
        ),
        (
            "a.json",
            changed(OWN[0], matching=5),
            r"a\.json, row 2, field matching: expected text, found int '5'",
        ),
        (
            "a.json",
            changed(OWN[0], question=" "),
            r"a\.json, row 2, field question: expected text, found an empty one",
        ),
        (
            "a.json",
            changed(OWN[0], grup="x"),
            r"a\.json, row 2: unknown field 'grup'; known are question, matching",
        ),
        (
            "a.json",
            [OWN[0], {"question": "x"}],
            r"a\.json, row 2: the field 'matching' is missing; found question",
        ),
        ("a.json", [OWN[0], ["x"]], r"a\.json, row 2: expected fields with names, found list"),
        (
            "a.json",
            changed(OWN[0], matching="Oh no!"),
            r"a\.json:2: the matching and the not matching answer are the same",
        ),
        (
            "a.json",
            changed(OWN[0], matching="x\ufffd"),
            r"row 2, field matching: holds the character U\+FFFD",
        ),
        (
            "a.json",
            changed(OWN[0], matching="x\u0000"),
            r"row 2, field matching: holds the character U\+0000",
        ),
        ("a.json", [{"text": "x"}], r"row 1: expected the fields of a format \(question, .*\), found text"),
        (
            "a.csv",
            "question,matching\nx,y\n",
            r"a\.csv, row 1 \(line 2\): the field not_matching is missing of question,",
        ),
        ("a.json", [{}], r"row 1: expected the fields of a format \(.*\), found none"),
        ("a.json", [], "expected at least one row, found none"),
        ("a.json", {"question": "x"}, "expected a list of rows, found dict"),
        ("a.json", '[{"question": "x",', r"a\.json, line 1, column \d+: expected JSON"),
        ("a.jsonl", json.dumps(OWN[0]) + "\n\n{broken\n", r"a\.jsonl, line 3, column 2: expected JSON"),
        (
            "a.jsonl",
            json.dumps(OWN[0]) + '\n\n{"question": "x"}',
            r"a\.jsonl, line 3: the field 'matching' is missing",
        ),
        ("a.csv", "question,matching,not_matching\nx,y\n", r"a\.csv, line 2: expected 3 cells, found 2"),
        (
            "a.csv",
            'question,matching,not_matching\n"two\nlines",y,z\nx,,z\n',
            r"a\.csv, row 2 \(line 4\), field matching: expected text, found an empty one",
        ),
        ("a.csv", 'question,matching,not_matching\nx,"y,z\n', r"a\.csv, line \d+: expected CSV"),
        ("a.csv", "question,question,matching\nx,y,z\n", "line 1: expected a header of different names"),
        ("a.csv", "", "line 1: expected a header"),
        ("a.yaml", "- question: x\n  matching: [\n", r"a\.yaml, line \d: expected YAML"),
        (
            "a.yaml",
            "- question: x\n  question: y\n",
            r"a\.yaml, line 2: expected YAML: the key 'question' is there twice",
        ),
        ("a.yaml", "- &a {question: x}\n- *a\n", r"a\.yaml, line 2: expected YAML: aliases are not allowed"),
        (
            "a.yaml",
            '- !!python/object/apply:os.system ["true"]\n',
            "expected YAML: the tag .* is not allowed",
        ),
        ("a.txt", "x", "expected a file that ends in .*, found '.txt'"),
        (
            "a.json",
            changed(CAA_ROW, answer_matching_behavior="(C)"),
            r"expected '\(A\)' or .*, found '\(C\)'",
        ),
        (
            "a.json",
            changed(CAA_ROW, answer_matching_behavior="(A)"),
            "row 2, field answer_not_matching_behavior: names the",
        ),
        (
            "a.json",
            changed(CAA_ROW, answer_matching_behavior=["(A)", "(B)"]),
            "row 2, .*: expected text, found list",
        ),
        (
            "a.json",
            changed(CAA_ROW, question="x?\n (A) y"),
            r"row 2, field question: .* two options .*, found \(A\)",
        ),
        (
            "a.json",
            changed(CAA_ROW, question="x?\n (A) y\n (B)"),
            r"row 2, field question: .* \(A\) and \(B\) with text",
        ),
        ("a.json", changed(CAA_ROW, question="x?\n (A) y\n (B) z\n (C) w"), r"found \(A\), \(B\), \(C\)"),
        (
            "a.json",
            [{"prompt": "x?", "correct": "(A)", "incorrect": "(B)"}],
            "row 1, field prompt: expected two options",
        ),
        (
            "a.csv",
            "Question,Best Answer,Incorrect Answers\nx,y, ; \n",
            "field Incorrect Answers: expected answers with ';'",
        ),
    ],
)
def test_a_mistake_is_one_line_with_file_row_and_field(
    tmp_path: Path, name: str, value: object, message: str
) -> None:
    path = write(tmp_path / name, value)
    with pytest.raises(UserError, match=message) as caught:
        read_items(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_csv_in_another_encoding_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("question,matching,not_matching\nx,y,z\nCafé?,y,z\n".encode("latin-1"))
    with pytest.raises(
        UserError, match=r"a\.csv, line 3: expected UTF-8, found the byte 0xe9; save the file as UTF-8"
    ):
        read_items(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no\.json: expected a file, found nothing"):
        read_items(tmp_path / "no.json")


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200), suffix=st.sampled_from([".json", ".jsonl", ".csv", ".yaml"]))
def test_any_bytes_are_rows_or_one_clear_line(tmp_path: Path, data: bytes, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    try:
        assert read_rows(path)
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.slow
@settings(max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet="[]{}:,-&*!|>'\"#\n \t%@`?0.a\u2028\x85~", max_size=40))
def test_any_yaml_is_a_value_or_one_clear_line(tmp_path: Path, text: str) -> None:
    try:
        read_yaml(write(tmp_path / "a.yaml", text))
    except UserError as error:
        assert "\n" not in str(error)


# -- trait files ------------------------------------------------------------------------------------------------------

TRAIT = {
    "instruction": [{"pos": "Be grumpy.", "neg": "Be cheerful."}, {"pos": "Complain.", "neg": "Praise."}],
    "questions": ["How was the trip?", "Is it raining?"],
    "eval_prompt": "Is {answer} to {question} grumpy?",
    "few_shot_examples": [],
}


def test_a_trait_s_answers_become_items_grouped_by_question(tmp_path: Path) -> None:
    trait = read_trait(write(tmp_path / "grumpy.json", TRAIT))
    assert trait.name == "grumpy" and trait.system_texts == (
        "Be grumpy.",
        "Be cheerful.",
        "Complain.",
        "Praise.",
    )
    persona = trait.persona(lambda system, question: f"[{system}] {question}")
    assert (
        len(persona.items) == 4
        and persona.metric == "text"
        and list(persona.group_sizes) == TRAIT["questions"]
    )
    first = persona.items[0]
    assert (first.question, first.matching) == ("How was the trip?", "[Be grumpy.] How was the trip?")
    assert first.not_matching == "[Be cheerful.] How was the trip?"
    assert persona.manual_prompts["suppress"] == ("Be cheerful.", "Praise.")


def test_only_answers_that_the_judge_keeps_on_both_sides_become_items(tmp_path: Path) -> None:
    trait = read_trait(write(tmp_path / "grumpy.json", TRAIT))
    asked: list[tuple[str, bool]] = []

    def keep(question: str, answer: str, shows: bool) -> bool:
        asked.append((answer, shows))
        return not (shows and answer.startswith("Complain"))

    persona = trait.persona(lambda system, question: f"{system} {question}", keep)
    assert [item.id for item in persona.items] == ["grumpy-q01-i1", "grumpy-q02-i1"]
    assert ("Be cheerful. How was the trip?", False) in asked
    with pytest.raises(UserError, match="0 of 4 pairs of answers were kept, at least 2 are needed"):
        trait.persona(lambda system, question: "the same")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"instruction": []}, "field instruction: expected a list with at least one entry"),
        ({"instruction": [{"pos": "x"}]}, "instruction, row 1: expected the fields 'pos' and 'neg'"),
        (
            {"instruction": [{"pos": "x", "neg": 3}]},
            "instruction, row 1, field neg: expected text, found int",
        ),
        ({"questions": ["a", ""]}, "questions, row 2: expected text"),
        ({"questions": ["a", "a"]}, "field questions: 'a' appears twice"),
        ({"eval_prompt": "no marks"}, "field eval_prompt: expected text with {question} and {answer}"),
    ],
)
def test_mistakes_in_a_trait_file_are_named(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_trait(write(tmp_path / "a.json", {**TRAIT, **changes}))


def test_ids_and_answers_are_compared_as_they_look(tmp_path: Path) -> None:
    rows = [
        {"question": f"Is {n} odd?", "matching": "Yes", "not_matching": "No", "id": f"{n}"} for n in range(3)
    ]
    path = tmp_path / "a.json"
    for changes, message in (
        ([{"id": "caf\u00e9"}, {"id": "cafe\u0301"}], "every item needs an id of its own"),
        (
            [{"matching": "caf\u00e9", "not_matching": "cafe\u0301"}],
            "the matching and the not matching answer are the same",
        ),
        (
            [{"matching": "Yes", "not_matching": "Yes\u200b"}],
            "the matching and the not matching answer are the same",
        ),
        ([{"matching": 1}], "field matching: expected text, found int '1'; put it in quotes"),
    ):
        changed = [{**row, **change} for row, change in zip(rows, [*changes, {}, {}], strict=False)]
        path.write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(UserError, match=message):
            load_persona("p", path)


def test_a_question_whose_answers_are_swapped_elsewhere_is_told(tmp_path: Path) -> None:
    rows = [
        {"question": f"Is {n} odd?", "matching": "Yes", "not_matching": "No", "group": f"g{n}"}
        for n in range(4)
    ]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    assert not [line for line in load_persona("p", path).warnings if "swapped" in line]
    path.write_text(
        json.dumps([*rows, {**rows[1], "matching": "No", "not_matching": "Yes"}]), encoding="utf-8"
    )
    (line,) = [line for line in load_persona("p", path).warnings if "swapped" in line]
    assert line.startswith(
        "1 questions are there twice with their answers swapped (the first: a.json:2 and a.json:5)"
    )


def test_characters_of_html_are_told(tmp_path: Path) -> None:
    rows = [
        {"question": q, "matching": "Yes", "not_matching": "No"}
        for q in ("Tom &amp; Jerry?", "AT&T; or not?", "Is it R&D?")
    ]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    (line,) = [line for line in load_persona("p", path).warnings if "HTML" in line]
    assert line.startswith("1 rows hold characters of HTML such as &amp; (the first is a.json:1)")


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv", "yaml"])
def test_marks_and_line_ends_of_other_systems_are_read_or_named(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"question": f"Is {n} odd, caf\u00e9?", "matching": "Yes", "not_matching": "No"} for n in range(3)
    ]
    lines = {
        "json": json.dumps(rows, ensure_ascii=False, indent=1).split("\n"),
        "jsonl": [json.dumps(row, ensure_ascii=False) for row in rows],
        "csv": ["question,matching,not_matching", *(f'"{row["question"]}",Yes,No' for row in rows)],
        "yaml": [f"- {json.dumps(row, ensure_ascii=False)}" for row in rows],
    }[suffix]
    path = tmp_path / f"a.{suffix}"
    for end, mark in (
        ("\n", b""),
        ("\r\n", b"\xef\xbb\xbf"),
        ("\r", b""),
        ("\n", b"\xef\xbb\xbf\xef\xbb\xbf"),
    ):
        path.write_bytes(mark + (end.join(lines) + end).encode())
        assert [item.question for item in load_persona("p", path).items] == [row["question"] for row in rows]
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"):
        path.write_bytes("\n".join(lines).encode(encoding))
        with pytest.raises(
            UserError, match=r"line \d+: expected UTF-8, found the byte 0x.*; save the file as UTF-8"
        ):
            load_persona("p", path)


@pytest.mark.parametrize("read", [read_items, load_persona, read_trait, read_truthfulqa, read_yaml])
def test_a_null_byte_in_a_path_is_told_in_one_line(read: Callable[[str], object]) -> None:
    with pytest.raises(UserError) as caught:
        read("data\0.json")
    assert "\n" not in str(caught.value) and "\0" not in str(caught.value)


def test_a_header_of_very_many_columns_is_read_at_once(tmp_path: Path) -> None:
    """Each name was counted among all others."""
    (tmp_path / "rows.csv").write_text(",".join(f"c{i}" for i in range(300_000)) + "\n1\n")
    with pytest.raises(UserError, match="line 2: expected 300000 cells, found 1"):
        read_rows(tmp_path / "rows.csv")
    (tmp_path / "rows.csv").write_text("a,b,a\n1,2,3\n")
    with pytest.raises(UserError, match="a header of different names, found a, b, a"):
        read_rows(tmp_path / "rows.csv")


@pytest.mark.parametrize(
    "number",
    ["0x" + "f" * 20_000, "0b" + "1" * 20_000, "1:" + ":".join(["59"] * 20_000), "-0" + "7" * 20_000],
)
def test_a_number_that_python_cannot_print_is_one_line(number: str) -> None:
    """Python refuses to print more than 4,300 digits, in the very message that says what is wrong."""
    for read in (Study.from_yaml, Sweep.from_yaml):
        with pytest.raises(UserError, match="line 1: expected YAML: a number of more than 4096 bits"):
            read(f"seed: {number}", "study.yaml")
