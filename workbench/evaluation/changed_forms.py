"""Measure how much of a prompt's effect remains when its form changes but not its meaning.

Forms differ in punctuation, case, quotes, order of sentences, or slot (the place in the chat where the prompt
goes). Each form is measured by forced choice, against no prompt in the same slot. If the effect needs the
exact characters, the prompt is an adversarial string, whatever it says; a sentence that steers by its meaning
keeps most of its effect.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from workbench.contexts import make_contexts
from workbench.errors import UserError
from workbench.forced_choice import answer
from workbench.html_text import html_table, plain_table
from workbench.personas import Split
from workbench.slot_contexts import Slot
from workbench.statistics import cluster_interval

#: A prompt is brittle if its median form keeps less than this fraction of the effect.
_KEPT = 0.5


@dataclass(frozen=True, repr=False)
class PromptRobustness:
    """Effects of one prompt in several forms that mean the same, such as lower case or without punctuation.

    Attributes:
        rows: One row per form and slot (the place in the chat where the prompt goes). `effect` is the change
            in log-odds (nats) relative to no prompt in that slot, `low` and `high` are its 95 % interval over
            question groups, and `share` is the effect divided by that of the unchanged prompt.
        share_kept: Median of `share` over the changed forms in the first slot; nan if the prompt has no
            effect.
    """

    rows: pd.DataFrame
    share_kept: float

    @property
    def brittle(self) -> bool:
        """Whether the changed forms of the prompt keep, in the median, less than half of its effect."""
        return bool(self.share_kept < _KEPT)

    @property
    def _caption(self) -> str:
        kept = (
            "the prompt itself has no effect"
            if math.isnan(self.share_kept)
            else f"its other forms keep {100 * self.share_kept:.0f} % of its effect"
        )
        return f"{len(self.rows)} forms of a prompt: {kept} (median){', brittle' if self.brittle else ''}"

    def __repr__(self) -> str:
        return plain_table(self.rows, self._caption)

    def _repr_html_(self) -> str:
        return html_table(self.rows, self._caption)


def prompt_robustness(
    model: Any,
    split: Split,
    prompt: str,
    paraphrases: Sequence[str] = (),
    slots: Sequence[Slot] = ("system",),
    n: int | None = None,
) -> PromptRobustness:
    """Measure how much of a prompt's effect remains if its form changes but not its meaning.

    Changed forms are those of `prompt_forms` (such as lower case or no punctuation) and the given
    paraphrases. They are measured in the first slot; the unchanged prompt is measured in all slots.

    Args:
        model: A loaded model or its runner.
        split: The questions.
        prompt: Text of the prompt.
        paraphrases: Other texts with the same meaning.
        slots: Places in the chat where the prompt goes.
        n: Number of questions drawn from the split. None: all.

    Raises:
        UserError: The prompt has no words, or `slots` is empty.

    Example:
        >>> prompt_robustness(model, splits.test, "Be wary. Check every name.", ["Be careful and check each name."])  # doctest: +SKIP
    """
    if not slots:
        raise UserError("a prompt's robustness needs at least one slot to measure it in")
    forms = (
        {"as it is": prompt}
        | prompt_forms(prompt)
        | {f"paraphrase {i + 1}": text for i, text in enumerate(paraphrases)}
    )
    rows = []
    for slot in slots:
        contexts = make_contexts(model, split, slot, n=n)
        bare = answer(model, contexts).log_odds
        for form, text in forms.items() if slot == slots[0] else [("as it is", prompt)]:
            effects = answer(model, contexts, text).log_odds - bare
            interval = cluster_interval(effects, [context.item.group for context in contexts])
            rows.append(
                {
                    "form": form,
                    "prompt": text,
                    "slot": slot,
                    "effect": interval.estimate,
                    "low": interval.low,
                    "high": interval.high,
                }
            )
    table = pd.DataFrame(rows)
    whole = float(rows[0]["effect"])
    table["share"] = table["effect"] / whole if whole else np.nan
    others = table[(table["slot"] == slots[0]) & (table["form"] != "as it is")]
    return PromptRobustness(table, float(np.median(others["share"])) if len(others) else float("nan"))


def prompt_forms(prompt: str) -> dict[str, str]:
    """Return a prompt in changed forms that mean the same: other punctuation, case, quotes or sentence order.

    The result is a dictionary from the form's name to its text. Forms that equal the prompt are left out.

    Args:
        prompt: Text of the prompt.

    Raises:
        UserError: The prompt has no words.

    Example:
        >>> prompt_forms("Be calm. Check it.")["sentences in another order"]
        'Check it. Be calm.'
    """
    text = prompt.strip()
    if not re.search(r"\w", text):
        raise UserError("the prompt has no words: there is no other form of it to measure")
    sentences = re.split(r"(?<=[.!?])\s+", text)
    made = {
        "no stop at the end": text.rstrip(".!?"),
        "exclamation mark": text.rstrip(".!?") + "!",
        "no punctuation": re.sub(r"\s+", " ", re.sub(r"[^\w\s'\u2019-]", " ", text)).strip(),
        "lower case": text.lower(),
        "upper case": text.upper(),
        "in quotes": f'"{text}"',
        "sentences in another order": " ".join(sentences[::-1]),
    }
    return {name: form for name, form in made.items() if form != text}
