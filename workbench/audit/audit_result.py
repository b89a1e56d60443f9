"""What an audit gives back: a value, whose pictures and files are made by `audit_html` and `audit_json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from workbench.attribution import MediationResult
from workbench.audit.added_sentence import AddedSentence
from workbench.audit.minimal_edit import MinimalEdit
from workbench.audit.prompt_words import PromptWords
from workbench.audit.word_effects import PromptEffects
from workbench.contexts import Slot
from workbench.html_text import plain_table
from workbench.personas import Sign

Need = Literal["edit", "none", "helps", "unclear"]


@dataclass(frozen=True, repr=False)
class Audit:
    """The result of an audit.

    Attributes:
        prompt: What was audited.
        persona: Name of the persona.
        model: Name of the model.
        sign: What is wanted of the persona.
        slot: Where the prompt was put.
        tolerance: Log-odds within which an effect counts as none.
        max_edits: Words that could be edited.
        seed: Of the draws.
        questions: Number of test contexts.
        groups: Number of their question groups.
        words: The prompt, cut into words.
        effects: Of the whole prompt and of each word, on test questions.
        need: "edit": the prompt moves the persona the unwanted way on selection questions; "none": its effect
            is shown to be within +-tolerance; "helps": it moves it the wanted way; "unclear": the interval
            holds zero but is too wide for "none".
        minimal_edit: None unless needed and found.
        mediation: What of the whole effect goes through the direction and the latents.
        notes: What a reader must know, one line each.
        sentence: A sentence to add after the prompt; None unless `offer_sentence` was called and one was
            needed.

    Example:
        >>> found = wb.audit(model, "be blunt", persona, max_edits=0, questions=4, others=())
        >>> len(found.table)      # one row per word
        2
    """

    prompt: str
    persona: str
    model: str
    sign: Sign
    slot: Slot
    tolerance: float
    max_edits: int
    seed: int
    questions: int
    groups: int
    words: PromptWords
    effects: PromptEffects
    need: Need
    minimal_edit: MinimalEdit | None
    mediation: tuple[MediationResult, ...]
    notes: tuple[str, ...]
    sentence: AddedSentence | None = None

    @property
    def named(self) -> tuple[str, ...]:
        """The words that have an effect, the strongest first, as they are in the prompt."""
        return tuple(self.effects.words[i].word for i in self.effects.named)

    @property
    def table(self) -> pd.DataFrame:
        """One row per word.

        Word, effect (log-odds, plus = more of the persona), low, high, p (Holm), named, then what it does to
        each direction and latent.
        """
        rows = []
        for word in self.effects.words:
            row = {
                "word": word.word,
                "effect": word.interval.estimate,
                "low": word.interval.low,
                "high": word.interval.high,
            }
            rows.append(
                row | {"p": word.p, "named": word.named} | {t.name: t.interval.estimate for t in word.through}
            )
        return pd.DataFrame(rows)

    def to_json(self) -> dict[str, Any]:
        """Plain values: schema, what was asked, whole, words, phrases, minimal_edit, mediation, notes."""
        from workbench.audit.audit_json import to_json

        return to_json(self)

    def save_html(self, path: Any) -> None:
        """One self-contained page that opens without a network; written whole or not at all."""
        from workbench.audit.audit_html import write_page

        write_page(self, path)

    def __repr__(self) -> str:
        from workbench.audit import findings_text as said

        sentences = (
            said.whole(self),
            said.causes(self),
            *said.phrases(self),
            said.minimal_edit_sentence(self),
        )
        return plain_table(self.table, "\n".join(filter(None, sentences)))

    def _repr_html_(self) -> str:
        from workbench.audit.audit_html import notebook_html

        return notebook_html(self)
