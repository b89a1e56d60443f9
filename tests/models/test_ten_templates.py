"""Ten kinds of chat templates, each in a tiny model: replies equal Hugging Face's generate token by token, log-odds its logits.

The templates are written here in the manner of the published ones. What differs between them: special tokens
or plain words round the turns, a system turn of its own or inside the user's, a space, a line or nothing
before the answer, the end of a turn.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import workbench as wb
from tests.support.tiny_checkpoints import tiny_checkpoint
from workbench.models import load_model, runner_for
from workbench.models.chat_template import PINNED_DATE
from workbench.personas import Item, Persona, Split

_IN_USER = "{% set ns = namespace(s='') %}{% for m in messages %}{% if m['role'] == 'system' %}{% set ns.s = m['content'] %}"
TEMPLATES = {
    "chatml": "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "llama-2": "{{ bos_token }}"
    + _IN_USER
    + "{% elif m['role'] == 'user' %}[INST] {% if ns.s %}<<SYS>>\n{{ ns.s }}\n<</SYS>>\n\n{% endif %}"
    "{{ m['content'] | trim }} [/INST]{% else %} {{ m['content'] }} {{ eos_token }}{% endif %}{% endfor %}",
    "llama-3": "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] | trim }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
    "llama-3 with a date": "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\nToday Date: {{ strftime_now('%d %b %Y') }}\n\n<|eot_id|>"
    "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
    "gemma": "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
    "mistral": "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %} {{ m['content'] }}{{ eos_token }}{% else %}"
    "[INST] {{ m['content'] }} [/INST]{% endif %}{% endfor %}",
    "zephyr": "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    "vicuna": "A chat between a user and an assistant. {% for m in messages %}{% if m['role'] == 'user' %}USER: {{ m['content'] }} "
    "{% elif m['role'] == 'system' %}{{ m['content'] }} {% else %}ASSISTANT: {{ m['content'] }}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}",
    "alpaca": "{% for m in messages %}{% if m['role'] == 'assistant' %}### Response:\n{{ m['content'] }}\n\n{% elif m['role'] == 'user' %}"
    "### Instruction:\n{{ m['content'] }}\n\n{% else %}{{ m['content'] }}\n\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}### Response:\n{% endif %}",
    "reasoning": "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}",
}
QUESTIONS = ("Is 17 + 25 = 42?", "Would you rather have 100 dollars today?", "Do you agree with me?")


def checkpoint(path: Path, template: str, stop: list[int] | None) -> Path:
    directory = tiny_checkpoint("llama", path)
    (directory / "chat_template.jinja").write_text(template)
    settings = json.loads((directory / "generation_config.json").read_text())
    (directory / "generation_config.json").write_text(
        json.dumps(settings | ({} if stop is None else {"eos_token_id": stop}))
    )
    return directory


def rendered(tokenizer: object, question: str) -> str:
    """Hugging Face's own text, with the day of the workbench for the day of today and its empty thought for an open one."""
    own = tokenizer.chat_template.replace("strftime_now('%d %b %Y')", repr(PINNED_DATE.strftime("%d %b %Y")))
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], chat_template=own, tokenize=False, add_generation_prompt=True
    )
    return text + ("\n</think>\n\n" if text.endswith("<think>\n") else "")


@torch.no_grad()
@pytest.mark.parametrize("name", TEMPLATES)
def test_replies_and_log_odds_are_hugging_faces(name: str, tmp_path: Path) -> None:
    directory = checkpoint(tmp_path / "m", TEMPLATES[name], None)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    theirs = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    texts = {question: rendered(tokenizer, question) for question in QUESTIONS}
    encoded = {
        q: tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        for q, text in texts.items()
    }
    long = {"max_new_tokens": 24, "do_sample": False, "pad_token_id": 0}
    free = {
        question: theirs.generate(ids, eos_token_id=-1, **long)[0, ids.shape[1] :]
        for question, ids in encoded.items()
    }
    stops = sorted(
        {int(reply[9]) for reply in free.values()}
    )  # ends that generation_config.json lists, so that replies stop inside
    checkpoint(tmp_path / "m", TEMPLATES[name], [*stops, tokenizer.eos_token_id])
    theirs = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    model = load_model(directory)
    runner = runner_for(model)
    assert set(stops) <= runner.reply_ends
    turn_end = runner.reply_ends - {
        *stops,
        tokenizer.eos_token_id,
    }  # the template's own, which generate knows only where it is listed
    for question, ids in encoded.items():
        assert runner.encode(runner.render([{"role": "user", "content": question}])) == ids[0].tolist()
        want = theirs.generate(ids, **long, eos_token_id=[*stops, tokenizer.eos_token_id, *turn_end])
        want = want[0, ids.shape[1] :].tolist()
        got = runner.generate(ids, 24)[0].tolist()
        assert got[: len(want)] == want and want[-1] in runner.reply_ends and len(want) < 24
    items = tuple(Item(str(n), question, "Yes", "No", f"g{n}") for n, question in enumerate(QUESTIONS))
    contexts = wb.make_contexts(
        model,
        Split("all", items, Persona("toy", "", items, "text", None, {}, ())),
        slot="before_question",
        metric="text",
    )
    found = wb.answer(model, contexts).log_odds
    for context, log_odds in zip(contexts, found, strict=True):
        scores = []
        for answer in context.answers:
            whole = torch.tensor([[*context.bare_ids, *answer]])
            rows = theirs(whole).logits[0].double().log_softmax(-1)
            scores.append(
                np.mean([float(rows[len(context.bare_ids) + k - 1, token]) for k, token in enumerate(answer)])
            )
        assert log_odds == pytest.approx(scores[0] - scores[1], abs=1e-4)
        assert runner.decode(context.bare_ids).startswith(texts[context.item.question].rstrip()[:-1])
