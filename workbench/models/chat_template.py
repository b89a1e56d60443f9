"""A chat template as the workbench uses it: checked, today's date pinned, an open thought closed, and the tokens that end a reply.

1. A template that writes today's date (`strftime_now`) gives other log-odds every day: the date is pinned to
   PINNED_DATE, the day that Llama 3.1's own template falls back to.
2. A template that opens a thought at the end of the generation prompt would have the choice read inside the
   thought: the thought is closed, empty, as Qwen 3's template does with `enable_thinking=False`. Where nobody
   knows how it is closed, it is refused.
3. A template that leaves out what the messages say is refused; one that does not end, or writes without end,
   too (`template_limits`).
4. A reply ends at the tokenizer's end of sequence, at those of generation_config.json (as Hugging Face's
   generate does), and at the token that the template puts after what the assistant said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils import chat_template_utils

from workbench.errors import UserError
from workbench.models.template_limits import TemplateLimit, limited_range, refuse_chance, rendered_within

PINNED_DATE = date(2024, 7, 26)
_NAME = r"[\w:]*(?:think|thought|reason)\w*"
#: How a thought begins, and what closes it; the first pattern that fits the text after the last message is
#: taken.
_THOUGHTS: tuple[tuple[str, str], ...] = (
    (r"<\|begin_of_(thought|thinking)\|>", "<|end_of_{0}|>"),
    (r"<\|START_(THINKING)\|>", "<|END_{0}|>"),
    (rf"<({_NAME})>", "</{0}>"),
    (r"\[(THINK)\]", "[/{0}]"),
    ("\u25c1(think)\u25b7", "\u25c1/{0}\u25b7"),
    (r"<\|channel\|>analysis<\|message\|>()", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    (rf"<\|({_NAME})\|>", ""),
)
_MARK = "@@said@@"
#: What a template raises that uses what the messages, Python or the machine does not have.
_BROKEN = (
    TemplateError,
    TypeError,
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    ArithmeticError,
    RecursionError,
    MemoryError,
)


def render_chat(tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]]) -> str:
    r"""Messages as chat text up to where the assistant's answer begins.

    UserError when the template refuses the roles. A tokenizer without a template gets `Question: ... Answer:`
    after its BOS token.

    Example:
        >>> render_chat(tokenizer, [{"role": "user", "content": "Hello"}])  # doctest: +SKIP
        '<|im_start|>user\\nHello<|im_end|>\\n<|im_start|>assistant\\n'
    """
    if not getattr(tokenizer, "chat_template", None):
        parts = [m["content"] if m["role"] == "system" else f"Question: {m['content']}" for m in messages]
        return str(tokenizer.bos_token or "") + "\n\n".join([*parts, "Answer:"])
    text = _applied(tokenizer, messages, True)
    hidden = [m["role"] for m in messages if m["content"].strip() not in text]
    if hidden:
        raise UserError(
            f"the chat template of this model leaves out or changes what the message of the {hidden[0]} says"
        )
    last = messages[-1]["content"].strip() if messages else ""
    return text + closing_thought(text.rpartition(last)[2] if last else text)


def closing_thought(text: str) -> str:
    """What closes the thought that a text after the last message leaves open; empty for other texts.

    Raises:
        UserError: a thought is open that is closed in an unknown way.
    """
    for pattern, closing in _THOUGHTS:
        opened = list(re.finditer(pattern, text, re.IGNORECASE))
        if not opened:
            continue
        end = closing.format(opened[-1][1])
        if not end:
            raise UserError(
                f"the chat template of this model opens a thought ({opened[-1][0]}) that it does not say how to close"
            )
        if end in text[opened[-1].end() :]:
            return ""
        return end if end.startswith("<|end|>") else f"\n{end}\n\n"
    return ""


def writes_date(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the template uses today's date."""
    return "strftime_now" in _template(tokenizer)


def opens_thought(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether an answer would begin inside a thought."""
    try:
        after = _applied(tokenizer, [{"role": "user", "content": _MARK}], True).rpartition(_MARK)[2]
        return bool(_template(tokenizer)) and bool(closing_thought(after))
    except UserError:
        return False


def reply_ends(
    tokenizer: PreTrainedTokenizerBase, configured: int | Iterable[int] | None = None
) -> frozenset[int]:
    """Ids of the tokens that end a reply. configured: `eos_token_id` of the model's generation config."""
    listed = end_ids(configured)
    return frozenset(i for i in (*listed, tokenizer.eos_token_id, _turn_end(tokenizer)) if isinstance(i, int))


def end_ids(configured: Any) -> tuple[int, ...]:
    """The ids of a generation config's `eos_token_id`: a number, a list of them, or nothing. UserError for anything else."""
    listed = list(configured) if isinstance(configured, list | tuple | set | frozenset) else [configured]
    strange = [entry for entry in listed if entry is not None and type(entry) is not int]
    if strange:
        raise UserError(
            f"generation_config.json, field eos_token_id: expected ids of tokens, found {str(strange[0])[:60]!r}"
        )
    return tuple(entry for entry in listed if entry is not None and entry >= 0)


def _turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The special token that the template puts after the assistant's words; None where there is none."""
    if not _template(tokenizer):
        return None
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": _MARK}]
    try:
        after = _applied(tokenizer, messages, False).rpartition(_MARK)[2]
    except UserError:
        return None
    ids = tokenizer(after.lstrip(), add_special_tokens=False)["input_ids"] if after.strip() else []
    special = {*tokenizer.all_special_ids, *getattr(tokenizer, "added_tokens_decoder", {})}
    return ids[0] if ids and ids[0] in special else None


def _applied(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]], generation_prompt: bool
) -> str:
    """The template's text. UserError where the template refuses the messages, is broken, or goes on too long."""
    roles = ", ".join(m["role"] for m in messages)
    try:
        own = _with_limits(_template(tokenizer))
        text = rendered_within(
            lambda: tokenizer.apply_chat_template(
                list(messages), chat_template=own, tokenize=False, add_generation_prompt=generation_prompt
            )
        )
    except TemplateLimit as error:
        raise UserError(f"the chat template of this model {error}") from error
    except _BROKEN as error:
        problem = " ".join(str(error).split())[:200]
        raise UserError(
            f"the chat template of this model cannot hold the roles {roles}: {problem or type(error).__name__}"
        ) from error
    return str(text)


def _with_limits(template: str) -> str | None:
    """The template with the clock and random numbers replaced.

    A first line makes it another template for transformers' table of compiled templates, where the clock and
    the numbers that it is given are replaced. None for a tokenizer that chooses its template itself.
    """
    if not template:
        return None
    own = "{# pinned by the workbench #}\n" + template  # the line's end belongs to the comment (trim_blocks)
    compiled = chat_template_utils._compile_jinja_template(own)
    compiled.environment.globals.update(
        strftime_now=PINNED_DATE.strftime, range=limited_range(), lipsum=refuse_chance
    )
    compiled.environment.filters["random"] = refuse_chance
    return own


def _template(tokenizer: PreTrainedTokenizerBase) -> str:
    template = getattr(tokenizer, "chat_template", None)
    template = template.get("default") if isinstance(template, dict) else template
    return template if isinstance(template, str) else ""
