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
    """Sentence templates with one gap, one for each kind of word (adjective, noun, ...).

    Words of a kind are thus compared in the same template. If the template has variants ("a", "an"), each is
    a separate entry.

    Attributes:
        texts: The templates' texts, such as "You are a {}.".
        kinds: For each template, the kind of word that fits its gap.
        where: For each candidate word, the index of the template in which the word ranks best.
        rank: For each word, its rank by log p among the words in that template.
        log_probs: log p of each word in that template; -inf if no template takes a word of its kind.
    """

    texts: list[str]
    kinds: list[str]
    where: Int[Tensor, " word"]
    rank: Int[Tensor, " word"]
    log_probs: Float[Tensor, " word"]


@dataclass
class WordBank:
    """Candidate words of a search over sentences, and the words (the bank) that were tried in a template.

    A template is a sentence with one gap, such as "Be {adjective}.".

    Attributes:
        slot: Converts prompts between text and token ids at their place in the chat.
        writer: Runs the filled templates through the lower half of the blocks.
        words: The candidate words.
        memory: The search's learned tensors, which checkpoints save; "bank" has the indices of the tried
            words, "bank_means" the mean residuals of their filled templates.
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
        """The kinds (adjective, noun, ...) of every candidate word."""
        return word_kinds(self.writer, self.slot.form.kinds, self.words.tokens, self.slot.encode)

    @cached_property
    def templates(self) -> OneGapTemplates:
        """Sentence templates with one gap, and for each word the template in which it ranks best."""
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

        The model runs only once for each text.

        Args:
            left: The text, at the prompt's place in the chat.
        """
        if left not in self._next_word:
            self._next_word[left] = self.writer.next_log_probs(self.slot.encode(left))[
                self.words.tokens.to(self.writer.usable.device)
            ].cpu()
        return self._next_word[left]

    def near(self, words: Tensor) -> Float[Tensor, " word"]:
        """Return how similar each candidate word is to the most similar of some words, by their embeddings.

        Similarity is the cosine, minus the candidate's mean cosine with a sample of all words, in units of
        the standard deviation over that sample. So a word that is similar to all words counts as similar to
        none.

        Args:
            words: Indices of the words to compare with.
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
        """Number of kinds of words (adjective, noun, ...) that have a sentence template with one gap."""
        return len(set(self.templates.kinds))

    @property
    def places(self) -> Int[Tensor, " bank"]:
        """Indices, among the candidate words, of the words that were tried in a template (the bank)."""
        return self.memory.get("bank", torch.zeros(0, dtype=torch.long))

    @property
    def means(self) -> Float[Tensor, "bank d_model"]:
        """Residuals of each tried word's filled template at half the model's depth, mean over its tokens."""
        return self.memory["bank_means"]

    @property
    def prompts(self) -> list[Prompt]:
        """Token ids of each tried word's filled template: the one in which the word ranks best."""
        for word in self.places[len(self._prompts) :].tolist():
            self._prompts.append(self.filled(self.templates.texts[int(self.templates.where[word])], [word]))
        return self._prompts

    @property
    def log_probs(self) -> Float[Tensor, " bank"]:
        """Log-probability of each tried word in the gap of its template."""
        return self.templates.log_probs[self.places]

    def begin(self, n: int) -> None:
        """Choose the first `n` words to try in templates: those that the model finds likeliest there.

        A word counts by its best rank by log p: in any template with one gap, or (mean log p) after the texts
        that identify a kind of word (adjective, noun, ...).

        Args:
            n: Number of words.
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
        """Try `n` more words in templates: those whose embeddings are most similar to some of the best words.

        So words with a strong effect are found that the model hardly expects in a template.

        Args:
            best: Indices of the best words, among the candidate words.
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
        """Reorder tried words so that their kinds (adjective, noun, ...) take turns, each kind best first.

        Words of different kinds are in different templates, whose scores cannot be compared.

        Args:
            order: Indices of the words in the bank (the list of tried words), best first.
        """
        kinds = [self.templates.kinds[i] for i in self.templates.where[self.places].tolist()]
        queues = [
            [row for row in order.tolist() if kinds[row] == kind]
            for kind in dict.fromkeys(self.templates.kinds)
        ]
        return [row for turn in itertools.zip_longest(*queues) for row in turn if row is not None]

    def half_in_turn(self, order: Int[Tensor, " bank"]) -> list[int]:
        """Merge two orders of the tried words: the given one, and one in which the kinds take turns.

        So words of the best kind (such as adjectives) are used most, but other kinds too.

        Args:
            order: Indices of the words in the bank (the list of tried words), best first.
        """
        pairs = itertools.chain.from_iterable(zip(order.tolist(), self.in_turn(order), strict=True))
        return list(dict.fromkeys(pairs))

    def unlike(self, order: Sequence[int], fresh: set[Prompt], n: int) -> list[int]:
        """Select up to `n` tried words with different embeddings whose templates were not scored yet.

        Args:
            order: Indices of the words in the bank (the list of tried words), best first.
            fresh: Token ids of the filled templates that were not scored yet.
            n: Largest number of words.

        Returns:
            Indices of the selected words in the bank; any two have embeddings with a cosine below `_NEAR`.
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
        """Fill a sentence template's gaps with candidate words, and return the token ids.

        Args:
            text: The template's text with `{}` for each gap.
            words: Indices of the words, one per gap.
        """
        first, *rest = text.split("{}")
        return self.slot.encode(
            first + "".join(word + part for word, part in zip(self._texts(words), rest, strict=True))
        )

    def fill(self, template: Template, value: Float[Tensor, " word"]) -> Prompt:
        """Fill a sentence template's gaps with the best words of the right kinds, and return the token ids.

        Best are the words with the largest sum of the given value and of how well the model expects them in
        the gap: after "You are a prudent", "investor" fits better than "critic" (see `expected`). No word is
        used twice.

        Args:
            template: The template, whose gaps have kinds (adjective, noun, ...).
            value: Value of each candidate word, in nats.
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
        """Return how well each candidate word continues a text: log p - 0.5 x its usual log p.

        The usual log p is that after the texts that identify the word's kind (adjective, noun, ...). Ranked
        by log p alone, common words would come first ("You are a prudent person"); with the factor 1, rare
        ones ("expenditure").

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
