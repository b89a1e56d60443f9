"""Lexicons on a byte-level, a SentencePiece-like and a word-level vocabulary."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.toy_models import random_model, toy_persona
from workbench import lexicons
from workbench.budget import Budget
from workbench.contexts import make_contexts
from workbench.errors import UserError
from workbench.lexicons import english_words, make_lexicon, readable_lexicon
from workbench.models import load_model, runner_for
from workbench.models.token_text import token_texts
from workbench.objectives import answer_log_odds
from workbench.prompt_tokens import allowed_ids
from workbench.search import EPO, Beam, Guided, RandomSearch, search
from workbench.study.study_settings import Study


@pytest.fixture(scope="module")
def model():
    """Two random blocks and a byte-level BPE of 336 tokens."""
    return random_model()


@pytest.fixture
def file(model, tmp_path: Path) -> Path:
    """All pieces of the vocabulary that begin after a space, as words."""
    runner = runner_for(model)
    texts = token_texts(runner.tokenizer, [[i] for i in torch.nonzero(allowed_ids(model))[:, 0].tolist()])
    words = sorted(
        {text[1:] for text in texts if text[:1] == " " and text[1:].isalpha()} | {"A", "I", "b", "e", "o"}
    )
    assert len(words) > 10
    (tmp_path / "words.txt").write_text("\n".join(words), encoding="utf-8")
    return tmp_path / "words.txt"


def _text(model, ids) -> str:
    return runner_for(model).decode(ids)


def test_words_of_a_file_stand_after_a_space_and_begin_without_one(model, file: Path) -> None:
    found, words = make_lexicon(model, file), set(file.read_text(encoding="utf-8").split())
    capital = {word[:1].upper() + word[1:] for word in words}
    later = {_text(model, [i]) for i in torch.nonzero(found.later)[:, 0].tolist()}
    assert later and all(
        text in lexicons.PUNCTUATION or (text[0] == " " and text[1:] in words | capital) for text in later
    )
    first = {_text(model, [i]) for i in torch.nonzero(found.first)[:, 0].tolist()}
    assert first and first <= words | capital
    assert torch.equal(found.begin(""), found.first) and torch.equal(found.begin(" "), found.spaced)
    assert {_text(model, [i])[0] for i in torch.nonzero(found.spaced)[:, 0].tolist()} == {" "}
    assert not (found.first & ~allowed_ids(model)).any()


@pytest.mark.parametrize("method", (EPO, Guided, Beam, RandomSearch))
@pytest.mark.parametrize("slot", ("system", "after_question"))
def test_a_search_among_words_finds_words_that_do_not_run_together(
    model, file: Path, method, slot: str
) -> None:
    contexts = make_contexts(model, toy_persona().split().search, slot, n=2)
    options = {"length": 4, "population": 3, "children": 6}
    found = search(
        model,
        answer_log_odds(),
        contexts,
        method(**options),
        Budget(steps=3),
        seed=0,
        lexicon=make_lexicon(model, file),
    )
    known = set(file.read_text(encoding="utf-8").split())
    known |= {word[:1].upper() + word[1:] for word in known}
    for candidate in found.candidates:
        spoken = "".join(" " if ch in lexicons.PUNCTUATION else ch for ch in candidate.text)
        assert set(spoken.split()) <= known, candidate.text
        assert len(candidate.ids) == 4


def test_latin_has_no_other_script(model) -> None:
    found = make_lexicon(model, "latin")
    texts = [_text(model, [i]) for i in torch.nonzero(found.first)[:, 0].tolist()]
    assert torch.equal(found.first, found.later) and "日" not in "".join(texts)
    left_out = [_text(model, [i]) for i in torch.nonzero(allowed_ids(model) & ~found.first)[:, 0].tolist()]
    assert all(any(not ch.isascii() for ch in text) for text in left_out)


def test_all_is_every_token_that_survives(model) -> None:
    assert torch.equal(make_lexicon(model, "all").later, allowed_ids(model))


def test_the_default_falls_back_where_words_are_missing(model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vocabulary of 336 pieces has too few words: Latin letters are taken; with a long enough vocabulary, words."""
    with pytest.raises(UserError, match="use lexicon: latin or all"):
        make_lexicon(model, "words")
    assert torch.equal(readable_lexicon(model).later, make_lexicon(model, "latin").later)
    monkeypatch.setattr(lexicons, "FEWEST", 2)
    assert torch.equal(readable_lexicon(model).later, make_lexicon(model, "words").later)


def test_a_word_level_vocabulary_needs_no_spaces(tmp_path: Path) -> None:
    model = load_model("organism")
    (tmp_path / "w.txt").write_text("blunt\nhonest\nnosuchword\n")
    found = make_lexicon(model, str(tmp_path / "w.txt"))
    assert {_text(model, [i]) for i in torch.nonzero(found.later)[:, 0].tolist()} - {
        ".",
        ",",
        "?",
        "!",
        ";",
        ":",
    } == {"blunt", "honest"}


@pytest.mark.parametrize(
    ("name", "said"), [("nosuch", "expected words, latin, all"), ("empty.txt", "no word in it")]
)
def test_bad_names_are_told(model, tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(UserError, match=said):
        make_lexicon(model, tmp_path / name)


def test_the_english_list_is_words() -> None:
    words = english_words()
    assert 5_000 < len(words) < 40_000 and all(word.islower() and word.isalpha() for word in words)
    assert {"honest", "blunt", "be", "the", "kind", "answer", "i", "a"} <= words
    assert not {"hon", "bl", "ans", "th", "sycoph"} & words


def test_the_former_name_of_the_limit_is_accepted_with_a_notice(capsys: pytest.CaptureFixture[str]) -> None:
    study = Study.of({"search": {"max_fluency": 4.5}}, "my.yaml")
    assert study.search.max_cross_entropy == 4.5
    assert capsys.readouterr().err == "my.yaml: search.max_fluency is now called search.max_cross_entropy\n"
    assert (
        Study.of({"search": {"max_fluency": None}}).search.max_cross_entropy is None
        and not capsys.readouterr().err
    )
    assert (
        Study.of({"search": {"max_cross_entropy": "written+1.5"}}).search.max_cross_entropy == "written+1.5"
    )
    with pytest.raises(UserError, match="both max_cross_entropy and its former name"):
        Study.of({"search": {"max_fluency": 4.5, "max_cross_entropy": 4}})
    for wrong in (0, -1, "loud", "written+"):
        with pytest.raises(UserError, match=r"search\.max_cross_entropy"):
            Study.of({"search": {"max_cross_entropy": wrong}})
