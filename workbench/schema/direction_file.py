"""direction.json: the chosen direction, the sweep over layers and methods, and the prompts that judged it."""

from __future__ import annotations

from pydantic import Field

from workbench.schema.run_file import Entry, Number, RunFile


class LayerEntry(Entry):
    """One layer and method of the sweep.

    predicts: rank correlation of its readings with prompts' effects; auc, auc_choice: how well it separates
    the two answers, and the model's two choices; angles in degrees. p_association, p_labels: of the two tests
    that a site must pass, corrected for the number of sites; passes: it met every requirement.
    """

    layer: int
    method: str = ""
    fitted_at: str = ""
    predicts: Number = None
    predicts_low: Number = None
    predicts_high: Number = None
    auc: Number = None
    auc_choice: Number = None
    norm: Number = None
    angle_low: Number = None
    angle_high: Number = None
    split_cosine: Number = None
    letter_cosine: Number = None
    length_correlation: Number = None
    p_association: Number = None
    p_labels: Number = None
    passes: bool | None = None


class PromptEffectEntry(Entry):
    """A varied system text: its effect on the answer's log-odds, and how the direction reads under it."""

    text: str
    effect: Number = None
    reading: Number = None


class DirectionFile(RunFile):
    """direction.json.

    site, position: where it was read; norm: in units of the residual stream. shown: whether any site passed
    (None: not tested); verdict: in words.
    """

    site: str = ""
    position: str = ""
    method: str = ""
    norm: Number = None
    auc: Number = None
    predicts: Number = None
    source: str = ""
    shown: bool | None = None
    verdict: str = ""
    table: list[LayerEntry] = Field(default_factory=list)
    effects: list[PromptEffectEntry] = Field(default_factory=list)
