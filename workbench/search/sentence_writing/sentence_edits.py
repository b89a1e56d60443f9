"""Edit sentences by whole words: replace, link ("and w"), delete (mutations of FLRT, arXiv 2407.17447).

Inserted words and crossovers are not used, since they broke the grammar more often than they helped ("a
realist who is disagree candid").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.search.sentence_writing.slot_text import Prompt
from workbench.search.sentence_writing.word_bank import WordBank

#: Kinds of edits, which take turns.
_KINDS = ("replace", "link", "replace", "delete")
#: Weight of the model's log p for a linked word, below 1 because it was computed at the position before the
#: link.
_LINK_WEIGHT = 0.3
#: Number of words, in the best prompts, that `swapped` replaces by others.
_SWAPPED_WORDS = 4


@dataclass(frozen=True)
class SentenceEdits:
    """Edit sentences by replacing, linking and deleting words.

    Words are chosen by a value that is drawn for each edit, plus how well the model expects them at that
    place.

    Attributes:
        bank: The search's candidate words.
        values: Function that draws a value in nats for every candidate word: its learned effect plus noise.
        generator: The search's random generator.
    """

    bank: WordBank
    values: Callable[[], Float[Tensor, " word"]]
    generator: torch.Generator

    def pick(self, n: int) -> int:
        """Draw an integer from 0 to n - 1 uniformly."""
        return int(torch.randint(n, (1,), generator=self.generator))

    def spans(self, prompt: Prompt) -> list[Prompt]:
        """Split a prompt's tokens into words; each punctuation mark is a part of its own.

        Args:
            prompt: Token ids.
        """
        writer, spans = self.bank.writer, []  # type: ignore[var-annotated]
        for token in prompt:
            letters = writer.letters[token]
            if not spans or writer.begins[token] or not letters or not writer.letters[spans[-1][-1]]:
                spans.append([])
            spans[-1].append(token)
        return [tuple(span) for span in spans]

    def beginning(self, prompt: Prompt) -> Prompt:
        """Return the beginning of a prompt, up to a random word but at least two words.

        Args:
            prompt: Token ids.
        """
        spans = self.spans(prompt)
        return _flat(spans[: min(len(spans) - 1, 2 + self.pick(max(1, len(spans) - 2)))])

    def edited(self, elites: Sequence[Prompt], n: int) -> list[Prompt]:
        """Return up to `n` edits of the best prompts; prompts that come first are edited more often.

        An edit replaces a word, links another word to it ("and bold"), or deletes it; these take turns.

        Args:
            elites: Token ids of the best prompts, best first.
            n: Number of edits.
        """
        if not elites:
            return []
        tables = self.bank.writer.log_probs(elites, self.bank.words.tokens)
        made = []
        for number in range(n):
            which = min(self.pick(len(elites)), self.pick(len(elites)))
            made.append(self._edit(_KINDS[number % len(_KINDS)], self.spans(elites[which]), tables[which]))
        return [prompt for prompt in made if prompt]

    def swapped(self, elites: Sequence[Prompt], n: int) -> list[Prompt]:
        """Replace words of the best prompts by other words of their kind, up to `n` results.

        Up to four words are replaced, each in a prompt of its own draw; better prompts are drawn more often.
        Only words of one token are replaced, because the kind (adjective, noun, ...) of others is not known.
        The new words are the best by a drawn value (learned effect plus noise) plus how well the model
        expects them at that place.

        Args:
            elites: Token ids of the best prompts, best first.
            n: Largest number of results.
        """
        spans = [self.spans(prompt) for prompt in elites]
        chosen = self._words_to_swap(spans)
        made: list[Prompt] = []
        for number, (which, at) in enumerate(chosen):
            words = spans[which]
            log_probs = self.bank.writer.log_probs([elites[which]], self.bank.words.tokens)[0]
            worth = self.values() + self.bank.expected(log_probs[sum(map(len, words[:at]))])
            worth = worth.masked_fill(~self._alike(words[at]), -torch.inf)
            worth[int(self.bank.words.row[words[at][0]])] = -torch.inf
            count = (n + len(chosen) - 1 - number) // len(chosen)
            best = worth.topk(min(count, int(worth.isfinite().sum()))).indices
            made += [
                _flat([*words[:at], (token,), *words[at + 1 :]])
                for token in self.bank.words.tokens[best].tolist()
            ]
        return made

    def _words_to_swap(self, prompts: Sequence[Sequence[Prompt]]) -> list[tuple[int, int]]:
        """Draw up to four words of some prompts, each a candidate word of one token: (prompt, place) of each."""
        chosen: list[tuple[int, int]] = []
        for _ in range(4 * _SWAPPED_WORDS if prompts else 0):
            which = min(self.pick(len(prompts)) for _ in range(3))
            spans = prompts[which]
            known = [
                i
                for i in self._content(spans)
                if len(spans[i]) == 1 and int(self.bank.words.row[spans[i][0]]) >= 0
            ]
            drawn = (which, known[self.pick(len(known))]) if known else None
            if drawn and drawn not in chosen:
                chosen.append(drawn)
            if len(chosen) == _SWAPPED_WORDS:
                break
        return chosen

    def _content(self, spans: Sequence[Prompt]) -> list[int]:
        """Indices of the words that may be edited: not the first, and no small words.

        Small words hold a sentence together, so they are neither replaced nor deleted.
        """
        writer = self.bank.writer
        return [
            i
            for i in range(1, len(spans))
            if writer.letters[spans[i][0]] and not (len(spans[i]) == 1 and writer.small[spans[i][0]])
        ]

    def _edit(self, kind: str, spans: list[Prompt], table: Float[Tensor, "prompt_pos word"]) -> Prompt:
        places = self._content(spans)
        if not places:
            return ()
        at = places[self.pick(len(places))]
        if kind == "delete":
            return _flat(spans[:at] + spans[at + 1 :])
        log_probs = table[sum(map(len, spans[:at]))]
        alike = self._alike(spans[at])
        if kind == "replace":
            return _flat(
                [
                    *spans[:at],
                    self._word(
                        (self.values() + self.bank.expected(log_probs)).masked_fill(~alike, -torch.inf)
                    ),
                    *spans[at + 1 :],
                ]
            )
        joins = self.bank.slot.form.joins
        join = self.bank.slot.encode(joins[self.pick(len(joins))], inner=True)
        word = self._word((self.values() + _LINK_WEIGHT * log_probs).masked_fill(~alike, -torch.inf))
        return _flat([*spans[: at + 1], join, word, *spans[at + 1 :]])

    def _word(self, worth: Float[Tensor, " word"]) -> Prompt:
        return (int(self.bank.words.tokens[int(worth.argmax())]),)

    def _alike(self, span: Prompt) -> Tensor:
        """Mask of the words that share a kind with the present one; all words if it is not a candidate."""
        place = int(self.bank.words.row[span[0]]) if len(span) == 1 else -1
        return (
            self.bank.kinds.alike(place)
            if place >= 0
            else torch.ones(len(self.bank.words.tokens), dtype=torch.bool)
        )


def _flat(spans: Sequence[Prompt]) -> Prompt:
    return tuple(token for span in spans for token in span)
