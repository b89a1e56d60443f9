"""The words that a search over sentences knows, their best templates, and residuals of the filled templates.

The words of the bank run through half of the blocks only, each in its likeliest template with one gap, which
costs about one token of a whole pass per word. The bank begins with the words that the model finds likeliest
there, and grows by the neighbours of its best words.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.search.sentence_writing.sentence_form import Template, left_of_gap
from workbench.search.sentence_writing.sentence_writer import SentenceWriter
from workbench.search.sentence_writing.slot_text import Prompt, SlotText
from workbench.search.sentence_writing.word_effect_model import CandidateWords
from workbench.search.sentence_writing.word_kinds import WordKinds, word_kinds

#: Cosine of two words' embeddings above which only one of them is scored.
_NEAR = 0.4
#: Number of words whose cosines with a word show how near it usually is to others.
_SAMPLE = 512


@dataclass(frozen=True)
class OneGapTemplates:
    """The first template with one gap for each kind of word; its variants are separate entries.

    Words of a kind are thus compared in the same template.

    Attributes:
        texts: The templates' texts.
        kinds: Kind of each template's gap.
        where: Index of the best template for each candidate word.
        rank: Rank of each word among the words of its best template.
        log_probs: log p of each word in its best template; -inf if no template takes a word of its kind.
    """

    texts: list[str]
    kinds: list[str]
    where: Int[Tensor, " word"]
    rank: Int[Tensor, " word"]
    log_probs: Float[Tensor, " word"]


@dataclass
class WordBank:
    """Candidate words of one search, and the bank: words that were tried in a template with one gap.

    Attributes:
        slot: Tokens and texts of prompts in the slot.
        writer: Runs the filled templates through the lower half of the blocks.
        words: The candidate words.
        memory: The search's memory, which checkpoints save; "bank" has the indices of the bank's words and
            "bank_means" their mean residuals.
    """

    slot: SlotText
    writer: SentenceWriter
    words: CandidateWords
    memory: dict[str, Tensor]
    _prompts: list[Prompt] = field(default_factory=list)
    _next_word: dict[str, Tensor] = field(default_factory=dict)

    # ---- what is known of all words ------------------------------------------------------------------------------------

    @cached_property
    def kinds(self) -> WordKinds:
        """Kinds (adjective, noun, ...) of every candidate word."""
        return word_kinds(self.writer, self.slot.form.kinds, self.words.tokens, self.slot.encode)

    @cached_property
    def templates(self) -> OneGapTemplates:
        """Sentence templates with one gap, and each candidate word's best template with its log p there."""
        first: dict[str, Template] = {}
        for template in self.slot.form.slots:
            if len(template.gaps) == 1:
                first.setdefault(template.gaps[0], template)
        single = [(variant, kind) for kind, template in first.items() for variant in template.variants]
        rows = [
            self.next_word(left_of_gap(text)).masked_fill(~self.kinds.words(kind), -torch.inf)
            for text, kind in single
        ]
        table = torch.stack(rows) if rows else torch.full((1, len(self.words.tokens)), -torch.inf)
        rank, where = (
            (-table)
            .argsort(dim=1, stable=True)
            .argsort(dim=1, stable=True)
            .masked_fill(table.isneginf(), table.shape[1])
            .min(0)
        )
        return OneGapTemplates(
            [text for text, _ in single],
            [kind for _, kind in single],
            where,
            rank,
            table.gather(0, where[None])[0],
        )

    def next_word(self, left: str) -> Float[Tensor, " word"]:
        """Return log p of every candidate word as the next one after a text, on the CPU.

        Each text runs only once.
        """
        if left not in self._next_word:
            self._next_word[left] = self.writer.next_log_probs(self.slot.encode(left))[
                self.words.tokens.to(self.writer.usable.device)
            ].cpu()
        return self._next_word[left]

    def near(self, words: Tensor) -> Float[Tensor, " word"]:
        """Return how near each candidate is to the nearest of some words, by their embeddings.

        The unit is the standard deviation of the candidate's own cosines, so that a word that is near to all
        words counts as near to none.

        Args:
            words: Indices of the words.
        """
        centre, sd = self._usual_cosines
        return (
            ((self.words.vectors @ self.words.vectors[words].T - centre[:, None]) / sd[:, None]).max(1).values
        )

    @cached_property
    def _usual_cosines(self) -> tuple[Tensor, Tensor]:
        vectors = self.words.vectors
        cosines = vectors @ vectors[:: max(1, len(vectors) // _SAMPLE)].T
        return cosines.mean(1), cosines.std(1).clamp(min=1e-6)

    # ---- words that were read ------------------------------------------------------------------------------------------

    @property
    def n_kinds(self) -> int:
        """Number of kinds of words (adjective, noun, ...) that have a template with one gap."""
        return len(set(self.templates.kinds))

    @property
    def places(self) -> Int[Tensor, " bank"]:
        """Indices of the candidate words that were tried in a template (the bank)."""
        return self.memory.get("bank", torch.zeros(0, dtype=torch.long))

    @property
    def means(self) -> Float[Tensor, "bank d_model"]:
        """Mean residual of each bank word's filled template, after the lower half of the blocks."""
        return self.memory["bank_means"]

    @property
    def prompts(self) -> list[Prompt]:
        """Prompts of the bank: each of its words in its best template."""
        for word in self.places[len(self._prompts) :].tolist():
            self._prompts.append(self.filled(self.templates.texts[int(self.templates.where[word])], [word]))
        return self._prompts

    @property
    def log_probs(self) -> Float[Tensor, " bank"]:
        """Log-probability of each word of the bank in the gap of its template."""
        return self.templates.log_probs[self.places]

    def begin(self, n: int) -> None:
        """Fill the bank with the `n` candidate words that the model finds likeliest in sentence templates.

        A word counts by its best rank in any template, or in any context of a template's kind of word.
        """
        if "bank" not in self.memory:
            templates = self.templates
            kinds = torch.stack(
                [
                    self.kinds.likelihood(kind).masked_fill(~self.kinds.words(kind), -torch.inf)
                    for kind in dict.fromkeys(templates.kinds)
                ]
            )
            rank = (
                (-kinds)
                .argsort(dim=1, stable=True)
                .argsort(dim=1, stable=True)
                .masked_fill(kinds.isneginf(), kinds.shape[1])
                .min(0)
                .values
            )
            usable = int(templates.log_probs.isfinite().sum())
            self._read(rank.minimum(templates.rank).argsort(stable=True)[: min(n, usable)])

    def grow(self, best: Int[Tensor, " best"], n: int) -> None:
        """Add the `n` words whose embeddings are nearest to some of the best words.

        A strong word may be one that the model hardly expects.

        Args:
            best: Indices of the best words.
            n: Number of words to add.
        """
        near = self.near(best).masked_fill(self.templates.log_probs.isneginf(), -torch.inf)
        near[self.places] = -torch.inf
        self._read(near.topk(min(n, int(near.isfinite().sum()))).indices)

    def _read(self, words: Tensor) -> None:
        """Run words in their templates through half of the blocks; the text left of the gap runs once.

        Words whose template changes their tokens are left out.
        """
        known = [self.places] if "bank" in self.memory else []
        means = [self.means] if known else []
        for number, template in enumerate(self.templates.texts):
            left = self.slot.encode(left_of_gap(template))
            made = {
                int(w): self.filled(template, [int(w)])
                for w in words
                if int(self.templates.where[w]) == number
            }
            whole = {
                w: ids
                for w, ids in made.items()
                if ids[: len(left) + 1] == (*left, int(self.words.tokens[w]))
            }
            alive = set(self.slot.survivors(list(whole.values())))
            read = {w: ids for w, ids in whole.items() if ids in alive}
            if read:
                known.append(torch.tensor(list(read)))
                means.append(self.writer.means_after(left, [ids[len(left) :] for ids in read.values()]))
        self.memory["bank"] = torch.cat(known) if known else torch.zeros(0, dtype=torch.long)
        self.memory["bank_means"] = (
            torch.cat(means) if means else torch.zeros(0, self.writer.runner.shape.d_model)
        )

    def in_turn(self, order: Int[Tensor, " bank"]) -> list[int]:
        """Reorder the bank's words so that their kinds (adjective, noun, ...) take turns.

        A noun's template cannot be compared with a verb's.

        Args:
            order: Rows of the bank, best first.
        """
        kinds = [self.templates.kinds[i] for i in self.templates.where[self.places].tolist()]
        queues = [
            [row for row in order.tolist() if kinds[row] == kind]
            for kind in dict.fromkeys(self.templates.kinds)
        ]
        return [row for turn in itertools.zip_longest(*queues) for row in turn if row is not None]

    def half_in_turn(self, order: Int[Tensor, " bank"]) -> list[int]:
        """Interleave the bank's words in the given order with the same words taking turns by kind.

        So the best kind is tried most, but other kinds are tried too.

        Args:
            order: Rows of the bank, best first.
        """
        pairs = itertools.chain.from_iterable(zip(order.tolist(), self.in_turn(order), strict=True))
        return list(dict.fromkeys(pairs))

    def unlike(self, order: Sequence[int], fresh: set[Prompt], n: int) -> list[int]:
        """Select up to `n` words of the bank whose prompts are new and whose embeddings differ.

        Args:
            order: Rows of the bank, best first.
            fresh: Prompts that are new.
            n: Number of words.

        Returns:
            Rows of the selected words; any two of them have a cosine below `_NEAR`.
        """
        vectors, prompts = self.words.vectors[self.places], self.prompts
        picked: list[int] = []
        for row in order:
            if prompts[row] in fresh and all(
                float(vectors[row] @ vectors[other]) < _NEAR for other in picked
            ):
                picked.append(row)
            if len(picked) == n:
                break
        return picked

    # ---- templates -----------------------------------------------------------------------------------------------------

    def filled(self, text: str, words: Sequence[int]) -> Prompt:
        """Fill a template's gaps with candidate words, and return the tokens.

        Args:
            text: The template's text with `{}` for each gap.
            words: Indices of the words.
        """
        first, *rest = text.split("{}")
        return self.slot.encode(
            first + "".join(word + part for word, part in zip(self._texts(words), rest, strict=True))
        )

    def fill(self, template: Template, value: Float[Tensor, " word"]) -> Prompt:
        """Fill a template's gaps with the words of the largest values, each word once and of the gap's kind.

        The text left of a gap counts too: after "You are a prudent", "investor" fits better than "critic"
        (`expected`).

        Args:
            template: The template.
            value: Value of each candidate word, nats.
        """
        chosen: list[int] = []
        text = template.variants[0]
        for number, kind in enumerate(template.gaps):
            if number:
                after = self.expected(
                    self.writer.next_log_probs(self._left(text, chosen))[
                        self.words.tokens.to(self.writer.usable.device)
                    ].cpu()
                )
            else:
                after = 0.5 * self.kinds.likelihood(kind)
            worth = (value + after).masked_fill(~self.kinds.words(kind), -torch.inf)
            worth[chosen] = -torch.inf
            chosen.append(int(worth.argmax()))
            if not number:
                text = max(
                    template.variants, key=lambda text: float(self.next_word(left_of_gap(text))[chosen[0]])
                )
        return self.filled(text, chosen)

    def expected(self, log_probs: Float[Tensor, " word"]) -> Float[Tensor, " word"]:
        """Return how well each word continues a text: its log p after the text minus half its usual log p.

        The usual log p is that in the contexts of the word's kind. Ranked by log p alone, common words are
        first ("You are a prudent person"); ranked by the whole difference, rare ones are ("expenditure").

        Args:
            log_probs: log p of each candidate word after the text.
        """
        return log_probs - 0.5 * self.kinds.log_probs.max(0).values if self.kinds.names else log_probs

    def _left(self, text: str, words: Sequence[int]) -> Prompt:
        """Tokens of a template left of its next gap."""
        parts = text.split("{}")[: len(words) + 1]
        return self.slot.encode(
            "".join(part + word for part, word in zip(parts, [*self._texts(words), ""], strict=True)).rstrip()
        )

    def _texts(self, words: Sequence[int]) -> list[str]:
        return [self.slot.text([int(self.words.tokens[word])]) for word in words]
