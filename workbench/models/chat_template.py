"""Render chat templates reproducibly, and find the tokens that end a reply.

1. A template that writes today's date (`strftime_now`) would give other log-odds every day: the date is
   pinned to PINNED_DATE, the day that Llama 3.1's own template falls back to.
2. A template that opens a thought at the end of the generation prompt would make the workbench read the
   answer inside the thought. The thought is closed, empty, as Qwen 3's template does with
   `enable_thinking=False`. If the closing tag is unknown, the template is refused.
3. A template that leaves out the text of a message is refused, and so is one that does not end or writes
   without end (`template_limits`).
4. Tokens that end a reply: the tokenizer's end of sequence, those of generation_config.json (as in Hugging
   Face's generate), and the token that the template puts after the assistant's text.
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
#: Patterns that begin a thought, each with its closing text (empty if unknown). The first pattern found in
#: the text after the last message is used.
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
#: Errors of a template that uses what the messages, Python or the machine does not have.
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
    r"""Render messages as chat text that ends where the assistant's answer begins.

    A tokenizer without a template gets `Question: ... Answer:` after its BOS token. If the template opens a
    reasoning block (such as `<think>`), the block is closed, so that the answer follows.

    Args:
        tokenizer: The model's tokenizer, with or without a chat template.
        messages: The chat so far; each message has `role` and `content`.

    Returns:
        The chat text, special tokens included.

    Raises:
        UserError: The template refuses the roles, changes the text of a message, or is broken.

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
    """Return the text that closes a reasoning block (such as `<think>`) left open in a chat text.

    The result is empty if none is open.

    Args:
        text: The chat text after the last message.

    Raises:
        UserError: A reasoning block is open and its closing tag is unknown.
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
    """Whether the tokenizer's chat template uses today's date (`strftime_now`)."""
    return "strftime_now" in _template(tokenizer)


def opens_thought(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template opens a reasoning block (such as `<think>`) before the answer."""
    try:
        after = _applied(tokenizer, [{"role": "user", "content": _MARK}], True).rpartition(_MARK)[2]
        return bool(_template(tokenizer)) and bool(closing_thought(after))
    except UserError:
        return False


def reply_ends(
    tokenizer: PreTrainedTokenizerBase, configured: int | Iterable[int] | None = None
) -> frozenset[int]:
    """Return the ids of the tokens that end a reply.

    They are the tokenizer's end of sequence, those of the generation config, and the chat template's end of
    turn.

    Args:
        tokenizer: The model's tokenizer.
        configured: `eos_token_id` of the model's generation config; None if it has none.
    """
    listed = end_ids(configured)
    return frozenset(i for i in (*listed, tokenizer.eos_token_id, _turn_end(tokenizer)) if isinstance(i, int))


def end_ids(configured: Any) -> tuple[int, ...]:
    """Return the token ids in a generation config's `eos_token_id` as a tuple.

    Args:
        configured: An id, a list of ids, or None.

    Raises:
        UserError: An entry is not an id.
    """
    listed = list(configured) if isinstance(configured, list | tuple | set | frozenset) else [configured]
    strange = [entry for entry in listed if entry is not None and type(entry) is not int]
    if strange:
        raise UserError(
            f"generation_config.json, field eos_token_id: expected ids of tokens, found {str(strange[0])[:60]!r}"
        )
    return tuple(entry for entry in listed if entry is not None and entry >= 0)


def _turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Id of the special token that the template puts after the assistant's text; None if there is none."""
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
    """Return the template's text. UserError if it refuses the messages, is broken, or exceeds a limit."""
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
    """Return the template with its clock pinned and its random numbers refused.

    A comment is added as first line, so that transformers compiles and caches it as another template; the
    functions are replaced in that compiled copy only. None if the tokenizer has no template of its own in
    this form.
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
