"""Predict sentence scores by a Gaussian process with additive word effects and a linear probe of residuals.

1. score(sentence) = mean + sum of its words' effects + probe . (mean residual of its tokens at half the
   model's depth) + noise.
2. Effects of two words have covariance 0.6 relu(cos of embeddings)^3 + 0.4 [same word], so that similar words
   share evidence. They also vary along the objective's gradient at the embeddings, whose slope is learned
   with the rest.
3. The three parts' variances and the noise are chosen on a small grid by the leave-one-out predictive density
   (Rasmussen & Williams 2006, 5.4.2), so that a part that predicts nothing is switched off.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

_WORDS, _PROBE, _SLOPE, _NOISE = (0.0, 0.3, 1.0), (0.0, 0.3, 1.0), (0.0, 0.1), (0.1, 0.3)
#: Grids without a probe. Words always have some prior variance, since a writer needs learned word effects.
_WORDS_ALONE, _SLOPE_ALONE = (0.1, 0.3, 1.0), (0.0, 0.02, 0.1)


@dataclass(frozen=True)
class CandidateWords:
    """The words that a search over sentences may insert, each identified by its first token.

    Attributes:
        tokens: Token id of each word.
        vectors: Unit vectors of the words' embeddings.
        slope: The gain in objective that its gradient predicts for each word, standardised.
        row: For every token id of the vocabulary, its index among the words, or -1.
    """

    tokens: Int[Tensor, " word"]
    vectors: Float[Tensor, "word d_model"]
    slope: Float[Tensor, " word"]
    row: Int[Tensor, " d_vocab"]

    def of(self, ids: Sequence[int]) -> list[int]:
        """Return the indices of the candidate words that occur in a prompt, each once.

        Args:
            ids: Token ids of the prompt.
        """
        return sorted({r for r in self.row[list(ids)].tolist() if r >= 0})

    def kernel(self, left: Tensor, right: Tensor) -> Float[Tensor, "left right"]:
        """Return the prior covariance of the effects of two sets of words, from their embeddings' cosines.

        Args:
            left: Indices of the first words.
            right: Indices of the second words.
        """
        near = (self.vectors[left] @ self.vectors[right].T).clamp_(min=0) ** 3
        return 0.6 * near + 0.4 * (left[:, None] == right[None])


@dataclass(frozen=True)
class WordEffectModel:
    """Fitted Gaussian process that predicts a sentence's score from its words and its mean residual.

    A score is modelled as a mean, plus the effects of the sentence's words, plus a linear function of its
    residual (at half the model's depth, mean over tokens), plus noise. Scores are standardised by `mean` and
    `sd`.

    Attributes:
        words: The candidate words.
        seen: Indices of the candidate words that occur in the scored prompts.
        counts: For each scored prompt, whether it has each of these words (0 or 1).
        probe: Residuals of the scored prompts, averaged over tokens, standardised by `centre` and `scale`.
        centre: Mean of the residuals over prompts.
        scale: Root mean square norm of the centred residuals.
        mean: Mean of the scores.
        sd: Standard deviation of the scores.
        parts: Prior variances of three parts of the score: word effects, linear function of the residual, and
            effects proportional to the gradient's prediction for each word.
        inverse: Inverse covariance matrix of the standardised scores.
        alpha: `inverse` times the standardised scores.
        loo_r: Correlation of leave-one-out predictions with the scores.
    """

    words: CandidateWords
    seen: Int[Tensor, " seen"]
    counts: Float[Tensor, "prompt seen"]
    probe: Float[Tensor, "prompt d_model"]
    centre: Float[Tensor, " d_model"]
    scale: float
    mean: float
    sd: float
    parts: tuple[float, float, float]
    inverse: Float[Tensor, "prompt prompt"]
    alpha: Float[Tensor, " prompt"]
    loo_r: float

    def predict(
        self, bags: Sequence[Sequence[int]], residuals: Float[Tensor, "new d_model"] | None
    ) -> tuple[Tensor, Tensor]:
        """Return the predicted scores of new prompts and their standard deviations, in the objective's unit.

        Args:
            bags: For each prompt, the indices of its words among the candidate words.
            residuals: Residuals of each prompt at half the model's depth, averaged over tokens; None to
                predict from words alone.
        """
        cross, prior = self._cross(bags, residuals)
        mean = cross @ self.alpha
        variance = (prior - ((cross @ self.inverse) * cross).sum(1)).clamp(min=1e-6)
        return self.mean + self.sd * mean, self.sd * variance.sqrt()

    def word_effects(self) -> tuple[Float[Tensor, " word"], Float[Tensor, " word"]]:
        """Return the predicted effect of every candidate word on the score, and its standard deviation.

        Both are in standard deviations of the scores.
        """
        everything = torch.arange(len(self.words.tokens))
        a, _, c = self.parts
        slopes = self.counts @ self.words.slope[self.seen]
        cross = c * self.words.slope[:, None] * slopes[None]
        if a:
            cross += a * (self.words.kernel(everything, self.seen) @ self.counts.T)
        variance = (a + c * self.words.slope**2 - ((cross @ self.inverse) * cross).sum(1)).clamp(min=1e-6)
        return cross @ self.alpha, variance.sqrt()

    def _cross(self, bags: Sequence[Sequence[int]], residuals: Tensor | None) -> tuple[Tensor, Tensor]:
        a, b, c = self.parts
        fresh = torch.tensor(sorted({w for bag in bags for w in bag} or {0}))
        place = {int(w): i for i, w in enumerate(fresh)}
        counts = torch.zeros(len(bags), len(fresh))
        for row, bag in enumerate(bags):
            counts[row, [place[w] for w in bag]] = 1.0
        slopes, old = counts @ self.words.slope[fresh], self.counts @ self.words.slope[self.seen]
        cross, prior = c * slopes[:, None] * old[None], c * slopes**2
        if a:
            cross = cross + a * (counts @ self.words.kernel(fresh, self.seen) @ self.counts.T)
            prior = prior + a * ((counts @ self.words.kernel(fresh, fresh)) * counts).sum(1)
        if b and residuals is not None:
            x = (residuals.float() - self.centre) / self.scale
            cross, prior = cross + b * (x @ self.probe.T), prior + b * (x**2).sum(1)
        return cross, prior


def fit_effects(
    words: CandidateWords,
    bags: Sequence[Sequence[int]],
    residuals: Float[Tensor, "prompt d_model"],
    scores: Float[Tensor, " prompt"],
    probe: bool = True,
) -> WordEffectModel:
    """Fit a Gaussian process that predicts the scores of prompts from their words and residuals.

    Args:
        words: The candidate words.
        bags: For each prompt, the indices of its words among the candidate words.
        residuals: Residuals of each prompt at half the model's depth, averaged over its tokens.
        scores: The prompts' scores.
        probe: Whether the residuals are used; if False, the words alone are.
    """
    seen = torch.tensor(sorted({w for bag in bags for w in bag} or {0}))
    place = {int(w): i for i, w in enumerate(seen)}
    counts = torch.zeros(len(bags), len(seen))
    for row, bag in enumerate(bags):
        counts[row, [place[w] for w in bag]] = 1.0
    y = scores.double()
    mean, sd = float(y.mean()), float(y.std(correction=0).clamp(min=1e-6))
    z = ((y - mean) / sd).float()
    centre = residuals.float().mean(0)
    x = residuals.float() - centre
    scale = float((x**2).sum(1).mean().sqrt().clamp(min=1e-6))
    x = x / scale
    slopes = counts @ words.slope[seen]
    gram = (counts @ words.kernel(seen, seen) @ counts.T, x @ x.T, slopes[:, None] * slopes[None])
    best: tuple[float, tuple[float, float, float], Tensor, Tensor, float] | None = None
    for a, b, c, noise in itertools.product(
        *((_WORDS, _PROBE, _SLOPE) if probe else (_WORDS_ALONE, (0.0,), _SLOPE_ALONE)), _NOISE
    ):
        covariance = a * gram[0] + b * gram[1] + c * gram[2] + noise * torch.eye(len(z)) + 0.1
        inverse = torch.linalg.inv(covariance.double()).float()
        alpha = inverse @ z
        variance = 1 / inverse.diagonal().clamp(min=1e-9)
        errors = alpha * variance
        density = float((-0.5 * variance.log() - 0.5 * errors**2 / variance).sum())
        if best is None or density > best[0]:
            guess = z - errors
            r = float(torch.corrcoef(torch.stack([guess, z]))[0, 1]) if len(z) > 2 else 0.0
            best = (density, (a, b, c), inverse, alpha, r)
    assert best is not None
    _, parts, inverse, alpha, r = best
    return WordEffectModel(words, seen, counts, x, centre, scale, mean, sd, parts, inverse, alpha, r)
