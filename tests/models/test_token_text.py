"""Texts of single tokens, decoded many at a time: the same as one by one; first contexts do not wait for the whole vocabulary."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from tests.support.tiny_checkpoints import FAMILIES, tiny_checkpoint
from workbench import prompt_tokens
from workbench.contexts import make_contexts
from workbench.models import load_model, runner_for
from workbench.models.token_text import short_text_ids, single_token_texts, token_ids, token_texts
from workbench.personas import load_persona
from workbench.prompt_tokens import allowed_ids, encode_prompt


@pytest.mark.parametrize("family", FAMILIES)
def test_many_tokens_at_once_read_as_each_alone(family: str, tmp_path: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_checkpoint(family, tmp_path / family))
    for ids in (range(len(tokenizer)), range(3, len(tokenizer), 2), [tokenizer.eos_token_id] * 70, range(5)):
        assert single_token_texts(tokenizer, ids) == token_texts(tokenizer, [[i] for i in ids])


@pytest.mark.parametrize("family", FAMILIES)
def test_many_short_texts_encode_as_each_alone(family: str, tmp_path: Path) -> None:
    """Tokens' own texts, texts that merge, white space, nothing, and texts that hold the end token itself."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_checkpoint(family, tmp_path / family))
    own = [text for text in token_texts(tokenizer, [[i] for i in range(len(tokenizer))]) if text]
    end = str(tokenizer.eos_token)
    for texts in (own, [*own, "", " ", "\n\n", "two words", f"a{end}b", end, " ab" * 3] * 2, own[:5]):
        assert short_text_ids(tokenizer, texts) == token_ids(tokenizer, texts)


def test_an_end_token_that_parts_nothing_falls_back(tmp_path: Path) -> None:
    """An end token whose text other tokens hold, or that is none at all."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_checkpoint("llama", tmp_path / "llama"))
    alone = token_texts(tokenizer, [[i] for i in range(len(tokenizer))])
    tokenizer.eos_token = alone[tokenizer.encode("a", add_special_tokens=False)[0]]
    assert sum(tokenizer.eos_token in text for text in alone) > 1
    assert single_token_texts(tokenizer, range(len(tokenizer))) == alone
    assert short_text_ids(tokenizer, alone) == token_ids(tokenizer, alone)
    tokenizer.eos_token = None
    assert single_token_texts(tokenizer, range(len(tokenizer))) == alone
    assert short_text_ids(tokenizer, alone) == token_ids(tokenizer, alone)


def test_first_contexts_ask_some_tokens_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contexts and prompts of a fresh model without the mask of the whole vocabulary; the tokens they probe with are all allowed."""
    model = load_model(tiny_checkpoint("qwen2", tmp_path / "qwen2", num_hidden_layers=2))
    monkeypatch.setattr(
        prompt_tokens, "_kept_allowed", lambda runner: pytest.fail("the whole vocabulary was asked")
    )
    contexts = make_contexts(model, load_persona("feedback_sycophancy").split().search, n=2)
    assert encode_prompt(model, contexts, "Be direct.")
    monkeypatch.undo()
    found = prompt_tokens.probes(runner_for(model))
    assert len(found) > 4 and bool(allowed_ids(model)[found].all())
