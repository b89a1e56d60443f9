"""JSON that repeats a name is refused with the line of the second one; whole JSON is read as Python reads it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import UserError
from workbench.runs.strict_json import parse_json, parse_json_lines, repeated_names

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text('ab"\\{}[],:\n', max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(VALUES, st.sampled_from([None, 1]))
def test_whole_json_is_read_as_it_was_written(value: object, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    assert parse_json(text, "here") == value and list(repeated_names(text)) == []


@given(VALUES, VALUES, st.text('ab"\\{}[],:', min_size=1, max_size=5))
def test_a_repeated_name_is_refused_with_its_line(first: object, second: object, name: str) -> None:
    head = f'[{json.dumps(first)},\n{{"other": {json.dumps(second)}, {json.dumps(name)}: 1,'
    text = f"{head}\n {json.dumps(name)}: 2}}]"
    if name == "other":
        return
    with pytest.raises(UserError) as caught:
        parse_json(text, "here")
    assert str(caught.value) == f"here, line 3: the key {name!r} appears twice in one object"


def test_json_lines_name_the_line_and_keep_line_separators_inside_texts() -> None:
    assert list(parse_json_lines('{"a": "x\u2028y"}\n\n2\n', "f")) == [(1, {"a": "x\u2028y"}), (3, 2)]
    for text, message in (
        ('1\n{"a": 1, "a": 2}', "f, line 2: the key 'a' appears twice"),
        ("1\n\n{", "f, line 3, column 2: expected"),
        ("1\nNaN", "f, line 2: expected JSON, found NaN"),
    ):
        with pytest.raises(UserError, match=message):
            list(parse_json_lines(text, "f"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,\n "b": {"c": 1, "c": 2}}', "here, line 2: the key 'c' appears twice in one object"),
        ('{"a": 1, "\\u0061": 2}', "here, line 1: the key 'a' appears twice in one object"),
        ('{"a": NaN}', "here: expected JSON, found NaN, which JSON does not have"),
        ("[" * 100_000, "here: JSON nested too deeply"),
        ("[1, 2", "here, line 1, column 6: expected JSON: Expecting ',' delimiter"),
    ],
)
def test_what_is_no_json_is_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_json(text, "here")
    assert str(caught.value) == message


def test_one_repeated_name_among_very_many_is_found_at_once() -> None:
    """Each name was counted among all others."""
    text = "{" + ",".join(f'"k{i}": 1' for i in range(400_000)) + ',"k399999": 2}'
    with pytest.raises(UserError, match="the key 'k399999' appears twice"):
        parse_json(text, "x.json")


@pytest.mark.parametrize("text", ["[" + "{}," * 2_000_001 + "{}]", "[" + "0," * 8_000_001 + "0]"])
def test_more_values_than_memory_holds_are_refused_before_they_are_made(text: str) -> None:
    for read in (parse_json, lambda text, where: list(parse_json_lines(text, where))):
        with pytest.raises(UserError, match=r"expected at most [28],000,000 (objects and lists|values)"):
            read(text, "x.json")
