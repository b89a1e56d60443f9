"""`prompted_chat`: sentences keep their tokens in every slot, also where a full stop merges with a line break."""

from __future__ import annotations

from typing import get_args

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.support.tiny_checkpoints import tiny_checkpoint
from tests.support.toy_models import toy_persona
from workbench.contexts import Slot, make_contexts
from workbench.evaluation.continuation_log_probs import ask
from workbench.models import Runner, load_model, runner_for
from workbench.prompt_tokens import encode_prompt
from workbench.prompted_chat import render_with_prompt, separator

#: Punctuation takes the line breaks after it (https://github.com/openai/tiktoken, cl100k_base; Llama 3, Qwen).
_PUNCTUATION_WITH_BREAKS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)| ?\p{L}+|\p{N}|\s+"
SENTENCES = ("Be honest.", "Be honest!", "Who are you?", "Be (quite) honest", 'Say "yes"', "Be frank:")


@pytest.fixture(scope="module")
def merging(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """A small model whose tokenizer has tokens such as a full stop with a line break."""
    path = tiny_checkpoint("qwen2", tmp_path_factory.mktemp("merging"), vocab_size=512)
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    special = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    own = Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PUNCTUATION_WITH_BREAKS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    own.decoder = decoders.ByteLevel()
    texts = [f"{text}{end}" for text in SENTENCES for end in ("\n", "\n\n", " \n", "")] * 4
    own.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=420,
            show_progress=False,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    own.save(str(path / "tokenizer.json"))
    return runner_for(load_model(path))


def test_the_tokenizer_of_the_test_merges_a_stop_with_a_line_break(merging):
    assert len(merging.encode("Be honest.\n")) == len(merging.encode("Be honest."))
    assert len(merging.encode(".\n")) == 1


@pytest.mark.parametrize("slot", get_args(Slot))
def test_a_sentence_keeps_its_tokens_in_every_slot(merging, slot):
    contexts = make_contexts(merging, toy_persona().split().test, slot)
    for text in SENTENCES:
        ids = encode_prompt(merging, contexts, text)
        assert list(ids) == merging.encode(text)
        assert all(tuple(merging.encode(c.around(text)))[: len(c.ids(ids))] == c.ids(ids) for c in contexts)


def test_a_line_ends_in_a_space_only_where_needed(merging, organism):
    assert separator(merging) == " \n"
    assert separator(runner_for(organism)) == "\n"


@pytest.mark.parametrize("slot", get_args(Slot))
def test_contexts_and_rendered_chats_have_the_same_text(merging, slot):
    (context, *_) = make_contexts(merging, toy_persona().split().test, slot, metric="text")
    text = render_with_prompt(merging, context.item.question, "Be honest.", slot)
    assert context.around("Be honest.") == text == ask(merging, context.item.question, "Be honest.", slot)
