"""How a study asks, reads and chooses: correctly by default, or as the code of arXiv 2601.02896 does.

A published figure can only be reproduced under the protocol that produced it. Each field's first value is the
workbench's own. The other value keeps a defect that *defines* the published number; `departures` describes it
in words, and the run's report lists these. Mere computation errors (unmasked padding, a fluency term shifted
by one token, scores that are never recomputed) define no number and are not kept.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import BaseModel, ConfigDict

from workbench.personas import Persona, Splits

_DEPARTURES = {
    "template": "questions are asked as plain text, without the model's chat template",
    "letters": "the direction is read at the answer's closing bracket, the objective at the last token before the answer: two kinds of token",
    "orders": "each question is asked in its published order only: the direction keeps part of the letter, and a prompt that always gives one "
    "letter scores what that letter is worth",
    "split_by": "rows are dealt to the splits one by one, so that the same claim is trained on and tested, and intervals take rows for independent",
    "projection": "the raw projection is maximised, which grows with the length of the residual stream",
    "latents": "latents are those above the 99th percentile of the mean difference at the answer token, not those that hold on held-out groups",
    "search_behind": "prompts are optimised alone and judged after the question",
    "choose_on": "the five most fluent prompts of a search, the manual prompts and the steering strengths are tried on the test questions and the "
    "best is reported: its figure is too good",
}


class AskingProtocol(BaseModel):
    """How questions are asked, scored and split: correctly by default, or as in arXiv 2601.02896."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    template: Literal["chat", "none"] = "chat"
    """Use the model's chat template, or plain text (`Question: ... Answer:`)."""
    letters: Literal["letter", "bracketed"] = "letter"
    """Score the letter `A`, or `A)` with its bracket."""
    orders: Literal["both", "original"] = "both"
    """Ask each question in both option orders, or in the published one."""
    split_by: Literal["group", "row"] = "group"
    """Assign whole question groups to the splits, or single rows."""
    projection: Literal["z", "raw"] = "z"
    """Maximise the projection in standard deviations over neutral prompts, or the raw one."""
    latents: Literal["effect", "percentile"] = "effect"
    """Use latents with a held-out effect, or those above the 99th percentile of the mean difference."""
    search_behind: Literal["questions", "nothing"] = "questions"
    """Score prompts together with the search questions, or alone."""
    choose_on: Literal["selection", "test"] = "selection"
    """Split on which prompts and steering strengths are chosen."""

    @property
    def departures(self) -> tuple[str, ...]:
        """One line for each setting that follows the published study (arXiv 2601.02896) in a known defect."""
        default = type(self)()
        return tuple(
            f"as published: {text}"
            for name, text in _DEPARTURES.items()
            if getattr(self, name) != getattr(default, name)
        )

    def persona(self, persona: Persona) -> Persona:
        """Return the persona with option letters and question groups as this protocol requires.

        The protocol may score `A)` instead of `A`, and treat every question as its own group.

        Args:
            persona: The persona.
        """
        if self.letters == "bracketed" and persona.letters is not None:
            a, b = persona.letters.letters
            persona = replace(persona, letters=replace(persona.letters, letters=(f"{a})", f"{b})")))
        if self.split_by == "row":
            persona = replace(persona, items=tuple(replace(item, group=item.id) for item in persona.items))
        return persona

    def splits(self, splits: Splits) -> Splits:
        """Return the splits of the questions as this protocol requires.

        The corrected protocol leaves them unchanged. A protocol that chooses prompts on test questions, as
        the published one does, gets the test questions as its selection split.

        Args:
            splits: The train, search, selection and test split.
        """
        return (
            splits
            if self.choose_on == "selection"
            else replace(splits, selection=replace(splits.test, name="selection"))
        )


#: The protocol of the paper's code, for questions answered by letter and searches over training questions.
PUBLISHED = AskingProtocol(
    template="none",
    letters="bracketed",
    orders="original",
    split_by="row",
    projection="raw",
    latents="percentile",
    choose_on="test",
)
