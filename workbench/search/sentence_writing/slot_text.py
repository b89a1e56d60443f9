"""Texts in one slot: their tokens there, and which of them may be a prompt."""

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
    """runner and contexts of the search; allowed: tokens that may be in a prompt; form: of its sentences; length: most tokens."""

    runner: Runner
    contexts: Contexts
    allowed: Bool[Tensor, " d_vocab"]
    form: SentenceForm
    length: int

    def encode(self, text: str, inner: bool = False) -> Prompt:
        """Tokens of a text at the slot's beginning, or (inner) inside a prompt."""
        lead = "" if inner else self.contexts[0].lead
        return tuple(token_ids(self.runner.tokenizer, [lead + text])[0])

    def text(self, ids: Sequence[int]) -> str:
        """The text of a prompt's tokens."""
        return token_texts(self.runner.tokenizer, [ids])[0].strip()

    def may_be_used(self, ids: Prompt) -> bool:
        """True where all tokens are allowed and the prompt is not too long."""
        return len(ids) <= self.length and bool(self.allowed[list(ids)].all())

    def survivors(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Prompts whose text gives their tokens back inside every rendered context."""
        alive = all_survive(self.runner, self.contexts, prompts) if prompts else []
        return [ids for ids, ok in zip(prompts, alive, strict=True) if ok]

    def admitted(self, prompts: Sequence[Prompt], seen: Container[Prompt]) -> list[Prompt]:
        """New prompts of the right form that survive in the slot, in the tokenizer's own spelling, each once."""
        texts = dict.fromkeys(self.text(ids) for ids in prompts)
        again = dict.fromkeys(self.encode(text) for text in texts if self.form.accepts(text))
        return self.survivors([ids for ids in again if ids not in seen and self.may_be_used(ids)])
