"""A chat template as the workbench uses it: today's date pinned, an open thought closed, and the tokens that end a reply.

1. A template that writes today's date (`strftime_now`) gives other log-odds every day: the date is pinned to PINNED_DATE, the day that
   Llama 3.1's own template falls back to.
2. A template that opens a thought (`<think>`) at the end of the generation prompt would have the choice read inside the thought: the
   thought is closed, empty, as Qwen 3's template does with `enable_thinking=False`.
3. A reply ends at the tokenizer's end of sequence, at those of generation_config.json (as Hugging Face's generate does), and at the token
   that the template puts after what the assistant said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import date

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from workbench.errors import UserError

PINNED_DATE = date(2024, 7, 26)
_DATE = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")
_THOUGHT = re.compile(r"<(\|?)([\w:]*(?:think|thought|reason)\w*)(\|?)>\s*$", re.IGNORECASE)
_MARK = "@@said@@"


def render_chat(tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]]) -> str:
    """Messages as chat text up to where the assistant's answer begins. UserError when the template refuses the roles. A tokenizer without
    a template gets `Question: ... Answer:` after its BOS token.

    Example:
        >>> render_chat(tokenizer, [{"role": "user", "content": "Hello"}])  # doctest: +SKIP
        '<|im_start|>user\\nHello<|im_end|>\\n<|im_start|>assistant\\n'
    """
    if not getattr(tokenizer, "chat_template", None):
        parts = [m["content"] if m["role"] == "system" else f"Question: {m['content']}" for m in messages]
        return str(tokenizer.bos_token or "") + "\n\n".join([*parts, "Answer:"])
    try:
        text = _applied(tokenizer, messages, True)
    except TemplateError as error:
        roles = ", ".join(m["role"] for m in messages)
        raise UserError(f"the chat template of this model cannot hold the roles {roles}: {error}") from error
    return text + closing_thought(text)


def closing_thought(text: str) -> str:
    """What closes a thought that a text ends in the beginning of; empty for other texts."""
    opened = _THOUGHT.search(text)
    return f"\n</{opened[2]}>\n\n" if opened and not opened[1] else ""


def writes_date(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the template asks for today's date."""
    return "strftime_now" in _template(tokenizer)


def opens_thought(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether an answer would begin inside a thought."""
    try:
        return bool(_template(tokenizer)) and bool(closing_thought(_applied(tokenizer, [{"role": "user", "content": "Hello"}], True)))
    except TemplateError:
        return False


def reply_ends(tokenizer: PreTrainedTokenizerBase, configured: int | Iterable[int] | None = None) -> frozenset[int]:
    """Ids of the tokens that end a reply. configured: `eos_token_id` of the model's generation config."""
    listed = [configured] if isinstance(configured, int) else list(configured or ())
    return frozenset(i for i in (*listed, tokenizer.eos_token_id, _turn_end(tokenizer)) if i is not None)


def _turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The special token that the template puts after the assistant's words; None where there is none."""
    if not _template(tokenizer):
        return None
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": _MARK}]
    try:
        after = _applied(tokenizer, messages, False).rpartition(_MARK)[2]
    except TemplateError:
        return None
    ids = tokenizer(after.lstrip(), add_special_tokens=False)["input_ids"] if after.strip() else []
    special = {*tokenizer.all_special_ids, *getattr(tokenizer, "added_tokens_decoder", {})}
    return ids[0] if ids and ids[0] in special else None


def _applied(tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]], generation_prompt: bool) -> str:
    pinned = {"chat_template": _pinned(_template(tokenizer))} if writes_date(tokenizer) else {}
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=generation_prompt, **pinned))


def _pinned(template: str) -> str:
    """The template with the pinned date written in where it asks for today's. UserError where it asks in another way than by a format."""
    pinned = _DATE.sub(lambda call: repr(PINNED_DATE.strftime(call[2])), template)
    if re.search(r"strftime_now\s*\(", pinned):
        raise UserError("the chat template of this model writes today's date in a way that cannot be pinned: write a date into the template")
    return pinned


def _template(tokenizer: PreTrainedTokenizerBase) -> str:
    template = getattr(tokenizer, "chat_template", None)
    return template if isinstance(template, str) else ""
