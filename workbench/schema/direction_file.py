"""Model of direction.json: the chosen direction, the scan over layers and methods, and the test prompts."""

from __future__ import annotations

from pydantic import Field

from workbench.schema.run_file import Entry, Number, RunFile


class LayerEntry(Entry):
    """One layer and method of the scan for a direction.

    Attributes:
        layer: Block index, from 0.
        method: Name of the method.
        fitted_at: Token position whose activations the direction was fitted to.
        predicts: Rank correlation of the direction's readings with the effects of prompts.
        predicts_low: Lower end of its interval.
        predicts_high: Upper end of its interval.
        auc: How well the direction separates the two answers (AUC).
        auc_choice: How well it separates the model's two choices (AUC).
        norm: Norm of the direction, in units of the residual stream.
        angle_low: Lower end of the angle to bootstrap replicates, degrees.
        angle_high: Upper end of that angle, degrees.
        split_cosine: Cosine between the directions fitted to two random halves of the question groups.
        letter_cosine: Cosine with the direction of the option letter, a confound.
        length_correlation: Spearman correlation of the readings with the number of tokens.
        p_association: One-sided p-value of the rank correlation of readings and effects under permuted
            effects; corrected for the number of sites.
        p_labels: One-sided p-value of their covariance when the signs of the question groups are drawn at
            random; corrected for the number of sites.
        passes: Whether the site met every requirement.
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
    """A system text with its effect on the answer, used to test a direction.

    Attributes:
        text: The text.
        effect: Its effect on the answer's log-odds, nats.
        reading: Reading of the direction under the text.
    """

    text: str
    effect: Number = None
    reading: Number = None


class DirectionFile(RunFile):
    """The file direction.json: the chosen direction and how it was chosen.

    Attributes:
        site: Hook name of the direction's site.
        position: Token position at which it is read.
        method: Method that fitted it.
        norm: Its norm, in units of the residual stream.
        auc: How well it separates the two answers (AUC).
        predicts: Rank correlation of its readings with the effects of prompts.
        source: Where the direction comes from.
        shown: Whether any site passed all tests; None if it was not tested.
        verdict: The result in words.
        table: One entry per layer and method.
        effects: The prompts with their effects and readings.
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
