"""Write a question and a prompt as a chat: which message the prompt is part of, and what separates it from the rest.

Before a question, or at the opening of the answer, the prompt ends its line. Some tokenizers (those of GPT-4,
Llama 3 and Qwen) make one token of a full stop and the line break after it. The tokens of a prompt that ends in
punctuation would then change in the chat. For these tokenizers there is a space before the line break.
"""

from __future__ import annotations

import weakref

from workbench.models import Runner
from workbench.slot_contexts import Slot

#: Ends of prompts whose last token must not change before the separator.
_ENDS = (".", "!", "?", ")", '"', ":", "word")
_SEPARATORS = ("\n", " \n", " ")
_FOUND: weakref.WeakKeyDictionary[Runner, str] = weakref.WeakKeyDictionary()


def separator(runner: Runner) -> str:
    r"""Return the white space that ends a prompt's line, such that no usual end of a prompt merges with it.

    It is a line break, or a space and a line break if the model's tokenizer makes one token of a full stop and
    the line break after it. If both merge with some end, it is the one that merges with the fewest.

    Args:
        runner: The model's runner, with its tokenizer.

    Example:
        >>> wb.prompted_chat.separator(runner)
        '\n'
    """
    if runner not in _FOUND:
        _FOUND[runner] = max(
            _SEPARATORS, key=lambda between: sum(_keeps(runner, end, between) for end in _ENDS)
        )
    return _FOUND[runner]


def _keeps(runner: Runner, end: str, between: str) -> bool:
    """Whether a prompt with this end has the same tokens at the beginning of a longer text."""
    alone, whole = (runner.encode(text) for text in (f"so {end}", f"so {end}{between}So"))
    return whole[: len(alone)] == alone


def render_with_prompt(runner: Runner, question: str, prompt: str, slot: Slot, opening: str = "") -> str:
    r"""Render a question with a prompt in the chat template, up to the beginning of the assistant's answer.

    Args:
        runner: The model's runner.
        question: Text of the user's message.
        prompt: Text of the prompt.
        slot: Where the prompt goes: "system", "before_question", "after_question" or "answer_opening".
        opening: First words of the assistant's answer; a prompt at the opening of the answer is before them.

    Returns:
        The text of the chat.

    Raises:
        UserError: The template has no system message, and the slot is "system".

    Example:
        >>> text = wb.prompted_chat.render_with_prompt(runner, "Is it so?", "Be honest.", "before_question")
        >>> "Be honest.\nIs it so?" in text
        True
    """
    user = {
        "before_question": f"{prompt}{separator(runner)}{question}",
        "after_question": f"{question}\n{prompt}",
    }.get(slot, question)
    system = [{"role": "system", "content": prompt}] if slot == "system" else []
    if slot == "answer_opening":
        opening = f"{prompt}{separator(runner)}{opening}"
    return runner.render([*system, {"role": "user", "content": user}], opening)
