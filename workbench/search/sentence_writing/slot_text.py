"""Convert texts in one slot to tokens and back, and test which of them may be a prompt."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor

from workbench.contexts import Contexts
from workbench.models import Runner
from workbench.models.token_text import token_ids, token_texts
from workbench.prompt_tokens import all_survive
from workbench.search.sentence_writing.sentence_form import SentenceForm

Prompt = tuple[int, ...]


@dataclass(frozen=True)
class SlotText:
    """Converts prompts between text and token ids at the slot, the place in a chat for the prompt.

    Attributes:
        runner: The model's runner.
        contexts: The search's questions, rendered as chats with that place.
        allowed: Tokens that may be in a prompt, bool [d_vocab].
        form: Rules for whole sentences.
        length: Largest number of tokens of a prompt.
    """

    runner: Runner
    contexts: Contexts
    allowed: Bool[Tensor, " d_vocab"]
    form: SentenceForm
    length: int

    def encode(self, text: str, inner: bool = False) -> Prompt:
        """Encode a text to the token ids that it has inside the chat, at the prompt's place.

        Args:
            text: The text.
            inner: Whether the text comes after the prompt's first words (and not at its beginning).
        """
        lead = "" if inner else self.contexts[0].lead
        return tuple(token_ids(self.runner.tokenizer, [lead + text])[0])

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of a prompt's token ids, without spaces around it."""
        return token_texts(self.runner.tokenizer, [ids])[0].strip()

    def may_be_used(self, ids: Prompt) -> bool:
        """Whether a prompt has only allowed tokens and at most `length` of them."""
        return len(ids) <= self.length and bool(self.allowed[list(ids)].all())

    def survivors(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Return the prompts that keep their token ids inside the chat of every question.

        The chat with the prompt is decoded and encoded again for this test.

        Args:
            prompts: Token ids of each prompt.
        """
        alive = all_survive(self.runner, self.contexts, prompts) if prompts else []
        return [ids for ids, ok in zip(prompts, alive, strict=True) if ok]

    def admitted(self, prompts: Sequence[Prompt], seen: Container[Prompt]) -> list[Prompt]:
        """Return the prompts that are new, are whole sentences, and keep their token ids inside the chat.

        Each is returned once, with the token ids that the tokenizer gives for its text. Prompts that are too
        long or have tokens that are not allowed are left out.

        Args:
            prompts: Token ids of the prompts.
            seen: Token ids of prompts that do not count as new.
        """
        texts = dict.fromkeys(self.text(ids) for ids in prompts)
        again = dict.fromkeys(self.encode(text) for text in texts if self.form.accepts(text))
        return self.survivors([ids for ids in again if ids not in seen and self.may_be_used(ids)])
