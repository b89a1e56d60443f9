"""The same data in another form of file is the same items, groups, splits and hash; or it is refused in one line."""

from __future__ import annotations

import csv
import io
import json
import random
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.errors import UserError
from workbench.personas import Persona, load_persona

NAMES = ("question", "matching", "not_matching", "group")
#: Latin, Vietnamese, Greek, Hangul, Devanagari, Arabic letters, marks, an emoji, quotes and separators of the
#: files' own syntax.
LETTER = st.sampled_from("abzA09 éñđạờ\u0323\u0301ΰ가각किー٣😀\"',;:{}[]#-|\t\u00a0\u200b\u00ad\u2028\n")
TEXT = st.text(LETTER, min_size=1, max_size=12).filter(
    lambda text: bool(text.strip("\u00ad\u200b\u00a0\u2028 \n\t"))
)
ROW = st.tuples(TEXT, TEXT, TEXT, TEXT)
ROWS = st.lists(ROW, min_size=5, max_size=9, unique_by=lambda row: row[0])

Rows = list[dict[str, str]]
fixture = settings(
    max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def rows_of(made: list[tuple[str, ...]]) -> Rows:
    return [dict(zip(NAMES, row, strict=True)) for row in made]


def read(path: Path, data: str | bytes) -> Persona | None:
    """The persona of a file; None where it is refused in one line."""
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    try:
        return load_persona("p", path)
    except UserError as error:
        assert "\n" not in str(error)
        return None


def seen(persona: Persona | None, form: str | None = None) -> object:
    """All that a study takes from a file, in no order: items, groups, hash and who is in which split."""
    if persona is None:
        return None

    def text(value: str) -> str:
        return unicodedata.normalize(form, value) if form else value

    def content(items: object) -> list[tuple[str, ...]]:
        return sorted((text(i.question), text(i.matching), text(i.not_matching), i.group) for i in items)  # type: ignore[attr-defined]

    try:
        parts = [content(part) for part in persona.split()] + [
            content(part.take(2, 3)) for part in persona.split()
        ]
    except UserError as error:
        parts = [str(error)]
    return content(persona.items), persona.hash, parts


def csv_text(rows: Rows, ends: str = "\n", names: tuple[str, ...] = NAMES) -> str:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, names, lineterminator=ends)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


@pytest.mark.slow
@fixture
@given(made=ROWS, order=st.randoms(use_true_random=False))
def test_the_order_of_rows_and_keys_does_not_matter(
    tmp_path: Path, made: list[tuple[str, ...]], order: random.Random
) -> None:
    rows = rows_of(made)
    first = seen(read(tmp_path / "a.json", json.dumps(rows)))
    shuffled = [dict(order.sample(sorted(row.items()), len(row))) for row in order.sample(rows, len(rows))]
    assert seen(read(tmp_path / "a.json", json.dumps(shuffled, indent=1))) == first
    names = tuple(order.sample(NAMES, len(NAMES)))
    table = seen(read(tmp_path / "a.csv", csv_text(shuffled, names=names)))
    assert table == first


@pytest.mark.slow
@fixture
@given(made=ROWS, ends=st.sampled_from(["\r\n", "\r"]))
def test_byte_order_marks_and_line_ends_do_not_matter(
    tmp_path: Path, made: list[tuple[str, ...]], ends: str
) -> None:
    rows = rows_of(made)
    first = seen(read(tmp_path / "a.json", json.dumps(rows, ensure_ascii=False)))
    other = [{name: text.replace("\n", ends) for name, text in row.items()} for row in rows]
    for data in (
        json.dumps(other),  # inside the texts
        b"\xef\xbb\xbf" + json.dumps(rows, ensure_ascii=False).encode(),
        json.dumps(rows, indent=2).replace("\n", "\r\n"),  # of the file
    ):
        assert seen(read(tmp_path / "a.json", data)) == first
    for data in (
        csv_text(rows),
        csv_text(rows, "\r\n"),
        csv_text(other, "\r\n"),
        b"\xef\xbb\xbf" + csv_text(other, "\r\n").encode(),
    ):
        assert seen(read(tmp_path / "a.csv", data)) == first
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    for data in (
        "\n".join(lines),
        "\r\n".join(lines) + "\r\n",
        b"\xef\xbb\xbf" + "\n\n".join(lines).encode(),
    ):
        assert seen(read(tmp_path / "a.jsonl", data)) == first
    assert seen(read(tmp_path / "a.yaml", "".join(f"- {json.dumps(row)}\n" for row in rows))) == first


@pytest.mark.slow
@fixture
@given(made=ROWS)
def test_the_unicode_form_does_not_matter(tmp_path: Path, made: list[tuple[str, ...]]) -> None:
    """Items, groups, splits and hash are the same; the texts themselves stay as they were written."""
    found = []
    for form in ("NFC", "NFD"):
        rows = [
            {name: unicodedata.normalize(form, text) for name, text in row.items()} for row in rows_of(made)
        ]
        persona = read(tmp_path / "a.json", json.dumps(rows))
        found.append(seen(persona, "NFC"))
        if persona is not None:
            assert {item.question for item in persona.items} == {row["question"].strip() for row in rows}
    assert found[0] == found[1]


@pytest.mark.slow
@fixture
@given(
    made=ROWS, at=st.integers(0, 4), half=st.sampled_from("\ud83d\udc00\udfff"), name=st.sampled_from(NAMES)
)
def test_half_a_character_is_always_refused(
    tmp_path: Path, made: list[tuple[str, ...]], at: int, half: str, name: str
) -> None:
    rows = rows_of(made)
    rows[at][name] += half + "x"
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(UserError) as caught:
        load_persona("p", path)
    said = str(caught.value)
    assert "\n" not in said and (f"row {at + 1}, field {name}" in said or not said.endswith("on its way"))
    path = tmp_path / "a.yaml"
    path.write_text("".join(f"- {json.dumps(row)}\n" for row in rows))
    with pytest.raises(UserError):
        load_persona("p", path)


def test_most_of_these_files_are_read_at_all(tmp_path: Path) -> None:
    """The properties hold of refused files for nothing, so few may be refused."""
    refused = []

    @fixture
    @given(made=ROWS)
    def draw(made: list[tuple[str, ...]]) -> None:
        refused.append(read(tmp_path / "a.json", json.dumps(rows_of(made))) is None)

    draw()
    assert sum(refused) < 0.2 * len(refused), f"{sum(refused)} of {len(refused)}"
