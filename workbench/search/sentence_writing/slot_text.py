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
    """Texts and tokens of prompts in one slot.

    Attributes:
        runner: The model's runner.
        contexts: Contexts of the search.
        allowed: Tokens that may be in a prompt, bool [d_vocab].
        form: Form of the sentences.
        length: Largest number of tokens of a prompt.
    """

    runner: Runner
    contexts: Contexts
    allowed: Bool[Tensor, " d_vocab"]
    form: SentenceForm
    length: int

    def encode(self, text: str, inner: bool = False) -> Prompt:
        """Encode a text to the tokens that it has in the slot.

        Args:
            text: The text.
            inner: Whether the text is inside a prompt and not at its beginning.
        """
        lead = "" if inner else self.contexts[0].lead
        return tuple(token_ids(self.runner.tokenizer, [lead + text])[0])

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of a prompt's tokens."""
        return token_texts(self.runner.tokenizer, [ids])[0].strip()

    def may_be_used(self, ids: Prompt) -> bool:
        """Whether a prompt has only allowed tokens and is not too long."""
        return len(ids) <= self.length and bool(self.allowed[list(ids)].all())

    def survivors(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Return the prompts that keep their token ids when every rendered context is decoded and encoded."""
        alive = all_survive(self.runner, self.contexts, prompts) if prompts else []
        return [ids for ids, ok in zip(prompts, alive, strict=True) if ok]

    def admitted(self, prompts: Sequence[Prompt], seen: Container[Prompt]) -> list[Prompt]:
        """Return the new prompts that are whole sentences and keep their token ids in every context.

        Each is returned once, in the tokens that the tokenizer gives for its text.

        Args:
            prompts: Candidate prompts.
            seen: Prompts that are not new.
        """
        texts = dict.fromkeys(self.text(ids) for ids in prompts)
        again = dict.fromkeys(self.encode(text) for text in texts if self.form.accepts(text))
        return self.survivors([ids for ids in again if ids not in seen and self.may_be_used(ids)])
