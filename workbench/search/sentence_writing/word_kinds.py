"""Classify words (adjectives, nouns, verbs, ...) by the contexts in which the model expects them.

The left contexts of each kind are data (sentence_frames.yaml). A word belongs to the kinds whose contexts
make it likeliest. So a template with a gap for an adjective does not get a plural noun ("Be precautions."),
and a word is replaced by one of its own kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.search.sentence_writing.sentence_writer import SentenceWriter

#: A word belongs to every kind in whose contexts it is at most this many nats less likely than in those of
#: its likeliest kind.
_AS_LIKELY = 0.5


@dataclass(frozen=True)
class WordKinds:
    """Kinds of words (adjective, noun, ...), found from the texts after which the model expects each word.

    For example, of SmolLM2-135M's words "cautious" is an adjective only, "skeptic" a noun, "precautions"
    neither.

    Attributes:
        names: Names of the kinds.
        log_probs: log p of every candidate word, mean over the texts that identify each kind.
        fits: Whether each word belongs to each kind.
    """

    names: tuple[str, ...]
    log_probs: Float[Tensor, "kind word"]
    fits: Bool[Tensor, "kind word"]

    def words(self, kind: str) -> Bool[Tensor, " word"]:
        """Return a mask of the words of a kind such as "adjective"; all words if the kind is unknown.

        Args:
            kind: Name of the kind.
        """
        if kind not in self.names:
            return torch.ones(self.fits.shape[1], dtype=torch.bool)
        return self.fits[self.names.index(kind)]

    def likelihood(self, kind: str) -> Float[Tensor, " word"]:
        """Return log p of every word after the texts that identify a kind such as "adjective".

        It is the mean over these texts; zeros if the kind is unknown.

        Args:
            kind: Name of the kind.
        """
        return (
            self.log_probs[self.names.index(kind)] if kind in self.names else torch.zeros(self.fits.shape[1])
        )

    def alike(self, word: int) -> Bool[Tensor, " word"]:
        """Return a mask of the words that have a kind (adjective, noun, ...) in common with one word.

        All words are in the mask if no kinds are defined.

        Args:
            word: Index of the one word.
        """
        if not self.names:
            return torch.ones(self.fits.shape[1], dtype=torch.bool)
        return self.fits[self.fits[:, word]].any(0)


def word_kinds(
    writer: SentenceWriter,
    contexts: Mapping[str, Sequence[str]],
    tokens: Int[Tensor, " word"],
    encode: Callable[[str], tuple[int, ...]],
) -> WordKinds:
    """Classify words as adjectives, nouns, ... by the texts after which the model expects them.

    Args:
        writer: Computes the model's log-probabilities.
        contexts: For each kind of word, texts after which such a word is likely, such as "He was very"
            (adjective).
        tokens: Token ids of the words.
        encode: Function that gives the token ids of a text at the prompt's place in the chat.
    """
    if not contexts:
        nothing = torch.zeros(0, len(tokens))
        return WordKinds((), nothing, nothing.bool())
    place = tokens.to(writer.usable.device)
    rows = [
        torch.stack([writer.next_log_probs(encode(text))[place].float().cpu() for text in texts]).mean(0)
        for texts in contexts.values()
    ]
    table = torch.stack(rows)
    return WordKinds(tuple(contexts), table, table >= table.max(0).values - _AS_LIKELY)
