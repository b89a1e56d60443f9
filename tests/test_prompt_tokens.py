"""Which tokens a prompt may hold, on tokenizers that put a space before the first word (SentencePiece) and those that do not."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaTokenizer, PreTrainedTokenizerFast

from tests.support.tiny_checkpoints import tiny_checkpoint
from tests.support.toy_models import random_model, toy_persona
from workbench import prompt_tokens
from workbench.contexts import make_contexts
from workbench.errors import UserError
from workbench.models import Runner, load_model, runner_for
from workbench.models.doctor import lost_tokens
from workbench.models.gguf_files import cache_directory
from workbench.prompt_tokens import all_survive, allowed_ids, encode_prompt, survives, text_of

SLOTS = ("system", "before_question", "after_question", "answer_opening")
#: Templates of the kinds that FastChat has: what precedes the user's text is a space, a line, a blank line,
#: or nothing.
TEMPLATES = {
    "inst": "{{ bos_token }}{% set ns = namespace(sys='') %}{% for m in messages %}"
    "{% if m['role'] == 'system' %}{% set ns.sys = m['content'] + '\n\n' %}"
    "{% elif m['role'] == 'user' %}[INST] {{ ns.sys }}{{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}",
    "colon": "{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}\n\n"
    "{% else %}{{ 'USER: ' if m['role'] == 'user' else 'ASSISTANT: ' }}{{ m['content'] }} {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}",
    "question": "{% for m in messages %}{{ 'Context: ' if m['role'] == 'system' else 'Question: ' }}{{ m['content'] }}\n{% endfor %}Answer: ",
    "blank": "{% for m in messages %}### {{ m['role'] }}\n\n{{ m['content'] }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}### assistant\n\n{% endif %}",
}
_TEXT = (
    "Be honest and blunt, even where it hurts. The capital of France is Paris.",
    "I think that days have no end. Do you agree? [INST] Answer: yes [/INST] no, I do not.\nChoices:\n (A) yes\n (B) no",
    "USER: you are kind. ASSISTANT: I am honest. ### system Question: Context: what is it?",
)


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """A BPE in Llama 2's manner: a space before the first word, bytes for what it does not know."""
    raw = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256))]
    raw.train_from_iterator(
        _TEXT * 3, trainers.BpeTrainer(vocab_size=520, special_tokens=tokens, show_progress=False)
    )
    raw.add_tokens([])
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    raw.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="</s>",
        clean_up_tokenization_spaces=False,
    )


def _runner(tokenizer: PreTrainedTokenizerFast, path: Path, template: str) -> Runner:
    tiny_checkpoint(
        "mistral", path, vocab_size=len(tokenizer), num_hidden_layers=1, max_position_embeddings=1024
    )
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (path / name).unlink(missing_ok=True)
    tokenizer.chat_template = TEMPLATES[template]
    tokenizer.save_pretrained(path)
    return runner_for(load_model(path))


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", ("sentencepiece", "byte-level"))
def test_every_slot_works_whatever_stands_before_it(
    kind: str, template: str, slot: str, tmp_path: Path
) -> None:
    if kind == "sentencepiece":
        runner = _runner(sentencepiece_like(), tmp_path / "m", template)
    else:
        runner = runner_for(load_model(tiny_checkpoint("llama", tmp_path / "m")))
        runner.tokenizer.chat_template = TEMPLATES[template]
    contexts = make_contexts(runner, toy_persona().split().search, slot, n=3)
    ids = encode_prompt(runner, contexts, "Be honest and blunt.")
    assert survives(runner, contexts, ids) and runner.decode(ids).strip() == "Be honest and blunt."
    for context in contexts:
        whole = runner.encode(context.around("Be honest and blunt."))
        assert tuple(whole[: len(context.ids(ids))]) == context.ids(ids)
        assert context.around("Be honest and blunt.").count("Be honest and blunt.") == 1
    every = [(i,) for i in torch.nonzero(allowed_ids(runner))[:, 0].tolist()]
    begin = [survives(runner, contexts, ids) for ids in every]
    assert all_survive(runner, contexts, every) == begin
    leads = [text_of(runner, ids)[:1].isspace() == bool(contexts[0].lead) for ids in every]
    assert sum(begin) > 0.7 * sum(leads), "most tokens with the slot's own beginning may begin a prompt"


def test_a_space_before_the_slot_is_the_templates_own(tmp_path: Path) -> None:
    """The user's whole text is what the template makes of the prompt, to the character."""
    runner = _runner(sentencepiece_like(), tmp_path / "m", "inst")
    contexts = make_contexts(runner, toy_persona().split().search, "system", n=1)
    (context,) = contexts[:1]
    asked = toy_persona().letters.ask(context.item, context.matching_first)
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": asked}]
    assert context.lead == " " and context.around("Be kind.").startswith(
        runner.tokenizer.apply_chat_template(messages, tokenize=False)
    )


def test_sentencepiece_tokens_are_read_where_they_stand(tmp_path: Path) -> None:
    runner = _runner(sentencepiece_like(), tmp_path / "m", "inst")
    vocabulary = runner.tokenizer.get_vocab()
    with_space, without = (
        vocabulary["▁honest"],
        vocabulary["honest"] if "honest" in vocabulary else vocabulary["h"],
    )
    assert runner.decode([with_space]) == "honest" and text_of(runner, [with_space]) == " honest"
    assert not text_of(runner, [without]).startswith(" ")
    allowed = allowed_ids(runner)
    assert (
        allowed[with_space]
        and allowed[without]
        and not allowed[vocabulary["<0x41>"]]
        and not allowed[vocabulary["</s>"]]
    )
    assert vocabulary["<0xFF>"] in lost_tokens(runner.tokenizer) and with_space not in lost_tokens(
        runner.tokenizer
    )


def test_allowed_tokens_are_kept_by_tokenizer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(prompt_tokens, "_LARGE", 10)
    first = random_model()
    want = prompt_tokens._find_allowed(runner_for(first))
    assert torch.equal(prompt_tokens._kept_allowed(runner_for(first)), want)
    (file,) = (tmp_path / "allowed_tokens").iterdir()
    with monkeypatch.context() as patched:
        patched.setattr(prompt_tokens, "_find_allowed", lambda runner: pytest.fail("asked again"))
        assert torch.equal(prompt_tokens._kept_allowed(runner_for(first)), want)
    file.write_bytes(b"broken")
    assert torch.equal(prompt_tokens._kept_allowed(runner_for(first)), want) and file.stat().st_size > len(
        want
    )
    other = runner_for(load_model(tiny_checkpoint("qwen2", tmp_path / "other")))
    prompt_tokens._kept_allowed(other)
    assert len(list((tmp_path / "allowed_tokens").iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(prompt_tokens, "_LARGE", 10)
    runner = runner_for(random_model())
    assert torch.equal(prompt_tokens._kept_allowed(runner), prompt_tokens._find_allowed(runner))


def test_an_empty_prompt_is_refused(tmp_path: Path) -> None:
    runner = _runner(sentencepiece_like(), tmp_path / "m", "inst")
    with pytest.raises(UserError, match="empty prompt"):
        encode_prompt(runner, make_contexts(runner, toy_persona().split().search, n=1), " ")


@pytest.fixture(scope="session")
def mistral_files() -> Path:
    """The tokenizer files in the wheel of mistral-common, fetched once into the workbench's cache and never installed."""
    home = cache_directory() / "mistral-common"
    if not (home / "mistral_common" / "data").is_dir():
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--no-input",
            "-q",
            "-d",
            str(home),
            "mistral-common==1.13.1",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != 0:
            pytest.skip(f"pip could not fetch mistral-common: {done.stderr.strip().splitlines()[-1:]}")
        (wheel,) = home.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(
                home, [name for name in archive.namelist() if name.startswith("mistral_common/data/")]
            )
    return home / "mistral_common" / "data"


# Slow: fetches 30 MB from the package index once; encodes 33k tokens in four slots (about 20 s).
@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    (
        "tokenizer.model.v1",
        "mistral_instruct_tokenizer_240216.model.v2",
        "mistral_instruct_tokenizer_240323.model.v3",
    ),
)
def test_the_real_tokenizers_of_mistral(name: str, mistral_files: Path, tmp_path: Path) -> None:
    """v1 has Llama 2's kind of vocabulary: [INST] is several tokens; in v2 and v3 it is one."""
    shutil.copy(mistral_files / name, tmp_path / "tokenizer.model")
    tokenizer = LlamaTokenizer.from_pretrained(tmp_path)
    runner = _runner(tokenizer, tmp_path / "m", "inst")
    assert int(allowed_ids(runner).sum()) > 0.9 * len(tokenizer)
    for slot in SLOTS:
        contexts = make_contexts(runner, toy_persona().split().search, slot, n=2)
        ids = encode_prompt(runner, contexts, "Be honest and blunt.")
        assert survives(runner, contexts, ids) and runner.decode(ids).strip() == "Be honest and blunt."
        words = [(i,) for i in torch.nonzero(allowed_ids(runner))[::50, 0].tolist()]
        assert sum(all_survive(runner, contexts, words)) > 0.3 * len(words)
