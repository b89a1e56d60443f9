"""Let the model write sentences in a slot, with word biases and steering, and screen sentences.

All rows continue the same prefix, whose keys and values are computed once. A row first takes the tokens of
its opening and then samples from the model's top tokens until a sentence ends. Finished rows leave the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.models import KeyValueCache, Runner, Site, pad_right
from workbench.models.token_text import token_texts
from workbench.search.sentence_writing.sentence_form import ENDINGS

#: Rows that run or are screened at a time; their logits take most of the memory.
_ROWS = 32
#: Endings of one beginning that run at a time (through half of the blocks, without logits).
_TAILS = 256
#: Value of a measure that was not computed; it keeps every limit (checkpoints have finite numbers only).
UNMEASURED = -1e6


@dataclass(frozen=True)
class SentenceDraft:
    """How the model is to write one sentence: its beginning, word biases, steering and temperature.

    Attributes:
        opening: Token ids with which the sentence begins.
        bias: Nats added to the logits of tokens that begin a word, [d_vocab]; None for no bias.
        push: Steering vector that is added to the residual stream, [d_model]; None for no steering.
        temperature: Sampling temperature.
    """

    opening: tuple[int, ...]
    bias: Float[Tensor, " d_vocab"] | None = None
    push: Float[Tensor, " d_model"] | None = None
    temperature: float = 1.0


@dataclass(frozen=True)
class ScreenedSentences:
    """Prompts with five measures by which unusable sentences are screened out.

    Attributes:
        measures: Values in nats, five per prompt: (1) cross-entropy, mean over the tokens; (2) largest -log p
            of its function words and punctuation marks, which grammar should predict; (3) largest -log p of
            its words (sum over the word's tokens) without the first; (4) largest -log p of a mark that ends a
            sentence, which is large if words are missing ("You are a precautionary."); (5) log-odds that it
            describes an evil assistant and not a good one (UNMEASURED until `SentenceTools` has measured it).
        residuals: Residuals at half the model's depth, mean over the prompt's tokens.
    """

    measures: Float[Tensor, "prompt 5"]
    residuals: Float[Tensor, "prompt d_model"]

    @property
    def cross_entropy(self) -> Float[Tensor, " prompt"]:
        """Cross-entropy of each prompt, nats per token."""
        return self.measures[:, 0]

    def pick(self, rows: Int[Tensor, " row"]) -> ScreenedSentences:
        """Return some of the prompts with their measures, selected by index."""
        return ScreenedSentences(self.measures[rows], self.residuals[rows])

    @classmethod
    def joined(cls, parts: Sequence[ScreenedSentences]) -> ScreenedSentences:
        """Concatenate several sets of screened sentences."""
        return cls(
            *(torch.cat([getattr(part, name) for part in parts]) for name in ("measures", "residuals"))
        )


@dataclass(frozen=True)
class HalfRead:
    """Prompts that ran through the lower half of the model's blocks, with the resulting residuals.

    Attributes:
        ids: Token ids, one row per prompt, padded on the right.
        lengths: Number of tokens of each prompt.
        resid: Residuals after the lower half of the blocks, at every position.
        means: Mean of these residuals over each prompt's positions (without padding), on the CPU.
    """

    ids: Int[Tensor, "prompt pos"]
    lengths: Int[Tensor, " prompt"]
    resid: Float[Tensor, "prompt pos d_model"]
    means: Float[Tensor, "prompt d_model"]

    def pick(self, rows: Int[Tensor, " row"]) -> HalfRead:
        """Return some of the prompts, selected by index, without padding beyond the longest of them."""
        at = rows.to(self.ids.device)
        lengths = self.lengths[at]
        longest = int(lengths.max())
        return HalfRead(self.ids[at, :longest], lengths, self.resid[at, :longest], self.means[rows])


class SentenceWriter:
    """Let the model write sentences at the prompt's place in a chat, and screen sentences.

    All sentences continue the same chat text (the prefix), whose keys and values are computed once.

    Args:
        runner: The model's runner.
        prefix: Token ids of the chat text left of the prompt.
        allowed: Tokens that may be written, bool [d_vocab].
        small_words: Function words of the language, which grammar makes predictable.
    """

    def __init__(
        self,
        runner: Runner,
        prefix: Sequence[int],
        allowed: Bool[Tensor, " d_vocab"],
        small_words: frozenset[str] = frozenset(),
    ) -> None:
        self.runner, self.allowed = runner, allowed
        self.site = Site(max(0, runner.shape.n_layers // 2 - 1))
        self.half, self.top = self.site.layer + 1, runner.shape.n_layers
        self.kv: KeyValueCache | None = None
        self.low: KeyValueCache | None = None
        self.high: KeyValueCache | None = None
        self.first: Float[Tensor, " d_vocab"] | None = None
        if prefix:
            with torch.no_grad():
                embedded = runner.embed(torch.tensor([list(prefix)], device=runner.device))
                resid, self.kv = runner.run(embedded, 0, self.top, keep=True)
                self.first = runner.logits(resid[:, -1]).log_softmax(-1)[0]
                resid, self.low = runner.run(embedded, 0, self.half, keep=True)
                if self.half < self.top:
                    _, self.high = runner.run(resid, self.half, self.top, keep=True)
        known = [[i] for i in range(min(len(runner.tokenizer), runner.shape.d_vocab))]
        texts = token_texts(runner.tokenizer, known)
        texts += [""] * (runner.shape.d_vocab - len(texts))
        spaced = sum(text[:1] == " " for text in texts) > 0.1 * len(texts)
        flag = lambda test: torch.tensor([test(text) for text in texts], device=runner.device)  # noqa: E731
        #: Tokens that begin a word (after a space, if the vocabulary has spaces).
        self.begins = flag(lambda text: (text[:1] == " " or not spaced) and text.strip().isalpha())
        self.letters = flag(lambda text: any(ch.isalpha() for ch in text))
        #: Small words and punctuation, which grammar makes predictable.
        self.small = flag(
            lambda text: (
                text.strip() != ""
                and (text.strip().casefold() in small_words or not text.strip()[0].isalnum())
            )
        )
        #: Tokens that end a sentence, and those that may be in one at all.
        self.ends = flag(lambda text: text.strip() != "" and text.strip() in ENDINGS) & allowed
        fit = (
            flag(
                lambda text: (
                    all(ch.isalpha() or ch in " ,'\u2019-;" for ch in text) and not text.strip().isupper()
                )
            )
            | self.ends
        )
        self.usable = fit & allowed
        self.lower = (
            flag(lambda text: text.strip() == text.strip().lower() and len(text.strip()) > 2)
            & self.begins
            & self.usable
        )

    @torch.no_grad()
    def write(
        self,
        drafts: Sequence[SentenceDraft],
        length: int,
        top_k: int,
        generator: torch.Generator,
        site: Site | None = None,
        unfinished: bool = False,
    ) -> list[tuple[int, ...] | None]:
        """Let the model write one sentence for each draft.

        Args:
            drafts: Beginning, word bias and steering vector of each sentence.
            length: Largest number of tokens of a sentence.
            top_k: Number of likeliest tokens from which each token is sampled.
            generator: Random generator.
            site: Site at which the steering vectors are added; at half the model's depth when None.
            unfinished: Whether to return sentences that did not end, as far as they were written.

        Returns:
            Token ids of each sentence; None if it did not end within `length` tokens (unless `unfinished`).
        """
        if not drafts:
            return []
        runner = self.runner
        done: list[tuple[int, ...] | None] = [None] * len(drafts)
        texts: list[list[int]] = [[] for _ in drafts]
        rows = list(range(len(drafts)))
        kv = (
            self.kv.fork(torch.zeros(len(rows), dtype=torch.long, device=runner.device))
            if self.kv is not None
            else None
        )
        log_probs = None if self.first is None else self.first.expand(len(rows), -1)
        for _ in range(length):
            chosen = self._next(
                [drafts[row] for row in rows], [texts[row] for row in rows], log_probs, top_k, generator
            )
            for row, token in zip(rows, chosen, strict=True):
                texts[row].append(token)
                if self.ends[token] and len(texts[row]) > len(drafts[row].opening):
                    done[row] = tuple(texts[row])
            alive = [i for i, row in enumerate(rows) if done[row] is None and len(texts[row]) < length]
            if not alive:
                break
            rows = [rows[i] for i in alive]
            tokens = torch.tensor([[chosen[i]] for i in alive], device=runner.device)
            if kv is not None and len(alive) < kv.batch:
                kv = kv.fork(torch.tensor(alive, device=runner.device))
            resid, kv = self._pushed([drafts[row].push for row in rows], tokens, kv, site or self.site)
            log_probs = runner.logits(resid[:, -1]).log_softmax(-1)
        return [
            tuple(text) if unfinished and ids is None else ids for text, ids in zip(texts, done, strict=True)
        ]

    @torch.no_grad()
    def log_probs(
        self, prompts: Sequence[Sequence[int]], tokens: Int[Tensor, " token"]
    ) -> list[Float[Tensor, "prompt_pos token"]]:
        """Return log p(token | tokens on the left) of some tokens at every position of prompts, on the CPU.

        Args:
            prompts: Token ids of each prompt, which continues the writer's chat text.
            tokens: Token ids whose log-probabilities are returned.
        """
        read = self.read(prompts)
        top = self._to_top(read.resid)
        found = []
        for row, prompt in enumerate(prompts):
            later = self.runner.logits(top[row, : len(prompt) - 1]).log_softmax(-1)[:, tokens.to(top.device)]
            first = (
                torch.zeros(1, len(tokens), device=top.device)
                if self.first is None
                else self.first[None, tokens.to(top.device)]
            )
            found.append(torch.cat([first, later]).cpu())
        return found

    @torch.no_grad()
    def next_log_probs(self, left: Sequence[int]) -> Float[Tensor, " d_vocab"]:
        """Return log p of every token as the next one after the chat text and the beginning of a prompt.

        Args:
            left: Token ids of the prompt's beginning.
        """
        ids = torch.tensor([list(left)], device=self.runner.device)
        resid, _ = self.runner.run(
            self.runner.embed(ids, self.kv.length if self.kv is not None else 0),
            0,
            self.runner.shape.n_layers,
            self.kv,
        )
        return self.runner.logits(resid[0, -1:]).log_softmax(-1)[0]

    @torch.no_grad()
    def norm(self, text: Sequence[int], site: Site) -> float:
        """Return the norm of the residual stream at a site, at the last token of a text in the chat.

        Args:
            text: Token ids, which follow the chat text left of the prompt.
            site: Where the residual stream is read.
        """
        ids = torch.tensor([list(text)], device=self.runner.device)
        with self.runner.capture((site,)) as caught:
            self.runner.run(
                self.runner.embed(ids, self.kv.length if self.kv is not None else 0),
                0,
                site.layer + 1,
                self.kv,
            )
        return float(caught[site][0, -1].float().norm())

    def _next(
        self,
        drafts: Sequence[SentenceDraft],
        texts: Sequence[list[int]],
        log_probs: Tensor | None,
        top_k: int,
        generator: torch.Generator,
    ) -> list[int]:
        """Return the next token of each row: its opening's, or a sampled one.

        Words that the sentence already has are not begun again.
        """
        if log_probs is None:  # no text is left of the first token, so any token may be drawn
            usable = torch.nonzero(self.usable)[:, 0]
            drawn = usable[torch.randint(len(usable), (len(drafts),), generator=generator)].tolist()
        else:
            top = log_probs.masked_fill(~self.usable, -torch.inf).topk(
                min(top_k, int(self.usable.sum())), dim=-1
            )
            logits = torch.stack(
                [self._weighed(*row) for row in zip(drafts, texts, top.values, top.indices, strict=True)]
            )
            places = torch.multinomial(logits.softmax(-1).cpu(), 1, generator=generator).to(
                top.indices.device
            )
            drawn = top.indices.gather(1, places)[:, 0].tolist()
        return [
            d.opening[len(t)] if len(t) < len(d.opening) else token
            for d, t, token in zip(drafts, texts, drawn, strict=True)
        ]

    def _weighed(
        self, draft: SentenceDraft, text: list[int], values: Tensor, tokens: Tensor
    ) -> Float[Tensor, " token"]:
        """Logits of one row's top tokens, with the draft's bias and without words that were used."""
        logits = values / draft.temperature
        if draft.bias is not None:
            logits = logits + draft.bias[tokens]
        used = [token for token in text if self.lower[token]]
        if used:
            logits = logits.masked_fill(
                (tokens[:, None] == torch.tensor(used, device=tokens.device)).any(1), -torch.inf
            )
        return logits

    def _pushed(
        self,
        pushes: Sequence[Tensor | None],
        tokens: Int[Tensor, "row 1"],
        kv: KeyValueCache | None,
        site: Site,
    ) -> tuple[Tensor, KeyValueCache | None]:
        """Run one step of the blocks, with each row's vector added to the residual stream at the site."""
        embedded = self.runner.embed(tokens, kv.length if kv is not None else 0)
        top = self.runner.shape.n_layers
        if all(push is None for push in pushes):
            return self.runner.run(embedded, 0, top, kv, keep=True)
        nothing = torch.zeros(self.runner.shape.d_model)
        added = torch.stack([nothing if push is None else push.cpu() for push in pushes])[:, None]
        with self.runner.edit(site.name, lambda resid: resid + added.to(resid)):
            return self.runner.run(embedded, 0, top, kv, keep=True)

    @torch.no_grad()
    def read(self, prompts: Sequence[Sequence[int]]) -> HalfRead:
        """Run prompts through the lower half of the blocks, after the chat text but without any question.

        Prompts of similar length are batched together.

        Args:
            prompts: Token ids of each prompt.
        """
        runner, lengths = self.runner, torch.tensor([len(p) for p in prompts])
        ids = pad_right([tuple(p) for p in prompts]).to(runner.device)
        resid = torch.zeros(
            *ids.shape, runner.shape.d_model, dtype=runner.embeddings().dtype, device=runner.device
        )
        for rows in _of_like_length(lengths):
            part = ids[rows, : int(lengths[rows].max())]
            kv = (
                self.low.fork(torch.zeros(len(part), dtype=torch.long, device=runner.device))
                if self.low is not None
                else None
            )
            resid[rows, : part.shape[1]] = runner.run(
                runner.embed(part, kv.length if kv is not None else 0), 0, self.half, kv
            )[0].to(resid)
        inside = torch.arange(ids.shape[1])[None] < lengths[:, None]
        means = (resid.float() * inside[..., None].to(resid.device)).sum(1).cpu() / lengths[:, None]
        return HalfRead(ids, lengths.to(runner.device), resid, means)

    @torch.no_grad()
    def means_after(
        self, left: Sequence[int], tails: Sequence[Sequence[int]]
    ) -> Float[Tensor, "tail d_model"]:
        """Return the mean residuals, at half the model's depth, of prompts with the same beginning.

        The beginning runs once for all of them. The result is on the CPU, and equals the `means` of `read`.

        Args:
            left: Token ids of the common beginning.
            tails: Token ids of the rest of each prompt.
        """
        runner, start = self.runner, self.low.length if self.low is not None else 0
        ids = torch.tensor([list(left)], device=runner.device)
        begun, kv = runner.run(runner.embed(ids, start), 0, self.half, self.low, keep=True)
        assert kv is not None
        found = []
        for first in range(0, len(tails), _TAILS):
            part = tails[first : first + _TAILS]
            lengths = torch.tensor([len(tail) for tail in part], device=runner.device)
            padded = pad_right([tuple(tail) for tail in part]).to(runner.device)
            rows = kv.fork(torch.zeros(len(part), dtype=torch.long, device=runner.device))
            resid, _ = runner.run(runner.embed(padded, start + len(left)), 0, self.half, rows)
            inside = torch.arange(padded.shape[1], device=runner.device)[None] < lengths[:, None]
            total = (resid.float() * inside[..., None]).sum(1) + begun.float().sum(1)
            found.append((total / (lengths[:, None] + len(left))).cpu())
        return torch.cat(found)

    @torch.no_grad()
    def log_probs_after(
        self, left: Sequence[int], prompts: Sequence[Sequence[int]]
    ) -> Float[Tensor, " prompt"]:
        """Return log p of each prompt after a text, without the prompt's first token.

        The sums of log-probabilities are on the CPU. The first token is left out because its probability also
        depends on whether a new text begins there.

        Args:
            left: Token ids of the text, which follows the writer's chat text.
            prompts: Token ids of each prompt.
        """
        runner, start = self.runner, self.kv.length if self.kv is not None else 0
        ids = torch.tensor([list(left)], device=runner.device)
        _, kv = runner.run(runner.embed(ids, start), 0, self.top, self.kv, keep=True)
        assert kv is not None
        found, lengths = torch.zeros(len(prompts)), torch.tensor([len(prompt) for prompt in prompts])
        for rows in _of_like_length(lengths):
            padded = pad_right([tuple(prompts[row]) for row in rows.tolist()]).to(runner.device)
            cache = kv.fork(torch.zeros(len(rows), dtype=torch.long, device=runner.device))
            logits = runner.logits(
                runner.run(runner.embed(padded, start + len(left)), 0, self.top, cache)[0][:, :-1]
            )
            gained = logits.gather(-1, padded[:, 1:, None])[..., 0] - logits.logsumexp(-1)
            inside = torch.arange(1, padded.shape[1])[None] < lengths[rows, None]
            found[rows] = (gained.cpu() * inside).sum(1)
        return found

    def _to_top(self, resid: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        if self.half == self.top:
            return resid
        kv = (
            self.high.fork(torch.zeros(len(resid), dtype=torch.long, device=resid.device))
            if self.high is not None
            else None
        )
        return self.runner.run(resid, self.half, self.top, kv)[0]

    @torch.no_grad()
    def screen(self, read: HalfRead) -> ScreenedSentences:
        """Compute the measures by which sentences are screened, such as their cross-entropy.

        The prompts ran through the lower half of the blocks; this runs the upper half. The fifth measure
        (whether the sentence describes an evil assistant) is left out; `SentenceTools` computes it when
        needed.

        Args:
            read: The prompts with their residuals, the result of the method `read`.
        """
        measures = torch.full((len(read.ids), 5), UNMEASURED)
        for rows in _of_like_length(read.lengths.cpu()):
            measures[rows, :4] = self._screen(read.pick(rows))
        return ScreenedSentences(measures, read.means)

    def _screen(self, read: HalfRead) -> Float[Tensor, "prompt 4"]:
        ids, lengths, top = read.ids, read.lengths, self._to_top(read.resid)
        logits = self.runner.logits(top[:, :-1])
        losses = logits.logsumexp(-1) - logits.gather(-1, ids[:, 1:, None])[..., 0]
        first = -self.first[ids[:, 0]] if self.first is not None else torch.zeros(len(ids), device=ids.device)
        places = torch.arange(ids.shape[1], device=ids.device)[None]
        losses = torch.cat([first[:, None], losses], 1) * (places < lengths[:, None])
        ends = self.ends[ids] & (places > 0) & (places < lengths[:, None])
        broken = losses.masked_fill(~self.small[ids] | ends | (places == 0), 0.0).max(1).values
        ending = losses.masked_fill(~ends, 0.0).max(1).values
        word = (self.begins[ids] | ~self.letters[ids] | (places == 0)).long().cumsum(1) - 1
        by_word = torch.zeros_like(losses).scatter_add(1, word, losses)
        return torch.stack([losses.sum(1) / lengths, broken, by_word[:, 1:].max(1).values, ending], 1).cpu()


def _of_like_length(lengths: Int[Tensor, " prompt"]) -> tuple[Int[Tensor, " row"], ...]:
    """Split rows into batches of similar length, the shortest prompts first."""
    return lengths.argsort(stable=True).split(_ROWS)
