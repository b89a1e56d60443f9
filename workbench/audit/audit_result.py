"""The result of an audit as a value. `audit_html` and `audit_json` make its pages and files."""

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
    """Result of an audit: which words of a prompt cause a persona, and an edit that removes the effect.

    Attributes:
        prompt: The audited prompt.
        persona: Name of the persona.
        model: Name of the model.
        sign: Intended effect on the persona: "suppress" or "induce".
        slot: Place of the prompt in the chat template, such as "system".
        tolerance: An effect within +-tolerance log-odds counts as none.
        max_edits: Largest number of words that could be edited.
        seed: Seed of all random draws.
        questions: Number of test questions.
        groups: Number of groups of related test questions, by which intervals are clustered.
        words: The prompt, cut into words.
        effects: Effects of the whole prompt and of each word, on test questions.
        need: Whether the prompt needs an edit, judged on selection questions (which are not test questions).
            "edit": the prompt moves the persona against the intended direction. "none": the effect is shown
            to be within +-tolerance. "helps": the prompt moves the persona in the intended direction.
            "unclear": the interval contains zero but is too wide for "none".
        minimal_edit: The smallest edit that removes the effect; None if none was needed or found.
        mediation: How much of the prompt's effect goes through the given direction and latents.
        notes: Warnings for the reader, one line each.
        sentence: A sentence that cancels the effect when added after the prompt; None unless `offer_sentence`
            found one.

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
        """Words of the prompt that are shown to cause the effect, as written, strongest effect first."""
        return tuple(self.effects.words[i].word for i in self.effects.named)

    @property
    def table(self) -> pd.DataFrame:
        """Table with one row per word of the prompt.

        Columns: word, effect (log-odds; positive means more of the persona), low and high (95 % interval), p
        (corrected over the words by Holm's method), named (whether the word is shown to be a cause), and one
        column for each direction and latent with the word's effect on it in its own unit.
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
        """Convert the audit to plain JSON values.

        The keys are: schema, the arguments of the audit, whole (effect of the prompt), words, phrases
        (interacting words), minimal_edit, sentence, mediation, notes.
        """
        from workbench.audit.audit_json import to_json

        return to_json(self)

    def save_html(self, path: Any) -> None:
        """Write the audit as one self-contained HTML page that opens without a network.

        Args:
            path: The file. It is written completely or not at all.
        """
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
