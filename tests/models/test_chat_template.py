"""Dates, thoughts and the ends of replies: what a template brings that plain text does not."""

from __future__ import annotations

import json
import resource
import threading
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.support.tiny_checkpoints import tiny_checkpoint, tiny_tokenizer
from workbench.errors import UserError
from workbench.evaluation.open_answers import open_answers
from workbench.models import load_model, runner_for, template_limits
from workbench.models.chat_template import (
    PINNED_DATE,
    closing_thought,
    opens_thought,
    render_chat,
    reply_ends,
    writes_date,
)
from workbench.models.doctor import diagnose
from workbench.personas import Item

_HEAD = "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
HELLO = [{"role": "user", "content": "Hello"}]


def _with_template(template: str) -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def test_todays_date_is_pinned_and_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    directory = tiny_checkpoint("llama", tmp_path / "m")
    template = "{{ 'Today is ' + strftime_now('%d %b %Y') + '.' }}" + tiny_tokenizer().chat_template
    (directory / "chat_template.jinja").write_text(template)
    runner = runner_for(load_model(directory))
    assert writes_date(runner.tokenizer)
    today = runner.tokenizer.apply_chat_template(HELLO, tokenize=False, add_generation_prompt=True)
    assert f"Today is {date.today():%d %b %Y}." in today
    assert runner.render(HELLO).startswith(f"Today is {PINNED_DATE:%d %b %Y}.")
    assert runner.render(HELLO).split(".", 1)[1] == today.split(".", 1)[1]
    rows = {row.check: row.detail for row in diagnose(directory).rows}
    assert "26 July 2024" in rows["date"] and "thought" not in rows


@pytest.mark.parametrize(
    "call",
    [
        "{% set form = '%d %b %Y' %}{{ strftime_now(form) }}",
        "{% set today = strftime_now %}{{ today('%d %b %Y') }}",
        "{{ strftime_now(format='%d %b %Y') }}",
        '{% if date_string is not defined %}{% set date_string = strftime_now("%d %b %Y") %}{% endif %}{{ date_string }}',
    ],
)
def test_a_date_is_pinned_however_the_template_asks_for_it(call: str) -> None:
    assert render_chat(_with_template(call + _HEAD + "{% endfor %}"), HELLO).startswith("26 Jul 2024")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{% for m in messages %}{{ m['content'][0]['text'] }}{% endfor %}",
            "leaves out or changes what the message of the user says",
        ),
        ("{{ messages[0]['content'] | upper }}", "leaves out or changes"),
        ("no messages here", "leaves out or changes"),
        (
            "{% for t in tools %}{{ t }}{% endfor %}",
            "cannot hold the roles user: 'NoneType' object is not iterable",
        ),
        ("{{ documents | length }}", "cannot hold the roles user"),
        ("{% for %}", "cannot hold the roles user"),
        ("{{ foo.bar.baz }}", "'foo' is undefined"),
        ("{{ raise_exception('only even turns') }}", "only even turns"),
        ("{{ messages[0]['content'] }}<|thinking|>", "opens a thought .* that it does not say how to close"),
        (
            "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
            "counts further than 200,000",
        ),
        ("{% for a in range(10 ** 30) %}{% endfor %}", "cannot hold the roles user|counts further"),
        ("{{ range(100) | random }}", "draws at random"),
        ("{{ lipsum() }}", "draws at random"),
        ("{% for a in range(99999) %}{{ 'x' * 100 }}{% endfor %}", "writes more than 4,000,000 characters"),
        (
            "{% set s = 'x' * 3000 %}{% for a in s %}{% for b in s %}{% for c in s %}{% endfor %}{% endfor %}{% endfor %}",
            "did not end within its time",
        ),
    ],
)
def test_a_template_that_would_mislead_or_not_end_is_refused(template: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        render_chat(_with_template(template), HELLO)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("opened", ("<think>\n", "<think>", "<thinking>\n\n", "<seed:think>"))
def test_an_open_thought_is_closed(opened: str) -> None:
    tokenizer = _with_template(
        _HEAD
        + "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
        + opened
        + "{% endif %}"
    )
    name = opened.strip().strip("<>")
    text = render_chat(tokenizer, HELLO)
    assert opens_thought(tokenizer) and text.endswith(f"{opened}\n</{name}>\n\n")


@pytest.mark.parametrize(
    ("opened", "closed"),
    [
        ("<think>\nOkay, ", "\n</think>\n\n"),
        ("[THINK]", "\n[/THINK]\n\n"),
        ("\u25c1think\u25b7", "\n\u25c1/think\u25b7\n\n"),
        ("<|begin_of_thought|>", "\n<|end_of_thought|>\n\n"),
        ("<|START_THINKING|>", "\n<|END_THINKING|>\n\n"),
        ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ],
)
def test_thoughts_of_other_templates_are_closed_as_these_close_them(opened: str, closed: str) -> None:
    tokenizer = _with_template(_HEAD + "<|im_end|>\n{% endfor %}" + opened)
    assert render_chat(tokenizer, HELLO).endswith(opened + closed)
    said = [{"role": "user", "content": f"What does {opened.strip()} mean?"}]
    tokenizer.chat_template = _HEAD + "<|im_end|>\n{% endfor %}"
    assert render_chat(tokenizer, said).endswith("mean?<|im_end|>\n"), (
        "a thought inside a question is not the template's"
    )


@pytest.mark.parametrize("ends", ["3", ["<|im_end|>"], [[3]], 3.0, True], ids=str)
def test_end_tokens_that_are_no_ids_are_refused_by_name(ends: Any, tmp_path: Path) -> None:
    directory = tiny_checkpoint("llama", tmp_path / "m")
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    with pytest.raises(
        UserError, match=r"generation_config\.json, field eos_token_id: expected ids of tokens"
    ):
        _ = runner_for(load_model(directory)).reply_ends


@pytest.mark.parametrize(
    "text", ("<think>\n\n</think>\n\n", "assistant\n", "I think", "a <b>", "<thin> ", "")
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert closing_thought(text) == ""


def test_the_ends_of_a_reply_are_the_templates_the_tokenizers_and_the_configs() -> None:
    tokenizer = _with_template(_HEAD + "<|im_end|>\n{% endfor %}")
    ids = {
        name: tokenizer.convert_tokens_to_ids(name)
        for name in ("<|im_end|>", "<|pad|>", "<|bos|>", "<|im_start|>")
    }
    tokenizer.eos_token = "<|pad|>"
    assert reply_ends(tokenizer) == {ids["<|pad|>"], ids["<|im_end|>"]}
    assert reply_ends(tokenizer, [ids["<|bos|>"]]) == {ids["<|pad|>"], ids["<|im_end|>"], ids["<|bos|>"]}
    tokenizer.chat_template = _HEAD + "\n{% endfor %}"  # text after the assistant's words is no end of a turn
    assert reply_ends(tokenizer, ids["<|im_start|>"]) == {ids["<|pad|>"], ids["<|im_start|>"]}
    tokenizer.chat_template = None
    assert reply_ends(tokenizer) == {ids["<|pad|>"]}


def test_a_reply_is_hugging_faces_generate(tmp_path: Path) -> None:
    """The tokenizer's EOS is another token than the turn's end, which only generation_config.json names (case 06)."""
    directory = tiny_checkpoint("llama", tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(directory)
    reference = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager").eval()
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello?"}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        free = reference.generate(ids, max_new_tokens=40, do_sample=False, eos_token_id=-1, pad_token_id=0)[
            0, ids.shape[1] :
        ].tolist()
    stop = next(
        token
        for n, token in enumerate(free)
        if n > 3 and free.index(token) == n and token not in tokenizer.all_special_ids
    )
    (directory / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [tokenizer.bos_token_id, stop]})
    )
    reference = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager").eval()
    with torch.no_grad():
        want = reference.generate(ids, max_new_tokens=40, do_sample=False, pad_token_id=0)[
            0, ids.shape[1] :
        ].tolist()
    assert want[-1] == stop and len(want) < 40
    for backend in ("hooked", "bridge"):
        model = load_model(directory, backend=backend)
        assert stop in runner_for(model).reply_ends
        (found,) = open_answers(model, [Item("1", "Hello?", "yes", "no", "g")], max_new_tokens=40)
        assert found.finished and found.text == tokenizer.decode(want[:-1], skip_special_tokens=True).strip()


def test_a_rendering_thread_that_is_ended_anywhere_says_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exception may come a second time, outside of what catches it: its traceback was printed."""

    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)  # not pytest's

    def work() -> None:
        raise template_limits._STOPPED

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert capsys.readouterr().err == ""


def test_a_template_without_the_memory_that_it_asks_for_is_one_line() -> None:
    with pytest.raises(UserError, match="cannot hold the roles user: MemoryError"):
        render_chat(_with_template("{{ messages[0].content * 10**15 }}"), HELLO)


def test_a_template_that_grows_is_stopped_before_it_takes_gigabytes() -> None:
    """It keeps every beginning of a growing text; 5 GB were seen within a template's time before."""
    keeps = "{% set n = namespace(x=[], s='') %}{% for i in range(199999) %}{% set n.s = n.s ~ 'a' * 1000 %}"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match="needs more than 500 MB"):
        render_chat(_with_template(keeps + "{% set n.x = n.x + [n.s ~ i] %}{% endfor %}"), HELLO)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_500_000  # kB
