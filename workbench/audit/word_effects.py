"""Effects of each word of a prompt on the answer and on quantities inside the model.

1. A coalition is a set of words. Its worth is the mean log-odds of the persona's answer with the text of
   these words in the slot.
2. A word's effect is its Shapley value (attribution/shapley_values.py, on words instead of tokens): its
   contribution, averaged over orders in which the words are added. Leaving one word out would miss redundant
   words ("always agree, and agree with everything"). Prompts of more than `EXACT_ORDERS` words would cost too
   much, so there the effect is that of leaving the word out.
3. The interval is over questions, clustered by group, and widened by the error of sampling orders. p is from
   sign flips of groups, corrected over the words by Holm's method.
4. A word is *named* as a cause if p is below 0.05, the interval excludes zero, and the effect is at least
   `least` log-odds. The last criterion is needed because a deterministic model reacts slightly to every word.
5. Interactions of neighbouring words are in phrase_interactions.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from workbench.attribution import (
    AttributionProblem,
    AttributionTargets,
    EffectEstimate,
    ShapleyValues,
    TokenRemoval,
)
from workbench.attribution.attribution_problem import Ids
from workbench.audit.phrase_interactions import ALPHA, PhraseInteraction, phrases
from workbench.audit.prompt_words import PromptWords
from workbench.audit.sampled_intervals import sampled_interval
from workbench.audit.shared_prefix import shared_prefix_scores, shares
from workbench.contexts import Contexts
from workbench.models import Runner
from workbench.prompt_tokens import encode_prompt
from workbench.statistics import (
    Interval,
    PairedDifference,
    cluster_interval,
    holm,
    paired_rate_difference,
    sign_flip_p,
)

#: Largest number of words for which Shapley values are computed; longer prompts use removal.
EXACT_ORDERS = 32


@dataclass(frozen=True)
class MediatedEffect:
    """Effect of a word of a prompt on a projection on a direction or on a latent's activation.

    Attributes:
        name: Name of the direction or latent.
        kind: Kind of the target: "direction", "latent" or "objective".
        interval: The effect with its 95 % interval over questions, in the unit of the quantity.
    """

    name: str
    kind: str
    interval: Interval

    @property
    def clear(self) -> bool:
        """Whether the interval of the effect excludes zero."""
        return self.interval.low > 0 or self.interval.high < 0


@dataclass(frozen=True)
class WordEffect:
    """Effect of one word of a prompt on the persona and on quantities inside the model.

    Attributes:
        word: The word as in the prompt.
        interval: Effect on the answer in log-odds; positive means more of the persona.
        p: P-value, corrected over the words by Holm's method.
        named: Whether the effect is large and significant enough to call the word a cause.
        through: Effects of the word on directions and latents.
    """

    word: str
    interval: Interval
    p: float
    named: bool
    through: tuple[MediatedEffect, ...]


@dataclass(frozen=True)
class PromptEffects:
    """Effects of a whole prompt and of its words on the log-odds of the answer that shows the persona.

    Attributes:
        whole: Effect of the prompt against no prompt.
        slot: Effect of an empty message in the prompt's place against no message, which is due to the chat
            template alone; None for long prompts.
        words: Effects of the words, in the prompt's order.
        phrases: Neighbouring words that interact.
        estimator: How words' effects were estimated: "shapley", or "removal" for long prompts.
        before: Fraction of questions that are answered with the persona's answer without a prompt.
        after: The same fraction with the prompt.
        rate: Difference after - before, paired by question, with its interval.
    """

    whole: Interval
    slot: Interval | None
    words: tuple[WordEffect, ...]
    phrases: tuple[PhraseInteraction, ...]
    estimator: str
    before: float | None = None
    after: float | None = None
    rate: PairedDifference | None = None

    @property
    def named(self) -> tuple[int, ...]:
        """Indices of the words that are shown to be causes of the effect, strongest effect first."""
        found = [i for i, word in enumerate(self.words) if word.named]
        return tuple(sorted(found, key=lambda i: -abs(self.words[i].interval.estimate)))


@dataclass(frozen=True)
class WordProblem(AttributionProblem):
    """An attribution problem whose positions are words instead of tokens.

    A prompt is given as a tuple of word indices and is scored as the text of these words. The answer's
    log-odds are the first target.

    Attributes:
        words: The words of the whole prompt.
    """

    words: PromptWords = PromptWords(())  # noqa: RUF009 (frozen)

    @classmethod
    def of(
        cls,
        runner: Runner,
        words: PromptWords,
        contexts: Contexts,
        targets: AttributionTargets,
        seed: int = 0,
    ) -> WordProblem:
        """Build the attribution problem of a whole prompt, cut into words.

        Args:
            runner: The model.
            words: The words of the prompt.
            contexts: Questions in their chat template.
            targets: Quantities to measure, the answer's log-odds first.
            seed: Seed of estimators that sample.
        """
        return cls(runner, tuple(range(len(words))), contexts, targets, seed, words=words)

    @cached_property
    def plain(self) -> AttributionProblem:
        """The same attribution problem with the prompt as token ids instead of word indices."""
        ids = encode_prompt(self.runner, self.contexts, self.words.only(self.prompt))
        return AttributionProblem(self.runner, ids, self.contexts, self.targets, self.seed, self.batch_tokens)

    def scores(self, prompts: Sequence[tuple[int, ...] | None]) -> Float[np.ndarray, "prompt context target"]:
        """Score prompts that consist of some of the words.

        Args:
            prompts: Indices of the words of each prompt. An empty set leaves the prompt's place empty; None
                means the question without a prompt.

        Returns:
            Score of each target for each prompt and question, in the target's unit.
        """
        return self.of_ids([self._ids(chosen) for chosen in prompts])

    def of_ids(self, prompts: Sequence[Ids | None]) -> Float[np.ndarray, "prompt context target"]:
        """Score prompts that are given as token ids.

        Args:
            prompts: Token ids of each prompt; None means the question without a prompt.
        """
        return (
            shared_prefix_scores(self.plain, prompts) if shares(self.contexts) else self.plain.scores(prompts)
        )

    def _ids(self, chosen: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if not chosen:
            return chosen
        whole = self._whole(self.words.only(set(chosen)))
        return tuple(whole[len(self.contexts[0].prefix_ids) : len(whole) - self._tokens_after])

    def _whole(self, text: str) -> list[int]:
        return self.runner.encode(self.contexts[0].around(text))

    @cached_property
    def _tokens_after(self) -> int:
        """Number of tokens after the slot in the first context."""
        return (
            len(self._whole(self.words.only(self.prompt)))
            - len(self.contexts[0].prefix_ids)
            - len(self.plain.prompt)
        )


def word_effects(problem: WordProblem, least: float, orders: int = 4) -> PromptEffects:
    """Measure how much a prompt and each of its words change the answers to the problem's questions.

    Args:
        problem: The prompt as words, with questions and targets.
        least: Smallest effect, in log-odds, with which a word is called a cause.
        orders: Number of random orders of the words for Shapley values; the reverse of each is used as well.

    Returns:
        The effects, with interactions of neighbouring words.
    """
    short = len(problem.words) <= EXACT_ORDERS
    estimator = ShapleyValues(pairs=orders) if short else TokenRemoval()
    estimate = estimator.estimate(problem)
    groups = problem.contexts.groups
    whole = cluster_interval((problem.with_prompt - problem.without_prompt)[:, 0], groups)
    slot = (
        cluster_interval((problem.scores([()])[0] - problem.without_prompt)[:, 0], groups) if short else None
    )
    p = holm([sign_flip_p(estimate.values[:, i, 0], groups, problem.seed) for i in range(len(problem.words))])
    words = tuple(_effect(problem, estimate, i, p[i], least) for i in range(len(problem.words)))
    named = {i for i, word in enumerate(words) if word.named}
    found = phrases(problem, named, least, orders, sampled=short)
    after, before = problem.with_prompt[:, 0] > 0, problem.without_prompt[:, 0] > 0
    rate = paired_rate_difference(after, before, groups, seed=problem.seed)
    return PromptEffects(
        whole, slot, words, found, estimator.name, float(before.mean()), float(after.mean()), rate
    )


def _effect(problem: WordProblem, estimate: EffectEstimate, i: int, p: float, least: float) -> WordEffect:
    error = estimate.sampling_error
    intervals = [
        sampled_interval(
            estimate.values[:, i, t], problem.contexts.groups, None if error is None else float(error[i, t])
        )
        for t in range(len(problem.targets.items))
    ]
    own, others = intervals[0], zip(problem.targets.items[1:], intervals[1:], strict=True)
    named = p < ALPHA and abs(own.estimate) >= least and not own.low <= 0 <= own.high
    through = tuple(MediatedEffect(target.name, target.kind, interval) for target, interval in others)
    return WordEffect(problem.words.texts[i], own, p, named, through)
