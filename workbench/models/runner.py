"""The interface to TransformerLens that search, activations and answers are written against.

A `Runner` embeds ids, runs a range of blocks that continues a key-value cache, and unembeds. Nothing else in
the workbench knows whether the model is a `HookedTransformer` (`hooked_runner.py`) or a `TransformerBridge`
(`bridge_runner.py`).

Two rules make the arithmetic exact without any attention mask: batches are padded on the right only (a causal
model never looks to the right), and rows that share a key-value cache have prefixes of equal length. Where a
model's attention can leave padding out by itself, caches of unequal length can be stacked
(`Runner.batch_caches`).
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

#: Dtypes of weights in which log-odds are still read in float32.
HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a model. block_parameters: weights of one block (mean over blocks)."""

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
        """Sizes from a TransformerLens configuration. in_blocks: weights of all blocks together."""
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
    """Which positions hold what in the batch that is running, per row, for edits that act at some positions only.

    prompt_start, prompt_stop: first and one-past-last position of the prompt (equal where there is none).
    decision: position of the decision token.
    """

    prompt_start: Int[Tensor, " batch"]
    prompt_stop: Int[Tensor, " batch"]
    decision: Int[Tensor, " batch"]


class KeyValueCache(ABC):
    """Keys and values (or what stands for them) of the positions to the left. Immutable: every operation gives a new one."""

    length: int
    batch: int
    #: Of batched caches (`Runner.batch_caches`): how many there are, each for as many neighbouring rows.
    owners: int = 1

    @abstractmethod
    def fork(self, index: Int[Tensor, " new_batch"]) -> KeyValueCache:
        """Rows gathered by index; a cache of one row is expanded without a copy.

        In batched caches every owner gets as many rows as the others, its own ones, in the owners' order.
        """

    @abstractmethod
    def crop(self, length: int) -> KeyValueCache:
        """Only the first `length` positions."""

    def pick(self, owners: Sequence[int], skip: int = 0) -> KeyValueCache:
        """Of batched caches, the rows of some owners, without the first `skip` positions (padding of all of them)."""
        raise NotImplementedError(f"{type(self).__name__} is never run in a batch")


#: Under this name a model keeps the end tokens of its generation config.
CONFIGURED_ENDS = "_workbench_reply_ends"


class Runner(ABC):
    """One model that can be run in parts: `embed`, `run` a range of blocks (with or without a cache), `logits`, `capture`, `edit`.

    Use `runner_for(model)`; its subclasses are for `HookedTransformer` and `TransformerBridge`.

    Attributes:
        model: The TransformerLens model.
        tokenizer: The model's tokenizer.
        shape: Layers, heads, widths and numbers of parameters.
        meter: Counts tokens, layers and FLOPs of all runs.
        layout: Which positions of the running batch hold what, for edits at some positions; None while
            nothing runs.

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
        """Where the embedding lives: residuals, logits and what hooks see come back to it when blocks live elsewhere."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the residual stream."""
        return next(self.model.parameters()).dtype

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change when sizes or weights do (64 elements of each weight are read)."""
        sizes = ", ".join(f"{name}={value!r}" for name, value in vars(self.shape).items())
        digest = hashlib.sha256(
            f"Shape({sizes})".encode()
        )  # not repr: a class renamed would be another model in stored runs
        for name, weight in sorted(self.model.named_parameters()):
            flat = weight.detach().reshape(-1)
            sample = flat[:: max(1, flat.numel() // 64)][:64]
            digest.update(f"{name}{tuple(weight.shape)}".encode() + sample.float().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, no special token added (rendered text holds its own)."""
        require_whole_text(text, f"the text {text[:40]!r}")
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens shown, spaces untouched."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def render(self, messages: Sequence[dict[str, str]], opening: str = "") -> str:
        """Chat text up to where the assistant's answer begins, followed by `opening`.

        UserError when the template refuses the messages (Gemma's has no system role). Today's date is pinned
        and an open thought closed (see `chat_template`). Models without a template get
        `Question: ... Answer:` after their BOS token.
        """
        return render_chat(self.tokenizer, messages) + opening

    @property
    def reply_ends(self) -> frozenset[int]:
        """Tokens that end a reply: the tokenizer's end of sequence, the generation config's, and the template's end of turn."""
        return reply_ends(self.tokenizer, self.model.__dict__.get(CONFIGURED_ENDS))

    @contextmanager
    def limited(self, batch_tokens: int) -> Iterator[None]:
        """While the block runs, nothing that takes a number of tokens per batch runs more than these at a time (`at_most`)."""
        before, self._batch_limit = self._batch_limit, batch_tokens
        try:
            yield
        finally:
            self._batch_limit = before

    def at_most(self, batch_tokens: int) -> int:
        """This number of tokens per batch, or the limit that is set (`limited`)."""
        return batch_tokens if self._batch_limit is None else min(batch_tokens, self._batch_limit)

    @contextmanager
    def rendering(self, template: Literal["chat", "none"]) -> Iterator[None]:
        """While the block runs, `render` uses the chat template, or ("none") does as if the model had none."""
        own = getattr(self.tokenizer, "chat_template", None)
        if template == "none":
            self.tokenizer.chat_template = None
        try:
            yield
        finally:
            self.tokenizer.chat_template = own

    @abstractmethod
    def embed(self, ids: Int[Tensor, "batch pos"], offset: int = 0) -> Float[Tensor, "batch pos d_model"]:
        """Residual stream before block 0, at the model's own scale. offset: position of the first id in its sequence."""

    @abstractmethod
    def run(
        self,
        resid: Float[Tensor, "batch pos d_model"],
        start: int,
        stop: int,
        kv: KeyValueCache | None = None,
        keep: bool = False,
    ) -> tuple[Float[Tensor, "batch pos d_model"], KeyValueCache | None]:
        """Residual stream after blocks start..stop-1 for positions that follow `kv`'s; with keep, the longer cache too.

        A cache made for blocks start..stop' serves every run start..stop with stop <= stop'. `kv` is never
        changed.
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
        """`run`, of which only one position a row is wanted: the same numbers to rounding.

        A model may leave out of the last block what nothing reads. It does so only where no hook is set in
        that block, but those of `sites`: what the caller captures there itself has then one position a row.
        """
        out, _ = self.run(resid, start, stop, kv)
        return out[torch.arange(len(out), device=out.device), positions][:, None]

    def batch_caches(self, caches: Sequence[KeyValueCache]) -> KeyValueCache | None:
        """One cache of several (of one row each, made for the same blocks).

        The rows that continue it belong to them in turn, as many to each. Shorter ones are padded on the
        left, where attention sees nothing; what continues it has the same numbers to rounding.

        None where this model's attention cannot do it. With position embeddings, rows are embedded at their
        own places by the caller.
        """
        return None

    @abstractmethod
    def logits(self, resid: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_vocab"]:
        """Float32 logits of residuals that left the last block: final norm, unembedding, soft-cap."""

    @abstractmethod
    def logits_of(
        self, resid: Float[Tensor, "batch d_model"], ids: Int[Tensor, "batch k"]
    ) -> Float[Tensor, "batch k"]:
        """Logits of a few tokens only (a row's own).

        `logits(resid)` gathered at ids, with final norm and unembedding in float32 also where the model's
        weights are not.
        """

    @abstractmethod
    def log_normalizer(self, resid: Float[Tensor, "position d_model"]) -> Float[Tensor, " position"]:
        """log(sum(exp(logits))) over the vocabulary, float32 throughout.

        Logits are made by chunks, so that memory does not grow with the vocabulary (`vocabulary_chunks`). log
        p(token) = logits_of - log_normalizer.
        """

    def log_probs_of(
        self, resid: Float[Tensor, "batch d_model"], ids: Int[Tensor, "batch k"]
    ) -> Float[Tensor, "batch k"]:
        """Log-probabilities (nats) of a few tokens only, a row's own, float32; no gradient is kept small here."""
        if self.dtype in HALF:
            return self.logits_of(resid, ids) - self.log_normalizer(resid)[:, None]
        parts = [
            self.logits(resid[rows]).log_softmax(-1).gather(-1, ids[rows])
            for rows in row_chunks(len(resid), self.shape.d_vocab)
        ]
        return torch.cat(parts) if parts else ids.new_zeros(ids.shape, dtype=torch.float32)

    def embeddings(self, start: int = 0, stop: int | None = None) -> Float[Tensor, "token d_model"]:
        """Embeddings of the tokens start..stop-1 (all by default) in the residual stream at their position.

        Up to a constant
        shared by all tokens.
        """
        ids = torch.arange(start, self.shape.d_vocab if stop is None else stop, device=self.device)
        with torch.no_grad():
            return self.embed(ids[:, None])[:, 0]

    @abstractmethod
    def hook_names(self) -> set[str]:
        """Names of all hook points of this model."""

    @contextmanager
    def edit(self, name: str, fn: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """While the block runs, the activation at hook `name` is replaced by fn(activation); the hook always comes off.

        Raises UserError for an unknown name, and when nothing ran through the hook although the block ended
        well.
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
        """Tells edits which positions hold what in the batch while it runs."""
        before, self.layout = self.layout, layout
        try:
            yield
        finally:
            self.layout = before

    @contextmanager
    def capture(self, sites: Sequence[Site]) -> Iterator[dict[Site, Tensor]]:
        """Collects the activation at each site's hook (all positions, graph kept) from the run inside the block.

        The dictionary holds the last run's activations; a run that stops below a site leaves it out.
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
        """Float32 activations at one position a row, for each site; runs no block above the highest site.

        For `z` and `pattern` sites the trailing axes are kept. Raises UserError when a hook did not fire.
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
        generator: torch.Generator | None = None,
        banned: Tensor | None = None,
        ends: Collection[int] = (),
    ) -> Int[Tensor, "batch new_pos"]:
        """New tokens after ids (rows of equal length); greedy at temperature 0.

        banned: bool [d_vocab], never produced. A row goes on after its end-of-sequence token: cut there by
        the caller; once every row has one of `ends`, all stop. UserError where logits are no finite numbers.
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
        """Counts one run into the meter by what it gave: two operations a weight and token, four a token, key and dimension of a head.

        Where a graph hangs on it one backward pass is expected: the weights are frozen, so each of their
        products has one product after it; queries, keys, pattern and values all vary, so each of attention's
        has two.
        """
        layers = int(out.shape[0] * out.shape[1]) * blocks
        self._count_layers(out, layers, layers * keys)

    def _count_layers(self, out: Tensor, layers: float, pairs: float) -> None:
        """`layers`: tokens x blocks (a part of a block counts by its weights); `pairs`: of a query and a key, over all blocks."""
        layers, pairs = (
            round(layers),
            round(pairs),
        )  # whole numbers add up to the same whatever the order, and after a resume
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
        """Scalar products of residuals with the unembedding, and those of the backward pass where the residuals have a graph."""
        passes = 2 if torch.is_grad_enabled() and resid.requires_grad else 1
        self.meter.flops += 2 * passes * round(logits) * self.shape.d_model


def _sample(
    logits: Float[Tensor, "batch d_vocab"], temperature: float, generator: torch.Generator | None
) -> Int[Tensor, " batch"]:
    if temperature == 0.0:
        return logits.argmax(dim=-1)
    weights = (logits / temperature).softmax(dim=-1).cpu()
    return torch.multinomial(weights, 1, generator=generator)[:, 0].to(logits.device)
