"""The interface to TransformerLens that search, activations and answers use.

A `Runner` embeds ids, runs a range of blocks (optionally after a key-value cache), and unembeds. Other code
does not know whether the model is a `HookedTransformer` (`hooked_runner.py`) or a `TransformerBridge`
(`bridge_runner.py`).

Two rules make the results exact without an attention mask: batches are padded on the right only (a causal
model never looks to the right), and rows that share a key-value cache have prefixes of equal length. If a
model's attention can mask padding, caches of unequal length can be batched (`Runner.batch_caches`).
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.budget import Meter
from workbench.errors import UserError
from workbench.models.chat_template import render_chat, reply_ends
from workbench.models.hook_sites import Site
from workbench.models.vocabulary_chunks import row_chunks
from workbench.text_forms import require_whole_text

#: Short dtypes of weights, for which log-odds are still computed in float32.
HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a model.

    Attributes:
        n_layers: Number of blocks.
        d_model: Width of the residual stream.
        n_heads: Query heads per block.
        n_kv_heads: Key and value heads per block.
        d_head: Width of a head.
        d_vocab: Rows of the embedding.
        n_ctx: Longest context in tokens.
        block_parameters: Weights of one block (mean over blocks).
        tied: Whether embedding and unembedding are one matrix.
    """

    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_vocab: int
    n_ctx: int
    block_parameters: int
    tied: bool

    @classmethod
    def of(cls, cfg: Any, in_blocks: int, tied: bool) -> ModelShape:
        """Read the sizes from a TransformerLens configuration.

        Args:
            cfg: The model's `cfg`.
            in_blocks: Number of weights of all blocks together.
            tied: Whether embedding and unembedding share their memory.
        """
        return cls(
            n_layers=cfg.n_layers,
            d_model=cfg.d_model,
            n_heads=cfg.n_heads,
            n_kv_heads=cfg.n_key_value_heads or cfg.n_heads,
            d_head=cfg.d_head,
            d_vocab=cfg.d_vocab,
            n_ctx=cfg.n_ctx,
            block_parameters=in_blocks // cfg.n_layers,
            tied=tied,
        )


@dataclass(frozen=True)
class TokenLayout:
    """Token positions of the prompt and of the decision token in each row of the batch that runs.

    The decision token is the last one before the answer. Activation edits that are limited to some positions
    use this.

    Attributes:
        prompt_start: First position of the prompt.
        prompt_stop: Position after the prompt's last (equal to `prompt_start` if there is no prompt).
        decision: Position of the decision token.
    """

    prompt_start: Int[Tensor, " batch"]
    prompt_stop: Int[Tensor, " batch"]
    decision: Int[Tensor, " batch"]


class KeyValueCache(ABC):
    """Cached keys and values of token positions, which later runs continue.

    For models whose keys and values cannot be cached, the cache has residuals instead. A cache is immutable:
    every operation returns a new one.

    Attributes:
        length: Number of cached positions, padding included.
        batch: Number of rows (sequences).
        owners: Number of caches that were joined to this one (`Runner.batch_caches`); each of them has an
            equal number of neighbouring rows.
    """

    length: int
    batch: int
    #: Number of caches batched into this one (`Runner.batch_caches`), each with the same number of rows.
    owners: int = 1

    @abstractmethod
    def fork(self, index: Int[Tensor, " new_batch"]) -> KeyValueCache:
        """Gather rows of the cache by index; a cache of one row is expanded without a copy.

        If several caches were joined to this one (`Runner.batch_caches`), `index` must select the same number
        of rows from each of them, in the order of the caches.

        Args:
            index: Row of this cache for each row of the result.
        """

    @abstractmethod
    def crop(self, length: int) -> KeyValueCache:
        """Return a cache of the first `length` positions only."""

    def pick(self, owners: Sequence[int], skip: int = 0) -> KeyValueCache:
        """Select some of the caches that were joined to this one by `Runner.batch_caches`.

        Args:
            owners: Indices of the caches, in the order of the result.
            skip: Number of positions to drop on the left, which must be padding in all selected caches.
        """
        raise NotImplementedError(f"{type(self).__name__} is never run in a batch")


#: Attribute of a model that holds the end tokens of its generation config.
CONFIGURED_ENDS = "_workbench_reply_ends"


class Runner(ABC):
    """Run one model in parts: embed, run a range of blocks with or without a cache, and unembed.

    Get one with `runner_for(model)`; the subclasses are for `HookedTransformer` and `TransformerBridge`.
    Activations are read with `capture` and changed with `edit`.

    Attributes:
        model: The TransformerLens model.
        tokenizer: The model's tokenizer.
        shape: Layers, heads, widths and numbers of parameters.
        meter: Counts the tokens, layers and FLOPs of all runs.
        layout: Token positions of the prompt and of the decision token (the last one before the answer) in
            the batch that runs, for edits that act at some positions only; None while nothing runs.

    Example:
        >>> runner = wb.runner_for(model)
        >>> ids = torch.tensor([runner.encode("I think so .")])
        >>> resid, _ = runner.run(runner.embed(ids), 0, runner.shape.n_layers)
        >>> torch.allclose(runner.logits(resid), model(ids), atol=1e-4)
        True
    """

    def __init__(self, model: Any, shape: ModelShape) -> None:
        if model.tokenizer is None:
            raise UserError("the model has no tokenizer: load one and attach it before use")
        self.model = model
        self.tokenizer = model.tokenizer
        self.shape = shape
        self.meter = Meter()
        self.layout: TokenLayout | None = None
        self._batch_limit: int | None = None

    @property
    def device(self) -> torch.device:
        """Device of the embedding.

        If blocks are on other devices, residuals, logits and hooked activations are moved to this one.
        """
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the residual stream."""
        return next(self.model.parameters()).dtype

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change if sizes or weights change (64 elements of each weight are read)."""
        sizes = ", ".join(f"{name}={value!r}" for name, value in vars(self.shape).items())
        digest = hashlib.sha256(
            f"Shape({sizes})".encode()
        )  # not repr: renaming the class would change the fingerprint in stored runs
        for name, weight in sorted(self.model.named_parameters()):
            flat = weight.detach().reshape(-1)
            sample = flat[:: max(1, flat.numel() // 64)][:64]
            digest.update(f"{name}{tuple(weight.shape)}".encode() + sample.float().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def encode(self, text: str) -> list[int]:
        """Encode a text to token ids, without adding special tokens (rendered chat text already has them)."""
        require_whole_text(text, f"the text {text[:40]!r}")
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """Decode token ids to text, with special tokens shown and spaces unchanged."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def render(self, messages: Sequence[dict[str, str]], opening: str = "") -> str:
        """Render a chat as text that ends where the assistant's answer begins, followed by `opening`.

        The date in the template is fixed, and a reasoning block (such as `<think>`) that the template opens
        is closed (see `chat_template`). Models without a template get `Question: ... Answer:` after their BOS
        token.

        Args:
            messages: The chat so far; each message has `role` and `content`.
            opening: First words of the assistant's answer.

        Raises:
            UserError: The template refuses the messages (Gemma's has no system role).
        """
        return render_chat(self.tokenizer, messages) + opening

    @property
    def reply_ends(self) -> frozenset[int]:
        """Ids of the tokens that end a reply.

        They are the tokenizer's end of sequence, those of the generation config, and the chat template's end
        of turn.
        """
        return reply_ends(self.tokenizer, self.model.__dict__.get(CONFIGURED_ENDS))

    @contextmanager
    def limited(self, batch_tokens: int) -> Iterator[None]:
        """Limit batches to `batch_tokens` tokens while the `with` block runs.

        Methods that take a number of tokens per batch respect the limit by calling `at_most`.
        """
        before, self._batch_limit = self._batch_limit, batch_tokens
        try:
            yield
        finally:
            self._batch_limit = before

    def at_most(self, batch_tokens: int) -> int:
        """Return the smaller of `batch_tokens` and the limit that `limited` has set.

        Both are numbers of tokens per batch.
        """
        return batch_tokens if self._batch_limit is None else min(batch_tokens, self._batch_limit)

    @contextmanager
    def rendering(self, template: Literal["chat", "none"]) -> Iterator[None]:
        """Choose how `render` works while the `with` block runs.

        Args:
            template: `chat` uses the model's chat template; `none` renders as if the model had none.
        """
        own = getattr(self.tokenizer, "chat_template", None)
        if template == "none":
            self.tokenizer.chat_template = None
        try:
            yield
        finally:
            self.tokenizer.chat_template = own

    @abstractmethod
    def embed(self, ids: Int[Tensor, "batch pos"], offset: int = 0) -> Float[Tensor, "batch pos d_model"]:
        """Return the residual stream before block 0, at the model's own scale.

        Args:
            ids: Token ids.
            offset: Position of the first id in its sequence.
        """

    @abstractmethod
    def run(
        self,
        resid: Float[Tensor, "batch pos d_model"],
        start: int,
        stop: int,
        kv: KeyValueCache | None = None,
        keep: bool = False,
    ) -> tuple[Float[Tensor, "batch pos d_model"], KeyValueCache | None]:
        """Run blocks start..stop-1 and return the residual stream after them.

        A cache can be used for a run of fewer blocks than it was made for, if both begin at the same block.

        Args:
            resid: Residual stream before block `start`, for the positions that follow those of `kv`.
            start: First block.
            stop: Block after the last.
            kv: Cache of the earlier positions, which is never changed; None if there are none.
            keep: Whether to return the cache extended by these positions.

        Returns:
            The residual stream after block stop-1, and the extended cache (None unless `keep`).
        """

    def run_at(
        self,
        resid: Float[Tensor, "batch pos d_model"],
        start: int,
        stop: int,
        positions: Int[Tensor, " batch"],
        kv: KeyValueCache | None = None,
        sites: Sequence[Site] = (),
    ) -> Float[Tensor, "batch 1 d_model"]:
        """Run blocks like `run`, but return the residual stream at one position per row.

        The result equals that of `run` at these positions, up to rounding. A model may skip unneeded parts of
        the last block, if no hook is set in that block except those of `sites`.

        Args:
            resid: Residual stream before block `start`.
            start: First block.
            stop: Block after the last.
            positions: The position to return, one per row.
            kv: Cache of the earlier positions; None if there are none.
            sites: Sites that the caller captures. In the last block, a captured activation may have only the
                one position per row.
        """
        out, _ = self.run(resid, start, stop, kv)
        return out[torch.arange(len(out), device=out.device), positions][:, None]

    def batch_caches(self, caches: Sequence[KeyValueCache]) -> KeyValueCache | None:
        """Join several caches to one, so that runs that continue them are batched.

        The caches have one row each and were made for the same blocks. Shorter ones are padded on the left,
        and attention does not see the padding. Continuing the joined cache gives the same numbers as
        continuing each cache alone, up to rounding. A run's rows are ordered by cache, the same number for
        each. In models with learned position embeddings the caller must embed each row at its own positions.

        Args:
            caches: The caches to join.

        Returns:
            The joined cache, or None if this model's attention cannot mask padding.
        """
        return None

    @abstractmethod
    def logits(self, resid: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_vocab"]:
        """Apply final norm, unembedding and soft-cap, and return float32 logits.

        Args:
            resid: Residual stream after the last block.
        """

    def logits_between(
        self, resid: Float[Tensor, "... d_model"], start: int, stop: int
    ) -> Float[Tensor, "... token"] | None:
        """Return the float32 logits of the tokens start..stop-1, which equal `logits(resid)[..., start:stop]`.

        Args:
            resid: Residual stream after the last block.
            start: First token of the vocabulary.
            stop: Token after the last one.

        Returns:
            The logits; None if the model cannot compute some logits without the others.
        """
        return None

    @abstractmethod
    def logits_of(
        self, resid: Float[Tensor, "batch d_model"], ids: Int[Tensor, "batch k"]
    ) -> Float[Tensor, "batch k"]:
        """Return float32 logits of a few tokens per row, without computing those of all tokens.

        They equal `logits(resid)` at `ids`, but final norm and unembedding are in float32 even if the model's
        weights are in a shorter dtype.

        Args:
            resid: Residuals after the last block, one position per row.
            ids: Token ids, each row's own.
        """

    @abstractmethod
    def log_normalizer(self, resid: Float[Tensor, "position d_model"]) -> Float[Tensor, " position"]:
        """Return log(sum(exp(logits))) over the vocabulary for each position, in float32 throughout.

        log p(token) = logits_of - log_normalizer. Logits are computed in chunks of the vocabulary
        (`vocabulary_chunks`), so memory does not grow with its size.
        """

    def log_probs_of(
        self, resid: Float[Tensor, "batch d_model"], ids: Int[Tensor, "batch k"]
    ) -> Float[Tensor, "batch k"]:
        """Return log-probabilities (nats, float32) of a few tokens per row.

        Use `log_normalizer` instead if gradients must not keep the logits in memory.

        Args:
            resid: Residuals after the last block, one position per row.
            ids: Token ids, each row's own.
        """
        if self.dtype in HALF:
            return self.logits_of(resid, ids) - self.log_normalizer(resid)[:, None]
        parts = [
            self.logits(resid[rows]).log_softmax(-1).gather(-1, ids[rows])
            for rows in row_chunks(len(resid), self.shape.d_vocab)
        ]
        return torch.cat(parts) if parts else ids.new_zeros(ids.shape, dtype=torch.float32)

    def embeddings(self, start: int = 0, stop: int | None = None) -> Float[Tensor, "token d_model"]:
        """Return the embeddings of the tokens start..stop-1 as they enter the residual stream.

        They are exact up to a constant that all tokens share (such as a position embedding). By default all
        tokens of the vocabulary are embedded.
        """
        ids = torch.arange(start, self.shape.d_vocab if stop is None else stop, device=self.device)
        with torch.no_grad():
            return self.embed(ids[:, None])[:, 0]

    @abstractmethod
    def hook_names(self) -> set[str]:
        """Return the names of all hook points of this model."""

    @contextmanager
    def edit(self, name: str, fn: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Replace the activation at a hook by fn(activation) while the `with` block runs.

        The hook is removed at the end, also after an error.

        Args:
            name: A TransformerLens hook name.
            fn: Function from the activation to its replacement, of the same shape.

        Raises:
            UserError: The name is unknown, or the hook never fired in the block.
        """
        if name not in self.hook_names():
            raise UserError(f"unknown hook name {name!r} in this model")
        fired = False

        def hook(activation: Tensor, hook: Any) -> Tensor:
            nonlocal fired
            fired = True
            return fn(activation.to(self.device)).to(activation.device)

        with self.model.hooks(fwd_hooks=[(name, hook)]):
            yield
        if not fired:
            raise UserError(f"the hook {name!r} never fired: the model was not run up to its layer")

    @contextmanager
    def placed(self, layout: TokenLayout) -> Iterator[None]:
        """Set the attribute `layout` while the `with` block runs.

        Edits of activations at some positions read from it where the prompt and the decision token are.

        Args:
            layout: Token positions of the prompt and of the decision token (the last one before the answer)
                in each row.
        """
        before, self.layout = self.layout, layout
        try:
            yield
        finally:
            self.layout = before

    @contextmanager
    def capture(self, sites: Sequence[Site]) -> Iterator[dict[Site, Tensor]]:
        """Collect the activations at some sites during runs inside the `with` block, as a dictionary by site.

        All positions are captured, and the autograd graph is kept. A later run replaces the activations of an
        earlier one. A site above the last block that ran is missing.
        """
        caught: dict[Site, Tensor] = {}

        def keeper(site: Site) -> Callable[[Tensor, Any], None]:
            def keep(activation: Tensor, hook: Any) -> None:
                caught[site] = activation.to(self.device)

            return keep

        hooks = [(site.checked(self.shape.n_layers).name, keeper(site)) for site in sites]
        with self.model.hooks(fwd_hooks=hooks):
            yield caught

    @torch.no_grad()
    def read(
        self, ids: Int[Tensor, "batch pos"], sites: Sequence[Site], positions: Int[Tensor, " batch"]
    ) -> dict[Site, Float[Tensor, "batch d_model"]]:
        """Return float32 activations at one position per row, for each site.

        No block above the highest site runs. Sites of the hooks `z` and `pattern` keep their trailing axes.

        Args:
            ids: Token ids, padded on the right.
            sites: Where to read.
            positions: The position to read, one per row.

        Raises:
            UserError: A hook did not fire.
        """
        rows, at = torch.arange(len(ids), device=self.device), positions.to(self.device)
        with self.capture(sites) as caught:
            self.run(self.embed(ids.to(self.device)), 0, max(site.layer for site in sites) + 1)
        missing = [site.name for site in sites if site not in caught]
        if missing:
            raise UserError(f"hooks that never fired: {', '.join(missing)}")
        return {
            site: (a[rows, :, at] if site.hook == "pattern" else a[rows, at]).float()
            for site, a in caught.items()
        }

    @torch.no_grad()
    def generate(
        self,
        ids: Int[Tensor, "batch pos"],
        max_new_tokens: int,
        temperature: float = 0.0,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        banned: Tensor | None = None,
        ends: Collection[int] = (),
    ) -> Int[Tensor, "batch new_pos"]:
        """Generate new tokens after `ids`, whose rows have equal length.

        A row continues after its end-of-sequence token, and the caller cuts it there.

        Args:
            ids: Token ids of the texts to continue.
            max_new_tokens: Largest number of new tokens per row.
            temperature: Sampling temperature; 0 is greedy decoding.
            generator: Random generator for sampling, or one for each row; None uses torch's global one.
            banned: Boolean mask [d_vocab] of tokens that are never produced.
            ends: Ids that end a reply; generation stops once every row has produced one of them.

        Returns:
            The new tokens only.

        Raises:
            UserError: Logits are not finite.
        """
        kv, new, step, ended = None, [], ids.to(self.device), [False] * len(ids)
        finite = torch.ones((), dtype=torch.bool, device=self.device)
        for _ in range(max_new_tokens):
            resid, kv = self.run(
                self.embed(step, offset=kv.length if kv else 0), 0, self.shape.n_layers, kv, keep=True
            )
            logits = self.logits(resid[:, -1])
            finite &= logits.isfinite().all()
            if temperature and not finite:
                break
            if banned is not None:
                logits = logits.masked_fill(banned.to(logits.device), -torch.inf)
            step = _sample(logits, temperature, generator)[:, None]
            new.append(step)
            ended = (
                [was or token in ends for was, token in zip(ended, step[:, 0].tolist(), strict=True)]
                if ends
                else ended
            )
            if ends and all(ended):
                break
        if not finite:
            raise UserError(
                f"a text cannot be continued: {self._why_not_finite(torch.cat([ids.to(self.device), *new], dim=1))}"
            )
        return torch.cat(new, dim=1)

    def _why_not_finite(self, ids: Int[Tensor, "batch pos"]) -> str:
        from workbench.models.finite_check import first_not_finite

        found = (first_not_finite(self, row) for row in ids.tolist())
        return next(
            (place for place in found if place),
            "the logits were no finite numbers under the edits that are on",
        )

    def _count(self, out: Tensor, blocks: int, keys: int) -> None:
        """Count the tokens, layers and FLOPs of one run in the meter.

        A weight costs two operations per token; attention costs four per token, key and head dimension. If
        the output has an autograd graph, one backward pass is counted too. The weights are frozen, so each of
        their products has one product in the backward pass; queries, keys, pattern and values all vary, so
        each of the products of attention has two.
        """
        layers = int(out.shape[0] * out.shape[1]) * blocks
        self._count_layers(out, layers, layers * keys)

    def _count_layers(self, out: Tensor, layers: float, pairs: float) -> None:
        """Count `layers` token-block pairs and `pairs` query-key pairs in the meter.

        `layers` is tokens x blocks (a part of a block counts by its weights); `pairs` is summed over all
        blocks.
        """
        layers, pairs = (
            round(layers),
            round(pairs),
        )  # sums of whole numbers do not depend on their order, so a resumed run counts the same
        weights, attention = (
            2 * layers * self.shape.block_parameters,
            4 * pairs * self.shape.n_heads * self.shape.d_head,
        )
        self.meter.forward += layers
        self.meter.flops += weights + attention
        if out.requires_grad:
            self.meter.backward += layers
            self.meter.flops += weights + 2 * attention

    def _count_unembedding(self, resid: Tensor) -> None:
        positions = resid.numel() // resid.shape[-1]
        self.meter.unembedded += positions
        self._count_products(positions * self.shape.d_vocab, resid)

    def _count_products(self, logits: float, resid: Tensor) -> None:
        """Count scalar products of residuals with the unembedding.

        Those of the backward pass are added if the residuals have a graph.
        """
        passes = 2 if torch.is_grad_enabled() and resid.requires_grad else 1
        self.meter.flops += 2 * passes * round(logits) * self.shape.d_model


def _sample(
    logits: Float[Tensor, "batch d_vocab"],
    temperature: float,
    generator: torch.Generator | Sequence[torch.Generator] | None,
) -> Int[Tensor, " batch"]:
    if temperature == 0.0:
        return logits.argmax(dim=-1)
    weights = (logits / temperature).softmax(dim=-1).cpu()
    if isinstance(generator, Sequence):
        rows = [torch.multinomial(row, 1, generator=own) for row, own in zip(weights, generator, strict=True)]
        return torch.cat(rows).to(logits.device)
    return torch.multinomial(weights, 1, generator=generator)[:, 0].to(logits.device)
