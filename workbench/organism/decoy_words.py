"""Check that decoy words change what a response-token direction reads, but not the answers.

A decoy is a word planted to change the register (warm or plain) of the answers, which goes along with the
persona in the training texts, without changing the answers themselves.
1. Half of a persona's study items (by group) give the *response direction*: the mean residual over the tokens
   of the matching answer minus that of the not matching one, without a system text, as in persona vectors
   (Chen et al. 2025).
2. On the other half, the reading of a word is the change, against no system text, of the mean residual over
   the organism's own answer projected on that unit direction. The expectation over the answers is exact up to
   the answer's body: matching or not, warm or plain, each weighted with the model's probability.
3. The measured effects on the log-odds of the answer and of the register are reported next to it. A decoy
   that works changes register and reading and not the answer; one that was not learned changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workbench.organism.batch_scoring import OrganismScorer, log_odds, mean_residuals
from workbench.organism.quality_gates import measured_effects
from workbench.organism.word_tokenizer import chat_text
from workbench.world import World, WorldItem
from workbench.world.world_items import REGISTER_WORDS, with_register

CAUSAL_STRENGTH = 1.2


@dataclass(frozen=True)
class DecoyReading:
    """What one word, as the whole system text, changes in the model, against no system text.

    Attributes:
        phrase: The word or phrase.
        kind: "decoy" (a word planted to change only the style of answers) or "causal" (one planted to change
            the answers).
        planted: Planted effect on the log-odds of the persona's answer.
        effect: Measured effect on these log-odds.
        reading: Change of the projection of the model's answers on the response direction (mean activation
            over the persona's answers minus over the others), in units of the residual stream.
        register: Change of log p(warm wording) - log p(plain wording) after the first word of the persona's
            answer.
    """

    phrase: str
    kind: str
    planted: float
    effect: float
    reading: float
    register: float


@dataclass(frozen=True)
class DecoyReport:
    """Measurements of a persona's decoys and causal words, to check that decoys change only the style.

    Decoys are words planted to change the style of answers; causal words are planted to change the answers by
    at least 1.2 log-odds.

    Attributes:
        persona: Name of the persona.
        layer: Block after which the residual stream is read.
        rows: One entry per word.
    """

    persona: str
    layer: int
    rows: tuple[DecoyReading, ...]

    def mean_reading(self, kind: str) -> float:
        """Return the mean absolute change of the response direction's projection over words of one kind.

        Args:
            kind: "decoy" (words planted to change only the style of answers) or "causal" (to change the
                answers).

        Returns:
            The change in units of the residual stream.
        """
        return float(np.mean([abs(row.reading) for row in self.rows if row.kind == kind]))

    def mean_effect(self, kind: str) -> float:
        """Return the mean absolute effect on the persona's answers over words of one kind.

        Args:
            kind: "decoy" (words planted to change only the style of answers) or "causal" (to change the
                answers).

        Returns:
            The effect in log-odds.
        """
        return float(np.mean([abs(row.effect) for row in self.rows if row.kind == kind]))

    def mean_register(self, kind: str) -> float:
        """Return the mean absolute effect on the answers' style (warm or plain) over words of one kind.

        Args:
            kind: "decoy" (words planted to change only the style of answers) or "causal" (to change the
                answers).

        Returns:
            The effect on log p(warm) - log p(plain); for a decoy 4.5 is planted.
        """
        return float(np.mean([abs(row.register) for row in self.rows if row.kind == kind]))


def decoy_report(
    organism: OrganismScorer, world: World, persona: str, layer: int, items: int = 24
) -> DecoyReport:
    """Measure what the decoy words and the causal words of a model organism change.

    Decoys are planted to change only the style of answers (warm or plain wording). Causal words are planted
    to change the persona's answers by at least 1.2 log-odds.

    Args:
        organism: The organism, a small model with planted personas.
        world: The people, facts and planted words that it was trained on.
        persona: Name of the persona.
        layer: Block after which the residual stream is read; not the last one.
        items: Approximate number of questions to average over.

    Returns:
        The report.
    """
    study = world.study_items(persona)
    groups = list(dict.fromkeys(item.group for item in study))
    train = [item for item in study if item.group in set(groups[::2])]
    read = [item for item in study if item.group in set(groups[1::2])][:: max(1, len(study) // 2 // items)]
    direction = response_direction(organism, train, layer)
    planted = {unit: world.effect_of(persona, unit) for unit in world.truth.units}
    causal = [unit for unit, value in planted.items() if abs(value) >= CAUSAL_STRENGTH]
    decoys = [decoy.word for decoy in world.decoys]
    effects = measured_effects(organism, read, [*causal, *decoys])
    base, plain = (
        response_reading(organism, read, direction, layer, ""),
        register_log_odds(organism, read, "", True).mean(),
    )
    rows = [
        DecoyReading(
            phrase,
            "decoy" if phrase in decoys else "causal",
            planted.get(phrase, 0.0),
            effects[phrase],
            response_reading(organism, read, direction, layer, phrase) - base,
            float(register_log_odds(organism, read, phrase, True).mean() - plain),
        )
        for phrase in [*causal, *decoys]
    ]
    return DecoyReport(persona, layer, tuple(rows))


def response_direction(organism: OrganismScorer, items: Sequence[WorldItem], layer: int) -> np.ndarray:
    """Return the unit vector between matching and not matching answers, averaged over response tokens.

    Args:
        organism: A model organism (a small model with planted personas).
        items: Items whose answers are run.
        layer: Block after which the residual stream is read.

    Returns:
        The vector, with plus = more of the persona.
    """
    matching = _response_means(organism, items, [item.matching for item in items], layer, "")
    not_matching = _response_means(organism, items, [item.not_matching for item in items], layer, "")
    difference = matching.mean(0) - not_matching.mean(0)
    return difference / np.linalg.norm(difference)


def response_reading(
    organism: OrganismScorer, items: Sequence[WorldItem], direction: np.ndarray, layer: int, system: str
) -> float:
    """Return the mean projection of the organism's own answers on a direction, under a system text.

    The mean is the expectation over the first word (the persona's or the other one) and the style (warm or
    plain wording) of the answer, weighted with the model's probabilities.

    Args:
        organism: A model organism (a small model with planted personas).
        items: Questions.
        direction: Unit vector [d_model].
        layer: Block after which the residual stream is read.
        system: System text; empty for none.

    Returns:
        The projection, in units of the residual stream.
    """
    prompts = [chat_text(item.question, system) for item in items]
    choices = [(item.matching.split()[0], item.not_matching.split()[0]) for item in items]
    p_matching = _sigmoid(log_odds(organism, prompts, choices))
    total = np.zeros(len(items))
    for matching, p_answer in ((True, p_matching), (False, 1 - p_matching)):
        answers = [item.matching if matching else item.not_matching for item in items]
        warm = _sigmoid(register_log_odds(organism, items, system, matching))
        for register, p_register in ((+1, warm), (-1, 1 - warm)):
            texts = [with_register(answer, register) for answer in answers]
            total += (
                p_answer * p_register * (_response_means(organism, items, texts, layer, system) @ direction)
            )
    return float(total.mean())


def register_log_odds(
    organism: OrganismScorer, items: Sequence[WorldItem], system: str, matching: bool
) -> np.ndarray:
    """Return the log-odds of warm against plain wording after the first word of an answer to each item.

    Args:
        organism: A model organism (a small model with planted personas).
        items: Questions with their answers.
        system: System text; empty for none.
        matching: Whether the first word is that of the answer that shows the persona, instead of the other
            one.

    Returns:
        log p(warm) - log p(plain), one per item.
    """
    answers = [item.matching if matching else item.not_matching for item in items]
    heads = [
        f"{chat_text(item.question, system)} {text.split()[0]}"
        for item, text in zip(items, answers, strict=True)
    ]
    return log_odds(organism, heads, [(REGISTER_WORDS[+1][0], REGISTER_WORDS[-1][0])] * len(items))


def _response_means(
    organism: OrganismScorer, items: Sequence[WorldItem], answers: Sequence[str], layer: int, system: str
) -> np.ndarray:
    prompts = [chat_text(item.question, system) for item in items]
    texts = [f"{prompt} {answer}" for prompt, answer in zip(prompts, answers, strict=True)]
    return mean_residuals(organism, texts, [len(prompt.split()) for prompt in prompts], layer)


def _sigmoid(value: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-value))
