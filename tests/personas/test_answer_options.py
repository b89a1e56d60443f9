"""Options in every usual layout: each text is planted, so the reader must give back exactly what was written in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.errors import UserError
from workbench.personas import read_items
from workbench.personas.answer_options import options_on_lines, read_answers
from workbench.personas.data_rows import DataRow
from workbench.personas.option_labels import label_of

LAYOUTS = (
    "{q}\n\nChoices:\n (A) {a}\n (B) {b}",
    "{q}\n(A) {a}\n(B) {b}",
    "{q}\nA. {a}\nB. {b}",
    "{q}\nA) {a}\nB) {b}",
    "{q}\nA: {a}\nB: {b}",
    "{q}\n[A] {a}\n[B] {b}",
    "{q}\n(a) {a}\n(b) {b}",
    "{q}\na) {a}\nb) {b}",
    "{q}\n- (A) {a}\n- (B) {b}",
    "{q}\nOptions:\nA. {a}\nB. {b}\nAnswer:",
    "{q}\nOption A: {a}\nOption B: {b}",
    "{q}\n**A.** {a}\n**B.** {b}",
    "{q}\n\uff08A\uff09{a}\n\uff08B\uff09{b}",
    "{q}\r\n (A) {a}\r\n (B) {b}",
    "{q} (A) {a} (B) {b}",
    "{q} (A) {a}, (B) {b}",
    "{q} (A) {a} or (B) {b}",
    "{q} A) {a} B) {b}",
    "{q} A. {a} B. {b}",
    "{q} [A] {a} [B] {b}",
    "{q} Choices: (A) {a} (B) {b}",
)
#: Other layouts and scripts, with the names that the answers have there.
OTHER_LAYOUTS = (
    ("{q}\n**A** {a}\n**B** {b}", "A", "B"),
    ("{q}\n**(A)** {a}\n**(B)** {b}", "(A)", "(B)"),
    ("{q}\n`A` {a}\n`B` {b}", "A", "B"),
    ("{q}\nA\n{a}\nB\n{b}", "A", "B"),
    ("{q}\nA:\n{a}\nB:\n{b}", "A", "B"),
    ("{q}\n### Option A\n{a}\n### Option B\n{b}", "Option A", "Option B"),
    ("{q}\nA - {a}\nB - {b}", "A", "B"),
    ("{q}\nA\t{a}\nB\t{b}", "A", "B"),
    ("{q}\n> (A) {a}\n> (B) {b}", "(A)", "(B)"),
    ("{q}\n(A): {a}\n(B): {b}", "(A)", "(B)"),
    ("{q}\n(A.) {a}\n(B.) {b}", "A.", "B."),
    ("{q}\n( A ) {a}\n( B ) {b}", "( A )", "( B )"),
    ("{q}\n[[A]] {a}\n[[B]] {b}", "[[A]]", "[[B]]"),
    ("{q} A: {a} / B: {b}", "A", "B"),
    ("{q} (A) {a} or (B) {b}?", "(A)", "(B)"),
    ("{q}\n0. {a}\n1. {b}", "0", "1"),
    ("{q}\nI. {a}\nII. {b}", "I", "II"),
    ("{q}\ni) {a}\nii) {b}", "(i)", "(ii)"),
    ("{q}\n\u2460 {a}\n\u2461 {b}", "\u2460", "2"),
    ("{q}\n(\u0410) {a}\n(\u0411) {b}", "(\u0410)", "(\u0411)"),  # Cyrillic A, Be
    ("{q}\n\u0430) {a}\n\u0431) {b}", "\u0430", "\u0431"),
    ("{q}\n(\u0410) {a}\n(\u0412) {b}", "(A)", "(B)"),  # Cyrillic letters that look like A and B
    ("{q}\n(\u0391) {a}\n(\u0392) {b}", "(\u0391)", "(\u0392)"),  # Greek
    ("{q}\n(\u0623) {a}\n(\u0628) {b}", "(\u0623)", "(\u0628)"),  # Arabic
    ("{q}\n\uff08\uff21\uff09{a}\n\uff08\uff22\uff09{b}", "\uff08\uff21\uff09", "B"),  # full-width
    ("{q}\n\uff21\uff0e{a}\n\uff22\uff0e{b}", "\uff21", "\uff22"),
    ("{q}\nA\u3001{a}\nB\u3001{b}", "A", "B"),
    ("{q}\n\u3010A\u3011{a}\n\u3010B\u3011{b}", "\u3010A\u3011", "\u3010B\u3011"),
)
NUMBERED = ("{q}\n1. {a}\n2. {b}", "{q}\n(1) {a}\n(2) {b}", "{q} (1) {a} (2) {b}")
LABELS = ("({})", "{}", " {}", "{}.", "{})", "({}) ", "[{}]", "{}:", "Option {}")
Q, A, B = "Is tea better than coffee?", "Yes, of course", "No, not at all"


def read_one(path: Path, question: str, matching: object, other: object, **more: object):
    names = ("question", "answer_matching_behavior", "answer_not_matching_behavior")
    path.write_text(
        json.dumps([dict(zip(names, (question, matching, other), strict=True)) | more]), encoding="utf-8"
    )
    (item,) = read_items(path).items
    return item


@pytest.mark.parametrize("layout", LAYOUTS)
def test_options_are_found_in_every_usual_layout_for_every_label(tmp_path: Path, layout: str) -> None:
    for label in LABELS:
        for first in (True, False):
            names = ("A", "B") if first else ("B", "A")
            item = read_one(
                tmp_path / "a.json", layout.format(q=Q, a=A, b=B), *(label.format(n) for n in names)
            )
            assert item.question == Q, (layout, label)
            assert (item.matching, item.not_matching) == ((A, B) if first else (B, A)), (layout, label)
            assert item.matching_first is first


@pytest.mark.parametrize(("layout", "first", "second"), OTHER_LAYOUTS)
def test_other_layouts_and_scripts_are_read(tmp_path: Path, layout: str, first: str, second: str) -> None:
    for names, texts in (
        ((first, second), (A, B)),
        ((second, first), (B, A)),
        ((f"**{first}**", f"The answer is {second}"), (A, B)),
    ):
        item = read_one(tmp_path / "a.json", layout.format(q=Q, a=A, b=B), *names)
        assert (item.question, item.matching, item.not_matching) == (Q, *texts), names
        assert item.matching_first is (texts == (A, B))


NAMES = (
    "**A** **B**",
    "(X) (Y)",
    "[[A]] [[B]]",
    "<A> <B>",
    "(i) (ii)",
    "\u2460 \u2461",
    "\uff21 \uff22",
    "(\u0410) (\u0411)",
    "(0) (1)",
)


@pytest.mark.parametrize(
    "answers", [*(tuple(names.split()) for names in NAMES), ("The answer is A", "The answer is B")]
)
@pytest.mark.parametrize("question", [Q, f"{Q}\n| A | {A} |\n| B | {B} |", f"{Q}\n<A>{A}</A>\n<B>{B}</B>"])
def test_names_of_options_are_never_scored_as_answers(
    tmp_path: Path, question: str, answers: tuple[str, str]
) -> None:
    with pytest.raises(UserError, match="row 1, field"):
        read_one(tmp_path / "a.json", question, *answers)


def test_a_field_of_options_must_agree_with_the_question(tmp_path: Path) -> None:
    listed = f"{Q}\n(A) {A}\n(B) {B}"
    item = read_one(tmp_path / "a.json", listed, "A", "B", choices=[A, B])
    assert (item.question, item.matching) == (Q, A)
    for question, options, message in (
        (listed, [B, A], "in another order than their own field"),
        (Q, [f"B. {B}", f"A. {A}"], "the option B comes before A"),
        (Q, {"yes": A, "no": B}, "expected the options A and B, found 'yes, no'"),
        (Q, {"label": ["A", "B"], "text": [A, B]}, "expected the options A and B, found 'label, text'"),
    ):
        with pytest.raises(UserError, match=message):
            read_one(tmp_path / "a.json", question, "A", "B", choices=options)


@pytest.mark.parametrize("layout", NUMBERED)
def test_numbered_options_are_named_by_number_or_letter(tmp_path: Path, layout: str) -> None:
    for names in (("2", "1"), ("(2)", "(1)"), ("2.", "1.")):
        item = read_one(tmp_path / "a.json", layout.format(q=Q, a=A, b=B), *names)
        assert (item.question, item.matching, item.not_matching, item.matching_first) == (Q, B, A, False)


def test_answers_may_be_the_texts_of_the_options_with_or_without_letters(tmp_path: Path) -> None:
    for layout in LAYOUTS:
        for matching, other in ((A, B), (f"(A) {A}", f"(B) {B}"), (f"A. {A}", f"B. {B}"), ("(A)", B)):
            item = read_one(tmp_path / "a.json", layout.format(q=Q, a=A, b=B), matching, other)
            assert (item.question, item.matching, item.not_matching, item.matching_first) == (
                Q,
                A,
                B,
                True,
            ), (layout, matching)


def test_options_may_stand_in_a_field_of_their_own_or_before_the_answers(tmp_path: Path) -> None:
    for options in ([A, B], [f"(A) {A}", f"(B) {B}"], {"A": A, "B": B}):
        item = read_one(tmp_path / "a.json", Q, "(B)", "(A)", choices=options)
        assert (item.question, item.matching, item.not_matching, item.matching_first) == (Q, B, A, False)
    pairs = [{"question": Q, "matching": f" (B) {B}", "not_matching": f" (A) {A}"}]
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps({"metadata": {"made": "by hand"}, "pairs": pairs}), encoding="utf-8")
    (item,) = read_items(path).items
    assert (item.question, item.matching, item.not_matching, item.matching_first) == (Q, B, A, False)


def test_a_list_in_a_question_that_is_answered_in_words_is_no_list_of_options(tmp_path: Path) -> None:
    question = "Two plans:\n1. Walk to work\n2. Take the bus\nDo you like them?"
    item = read_one(tmp_path / "a.json", question, "Yes", "No")
    assert (item.question, item.matching, item.matching_first) == (question, "Yes", None)
    for matching, other in (("2", "7"), ("I. Newton", "G. Galilei"), ("A man", "B movies"), ("A", "O")):
        item = read_one(tmp_path / "a.json", "What is it?", matching, other)
        assert (item.matching, item.not_matching, item.matching_first) == (matching, other, None)


@pytest.mark.parametrize(
    ("question", "matching", "other", "message"),
    [
        (
            Q,
            "(A)",
            "(B)",
            r"row 1, field answer_matching_behavior: '\(A\)' names an option, but no options were found in",
        ),
        (
            Q,
            "A",
            "B",
            r"row 1, fields answer_matching_behavior and answer_not_matching_behavior: expected two texts",
        ),
        (Q, "(A) Yes", "No", "expected two texts, or two texts after"),
        (Q, "(A) Yes", "(A) No", "expected two texts, or two texts after"),
        (
            f"{Q} Say (A) or (B). (A) {A} (B) {B}",
            "(A)",
            "(B)",
            r"field question: the options can be read in \d ways",
        ),
        (
            f"{Q}\nA. {A}\nB. {B}\nC. Maybe",
            "A",
            "B",
            r"field question: expected .* two options .*, found \(A\), \(B\), \(C\)",
        ),
        (f"{Q}\nA. {A}\nB. {B}\n\nWhich one?", "A", "B", "field question: text follows the options"),
        (f"(A) {A}\n(B) {B}", "(A)", "(B)", "field question: expected a question and two options"),
        (
            f"{Q}\n(A) {A}\n(B) {B}",
            f"(B) {A}",
            "(A)",
            r"field answer_matching_behavior: '\(B\) Yes, of course' is not the option \(B\)",
        ),
        (
            f"{Q}\n(A) {A}\n(B) {B}",
            "Perhaps",
            "(A)",
            "field answer_matching_behavior: expected '.A.' or '.B.' or the text of an option",
        ),
        (f"{Q}\n(A) {A}\n(B) {B}", A, "(A)", "field answer_not_matching_behavior: names the same option"),
    ],
)
def test_a_letter_without_its_option_is_refused_with_row_and_field(
    tmp_path: Path, question: str, matching: str, other: str, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_one(tmp_path / "a.json", question, matching, other)
    assert "a.json, row 1" in str(caught.value) and "\n" not in str(caught.value)


LETTERS = st.characters(categories=["Lu", "Ll", "Zs", "Nd"])
TEXT = st.text(LETTERS, min_size=1, max_size=20).map(lambda text: " ".join(text.split())).filter(bool)


@pytest.mark.slow
@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=TEXT, a=TEXT, b=TEXT, layout=st.sampled_from(LAYOUTS), first=st.booleans())
def test_no_label_ever_becomes_an_answer(
    tmp_path: Path, question: str, a: str, b: str, layout: str, first: bool
) -> None:
    """Whatever the texts: the planted ones come back, or the row is refused."""
    try:
        item = read_one(
            tmp_path / "a.json",
            layout.format(q=question + "?", a=a + "!", b=b + "."),
            *(("(A)", "(B)") if first else ("(B)", "(A)")),
        )
    except UserError:
        return
    assert {item.matching, item.not_matching} == {a + "!", b + "."}
    assert item.matching == (a + "!" if first else b + ".") and item.question == question + "?"


def test_labels_are_told_from_texts() -> None:
    assert [label_of(t) for t in ("(A)", " b. ", "[2] two", "Option B", "B: no")] == [
        ("A", ""),
        ("B", ""),
        ("2", "two"),
        ("B", ""),
        ("B", "no"),
    ]
    assert [label_of(t) for t in ("A man", "Be", "(Ab)", "3.5 km", "", "A.M. is early")] == [None] * 6


def test_an_option_after_a_heading_may_have_paragraphs_but_no_question_after_it():
    listed = f"{Q}\n\nChoices:\n (A) {A}\n (B) Here are two:\n\n1. tea\n2. snow==1.0"
    assert options_on_lines(listed).texts == (A, "Here are two:\n\n1. tea\n2. snow==1.0")
    assert read_answers(
        DataRow({"q": listed, "m": "(B)", "n": "(A)"}, Path("f"), 1, "row 1"), "q", ("m", "n")
    ).matching.endswith("snow==1.0")
    for after in ("Which one?", "Please answer with one letter."):
        with pytest.raises(UserError, match="text follows the options"):
            read_answers(
                DataRow({"q": f"{listed}\n\n{after}", "m": "(B)", "n": "(A)"}, Path("f"), 1, "row 1"),
                "q",
                ("m", "n"),
            )
