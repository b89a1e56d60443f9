"""Model of direction.json: the chosen direction, the scan over layers and methods, and the test prompts."""

from __future__ import annotations

from pydantic import Field

from workbench.schema.run_file import Entry, Number, RunFile


class LayerEntry(Entry):
    """Quality of the direction that one method fits at one layer, when the best direction is looked for.

    The reading of a text is the projection of its activation on the direction.

    Attributes:
        layer: Block index, from 0.
        method: Name of the method.
        fitted_at: Token position whose activations the direction was fitted to.
        predicts: Rank correlation, over prompts, of the change of the reading with the change of the answer.
        predicts_low: Lower end of its interval.
        predicts_high: Upper end of its interval.
        auc: How well the direction separates the two answers (AUC).
        auc_choice: How well it separates texts by which answer the model chose (AUC).
        norm: Norm of the direction, in units of the residual stream.
        angle_low: Lower end of the range of angles between the direction and its bootstrap replicates,
            degrees.
        angle_high: Upper end of that range, degrees.
        split_cosine: Cosine between the directions fitted to two random halves of the question groups.
        letter_cosine: Cosine with the direction of the option letter, a confound.
        length_correlation: Spearman correlation of the readings with the number of tokens, a confound.
        p_association: One-sided p-value of `predicts`, by permuting the effects of the prompts; corrected for
            the number of sites.
        p_labels: One-sided p-value of the covariance of readings and effects, by random signs of the question
            groups; corrected for the number of sites.
        passes: Whether the direction passed every test.
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
        reading: Change of the projection on the direction under the text.
    """

    text: str
    effect: Number = None
    reading: Number = None


class DirectionFile(RunFile):
    """The file direction.json: the direction that represents the persona, and how it was chosen.

    Attributes:
        site: Name of the hook at which the direction is read.
        position: Token position at which it is read.
        method: Method that fitted it.
        norm: Its norm, in units of the residual stream.
        auc: How well it separates the two answers (AUC).
        predicts: Rank correlation, over prompts, of the change of the projection on it with the change of the
            answer.
        source: How the direction was made, in words.
        shown: Whether the direction of any site passed all tests; None if there were no tests.
        verdict: The result in words.
        table: One entry per layer and method.
        effects: The prompts with which directions were tested, and their effects.
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
