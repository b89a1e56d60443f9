"""Run any decoder that `TransformerBridge` wraps block by block, without knowing its architecture.

The Hugging Face model decides how its blocks are called. To learn that, its list of layers is replaced by
stand-in modules while one of the model's own forward passes runs:

1. `embed`: the first stand-in catches the input of block 0 (scaled, with position embeddings if the model has
   them).
2. Block arguments: stand-ins record which arguments each block gets for `length` positions after `offset`
   earlier ones (causal and sliding masks, rotary tables of its layer type). These arguments do not depend on
   the activations, so they are cached.
3. `run`: the bridge's blocks run one after the other with these arguments.
4. `logits`: a single stand-in returns the given residuals; final norm, head, soft-cap and scales are the
   model's own.
5. Device maps: each block gets its arguments on its own device, and its keys and values stay there. Residuals
   and logits come back to the device of the embedding, so callers see one device.

Keys and values: the bridge's attention passes each new pair to its method `_update_kv_cache`. During a run
that method is replaced by one that joins the pair to the cache. (The bridge's own method reads the argument
`past_key_values`, which transformers 5.24 renamed; it would silently attend to no cached position.) If an
attention never calls the method, the cache holds residuals instead and the prefix runs again, which is slow
but exact. When the runner is made, a short probe measures which case applies, and that running block by block
gives the model's own logits.

Caches of prefixes of unequal length can run as one batch (`batch_caches`): shorter prefixes are padded on the
left, and the model's own pass gives the arguments for such a batch (an attention mask that hides the padding,
and each row's own positions). At the first such batch the result is compared with each prefix alone; if they
differ, contexts run one at a time.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformer_lens.model_bridge import AttentionBridge, TransformerBridge
from transformers import DynamicCache
from typing_extensions import override

from workbench.errors import UserError
from workbench.models.output_head import find_output_head
from workbench.models.runner import KeyValueCache, ModelShape, Runner
from workbench.models.vocabulary_chunks import row_chunks

_KEPT_ARGUMENTS = 64
_PROBE_LENGTH = 6


@dataclass(frozen=True)
class BridgeKeyValueCache(KeyValueCache):
    """Keys and values of each block from block `start` on, each [batch kv_head pos d_head].

    Keys are stored after the rotary embedding. Several caches can be joined to one (`Runner.batch_caches`);
    each of them (an *owner*) then has the same number of neighbouring rows.

    Attributes:
        start: First block in the cache.
        keys: Rotated keys, one tensor per block.
        values: Values, one tensor per block.
        padding: Number of padding positions on the left for each owner; attention never sees them.
    """

    start: int
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    padding: tuple[int, ...] = (0,)

    @property
    @override
    def length(self) -> int:  # type: ignore[override]
        return self.keys[0].shape[2]

    @property
    @override
    def batch(self) -> int:  # type: ignore[override]
        return self.keys[0].shape[0]

    @property
    @override
    def owners(self) -> int:  # type: ignore[override]
        return len(self.padding)

    @override
    def fork(self, index: Int[Tensor, " new_batch"]) -> BridgeKeyValueCache:
        if self.batch == 1:
            return self._each(lambda t: t.expand(len(index), -1, -1, -1))
        return self._each(lambda t: t[index.to(t.device)])

    @override
    def crop(self, length: int) -> BridgeKeyValueCache:
        return self._each(lambda t: t[:, :, :length])

    @override
    def pick(self, owners: Sequence[int], skip: int = 0) -> BridgeKeyValueCache:
        of_one = self.batch // self.owners
        rows = torch.tensor([owner * of_one + row for owner in owners for row in range(of_one)])
        picked = self._each(lambda t: t[rows.to(t.device)][:, :, skip:])
        return replace(picked, padding=tuple(self.padding[owner] - skip for owner in owners))

    def _each(self, fn: Callable[[Tensor], Tensor]) -> BridgeKeyValueCache:
        return replace(self, keys=tuple(map(fn, self.keys)), values=tuple(map(fn, self.values)))


@dataclass(frozen=True)
class ResidualCache(KeyValueCache):
    """Residuals before block `start`, for models whose keys and values cannot be cached.

    The cached positions run again, from block `start`, at every call.

    Attributes:
        start: Block whose input is cached.
        resid: The residual stream before that block.
    """

    start: int
    resid: Float[Tensor, "batch pos d_model"]

    @property
    @override
    def length(self) -> int:  # type: ignore[override]
        return self.resid.shape[1]

    @property
    @override
    def batch(self) -> int:  # type: ignore[override]
        return self.resid.shape[0]

    @override
    def fork(self, index: Int[Tensor, " new_batch"]) -> ResidualCache:
        if self.batch == 1:
            return ResidualCache(self.start, self.resid.expand(len(index), -1, -1))
        return ResidualCache(self.start, self.resid[index.to(self.resid.device)])

    @override
    def crop(self, length: int) -> ResidualCache:
        return ResidualCache(self.start, self.resid[:, :length])


class BridgeRunner(Runner):
    """Run a `TransformerBridge` in parts: embedding, ranges of blocks, unembedding (see `Runner`).

    Attributes:
        caches: Whether the model's keys and values can be cached; if False, the cached text runs again at
            each call.
    """

    def __init__(self, model: TransformerBridge) -> None:
        self._whole = model.original_model
        blocks = (model.adapter.component_mapping or {}).get("blocks")
        if blocks is None or not blocks.name:
            raise UserError(
                f"{type(self._whole).__name__} has no list of blocks that TransformerLens knows: not supported"
            )
        parent, _, self._list_name = blocks.name.rpartition(".")
        self._decoder = self._whole.get_submodule(parent)
        self._blocks = list(getattr(self._decoder, self._list_name))
        self._places = [next(block.parameters()).device for block in self._blocks]
        self._attentions = [
            [m for m in block.modules() if isinstance(m, AttentionBridge)] for block in self._blocks
        ]
        self._arguments: dict[tuple[Any, ...], list[tuple[tuple[Any, ...], dict[str, Any]]]] = {}
        super().__init__(model, _shape(model, blocks.name))
        self.caches = all(len(found) == 1 for found in self._attentions)
        self._probe()
        self._head = find_output_head(model, self.shape.d_model, self.logits)

    @override
    def embed(self, ids: Int[Tensor, "batch pos"], offset: int = 0) -> Float[Tensor, "batch pos d_model"]:
        catcher = _Catcher()
        with self._stand_ins([catcher]):
            try:
                self._decoder(
                    input_ids=ids, position_ids=self._positions(ids.shape[1], offset), use_cache=False
                )
            except _Caught as caught:
                return caught.hidden
        raise UserError(f"{type(self._whole).__name__} never called its blocks: it cannot be run in parts")

    @override
    def run(
        self,
        resid: Float[Tensor, "batch pos d_model"],
        start: int,
        stop: int,
        kv: KeyValueCache | None = None,
        keep: bool = False,
    ) -> tuple[Float[Tensor, "batch pos d_model"], KeyValueCache | None]:
        if not self.caches:
            return self._run_again(resid, start, stop, kv, keep)
        assert kv is None or (isinstance(kv, BridgeKeyValueCache) and kv.start == start), (
            "the cache begins at another block"
        )
        offset = kv.length if kv is not None else 0
        with self._joined(start, stop, kv) as joined:
            resid = self._through(resid, start, stop, offset, kv.padding if kv is not None else (0,))
        self._count(resid, stop - start, resid.shape[1] + offset)
        padding = kv.padding if kv is not None else (0,)
        return resid, BridgeKeyValueCache(start, *_columns(joined, start, stop), padding) if keep else None

    @override
    def batch_caches(self, caches: Sequence[KeyValueCache]) -> KeyValueCache | None:
        return _one_batch(caches) if self.caches and self._batches_exactly else None

    @cached_property
    def _batches_exactly(self) -> bool:
        """Whether two prefixes of unequal length give the same residuals in one batch as each alone."""
        ids, lengths, top = (
            torch.arange(_PROBE_LENGTH, device=self.device)[None] % self.shape.d_vocab,
            (2, 4),
            self.shape.n_layers,
        )
        counted = dict(vars(self.meter))
        with torch.no_grad():
            caches = [self.run(self.embed(ids[:, :n]), 0, top, keep=True)[1] for n in lengths]
            rows = [self.embed(ids[:, n : n + 2], offset=n) for n in lengths]
            alone = torch.cat([self.run(row, 0, top, kv)[0] for row, kv in zip(rows, caches, strict=True)])
            together, _ = self.run(
                torch.cat(rows), 0, top, _one_batch([kv for kv in caches if kv is not None])
            )
        vars(self.meter).update(counted)
        scale = 1e-3 if self.dtype in (torch.float32, torch.float64) else 0.1
        return bool((together - alone).abs().max() <= scale * alone.abs().max())

    @override
    def logits(self, resid: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_vocab"]:
        self._count_unembedding(resid)
        rows = resid.reshape(-1, 1, resid.shape[-1])
        with self._stand_ins([_Giver(rows.to(self._places[-1]))]):
            out = self._whole(
                inputs_embeds=rows,
                position_ids=torch.zeros(len(rows), 1, dtype=torch.long, device=rows.device),
                use_cache=False,
            )
        return out.logits.float().to(self.device).reshape(*resid.shape[:-1], -1)

    @override
    def logits_of(
        self, resid: Float[Tensor, "batch d_model"], ids: Int[Tensor, "batch k"]
    ) -> Float[Tensor, "batch k"]:
        if self._head is None:
            return self.logits(resid).gather(-1, ids)
        self._count_products(ids.numel(), resid)
        return self._head.logits_of(resid, ids).to(self.device)

    @override
    def log_normalizer(self, resid: Float[Tensor, "position d_model"]) -> Float[Tensor, " position"]:
        if self._head is None:
            parts = [
                checkpoint(self._own_log_normalizer, resid[rows], use_reentrant=False)
                for rows in row_chunks(len(resid), self.shape.d_vocab)
            ]
            return torch.cat(parts) if parts else resid.new_zeros(0, dtype=torch.float32)
        self._count_products(len(resid) * self.shape.d_vocab, resid)
        return self._head.log_normalizer(resid).to(self.device)

    def _own_log_normalizer(self, resid: Float[Tensor, "position d_model"]) -> Float[Tensor, " position"]:
        return self.logits(resid).logsumexp(-1)

    @override
    def hook_names(self) -> set[str]:
        return set(self.model.hook_dict)

    def _run_again(
        self, resid: Tensor, start: int, stop: int, kv: KeyValueCache | None, keep: bool
    ) -> tuple[Tensor, KeyValueCache | None]:
        assert kv is None or (isinstance(kv, ResidualCache) and kv.start == start), (
            "the cache begins at another block"
        )
        whole = resid if kv is None else torch.cat([kv.resid, resid], dim=1)
        out = self._through(whole, start, stop, 0)
        self._count(out, stop - start, whole.shape[1])
        return out[:, whole.shape[1] - resid.shape[1] :], ResidualCache(start, whole) if keep else None

    def _through(
        self, resid: Tensor, start: int, stop: int, offset: int, padding: tuple[int, ...] = (0,)
    ) -> Tensor:
        arguments, of_one = (
            self._block_arguments(resid.shape[1], offset, resid, padding),
            len(resid) // len(padding),
        )
        repeated: dict[int, Tensor] = {}
        for layer in range(start, stop):
            positional, named = arguments[layer]
            if len(padding) > 1:
                positional = tuple(_for_rows(a, len(padding), of_one, repeated) for a in positional)
                named = {name: _for_rows(a, len(padding), of_one, repeated) for name, a in named.items()}
            out = self._blocks[layer](resid.to(self._places[layer]), *positional, **named)
            resid = out[0] if isinstance(out, tuple) else out
        return resid.to(self.device)

    @contextmanager
    def _joined(
        self, start: int, stop: int, kv: BridgeKeyValueCache | None
    ) -> Iterator[dict[int, tuple[Tensor, Tensor]]]:
        """Join new keys and values to the cache's while the `with` block runs; yield them by block."""
        joined: dict[int, tuple[Tensor, Tensor]] = {}

        def joiner(layer: int) -> Callable[..., tuple[Tensor, Tensor]]:
            def join(keys: Tensor, values: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
                if kv is not None:
                    keys = torch.cat([kv.keys[layer - start], keys], dim=2)
                    values = torch.cat([kv.values[layer - start], values], dim=2)
                joined[layer] = (keys, values)
                return keys, values

            return join

        attentions = [(layer, self._attentions[layer][0]) for layer in range(start, stop)]
        try:
            for layer, attention in attentions:
                attention.__dict__["_update_kv_cache"] = joiner(layer)
            yield joined
        finally:
            for _, attention in attentions:
                attention.__dict__.pop("_update_kv_cache", None)

    def _block_arguments(
        self, length: int, offset: int, like: Tensor, padding: tuple[int, ...]
    ) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        """Arguments that the model's own forward pass gives each block in addition to the residuals.

        Tensors have one row per owner; a single owner's row broadcasts over the batch.
        """
        key = (length, offset, like.dtype, like.device, padding)
        if key not in self._arguments:
            while len(self._arguments) >= _KEPT_ARGUMENTS:
                self._arguments.pop(next(iter(self._arguments)))
            self._arguments[key] = self._note_arguments(length, offset, like, padding)
        return self._arguments[key]

    def _note_arguments(
        self, length: int, offset: int, like: Tensor, padding: tuple[int, ...]
    ) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        notes, owners = [_Noter() for _ in self._blocks], len(padding)
        empty = torch.zeros(owners, length, self.shape.d_model, dtype=like.dtype, device=like.device)
        cache = DynamicCache()
        if offset:
            earlier = torch.zeros(owners, 1, offset, 1, dtype=like.dtype, device=like.device)
            cache.update(earlier, earlier, 0)
        named: dict[str, Any] = {
            "cache"
            if "cache" in inspect.signature(self._decoder.forward).parameters
            else "past_key_values": cache
        }
        hidden = torch.tensor(padding, device=self.device)[:, None]
        if any(padding):
            named["attention_mask"] = (torch.arange(offset + length, device=self.device) >= hidden).long()
        with torch.no_grad(), self._stand_ins(notes):
            self._decoder(
                inputs_embeds=empty,
                position_ids=self._positions(length, offset) - hidden,
                use_cache=False,
                **named,
            )
        return [note.without(cache, place) for note, place in zip(notes, self._places, strict=True)]

    @contextmanager
    def _stand_ins(self, modules: Sequence[nn.Module]) -> Iterator[None]:
        """Replace the decoder's list of layers by these modules while the `with` block runs."""
        own = getattr(self._decoder, self._list_name)
        setattr(self._decoder, self._list_name, nn.ModuleList(modules))
        try:
            yield
        finally:
            setattr(self._decoder, self._list_name, own)

    def _positions(self, length: int, offset: int) -> Int[Tensor, "1 pos"]:
        return torch.arange(offset, offset + length, device=self.device)[None]

    @torch.no_grad()
    def _probe(self) -> None:
        """Compare a pass in parts, with and without a cache, with the model's own pass on a few tokens.

        If the cached pass differs, the runner falls back to running the prefix again. UserError if that
        differs too.
        """
        ids = torch.arange(_PROBE_LENGTH, device=self.device)[None] % self.shape.d_vocab
        whole = self._whole(input_ids=ids, use_cache=False).logits.float()
        if self.caches:
            with self._joined(0, self.shape.n_layers, None) as joined:
                self._through(self.embed(ids), 0, self.shape.n_layers, 0)
            self.caches = len(joined) == self.shape.n_layers and self._in_parts_is_close(ids, whole)
        if not self.caches and not self._in_parts_is_close(ids, whole):
            raise UserError(
                f"{type(self._whole).__name__} gives other logits when its blocks are run one by one: not supported"
            )

    def _in_parts_is_close(self, ids: Tensor, whole: Tensor) -> bool:
        cut, middle, top = _PROBE_LENGTH // 2, max(1, self.shape.n_layers // 2), self.shape.n_layers
        _, low = self.run(self.embed(ids[:, :cut]), 0, middle, keep=True)
        resid, _ = self.run(self.embed(ids[:, :cut]), 0, middle)
        _, high = self.run(resid, middle, top, keep=True)
        resid, _ = self.run(self.embed(ids[:, cut:], offset=cut), 0, middle, low)
        logits = self.logits(self.run(resid, middle, top, high)[0])
        scale = 1e-3 if self.dtype in (torch.float32, torch.float64) else 0.1
        return bool((logits - whole[:, cut:]).abs().max() <= scale * whole.abs().max())


class _Caught(Exception):
    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden


class _Catcher(nn.Module):
    """Stop the forward pass at the first block and raise `_Caught` with that block's input."""

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        raise _Caught(hidden_states)


class _Giver(nn.Module):
    """Stand-in block that returns the given residuals and ignores its input."""

    def __init__(self, resid: Tensor) -> None:
        super().__init__()
        self.resid = resid

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        return self.resid


class _Noter(nn.Module):
    """Stand-in block that returns its input unchanged and records its other arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})

    def forward(self, hidden_states: Tensor, *positional: Any, **named: Any) -> Tensor:
        self.noted = (positional, named)
        return hidden_states

    def without(self, cache: DynamicCache, place: torch.device) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the recorded arguments without the cache, moved to the device of their block."""
        positional, named = self.noted
        return (
            tuple(None if a is cache else _placed(a, place) for a in positional),
            {name: _placed(a, place) for name, a in named.items() if a is not cache},
        )


def _placed(argument: Any, place: torch.device) -> Any:
    if isinstance(argument, tuple):
        return tuple(_placed(part, place) for part in argument)
    return argument.to(place) if isinstance(argument, Tensor) else argument


def _for_rows(argument: Any, owners: int, of_one: int, repeated: dict[int, Tensor]) -> Any:
    """Repeat a block's argument from one row per owner to one row per batch row.

    Args:
        argument: A tensor, a tuple of them, or another value, which is returned as it is.
        owners: Number of owners.
        of_one: Batch rows of each owner.
        repeated: Results so far by the argument's id, so that all blocks share one copy.
    """
    if isinstance(argument, tuple):
        return tuple(_for_rows(part, owners, of_one, repeated) for part in argument)
    if not isinstance(argument, Tensor) or argument.ndim < 2 or len(argument) != owners:
        return argument
    if id(argument) not in repeated:
        repeated[id(argument)] = argument.repeat_interleave(of_one, 0)
    return repeated[id(argument)]


def _one_batch(caches: Sequence[KeyValueCache]) -> BridgeKeyValueCache:
    """Join caches of one row each into one batch, the shorter ones padded on the left."""
    held = [kv for kv in caches if isinstance(kv, BridgeKeyValueCache) and kv.batch == 1]
    assert len(held) == len(caches), "only caches of one row are stacked"
    longest = max(kv.length for kv in held)

    def padded(tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([torch.nn.functional.pad(t, (0, 0, longest - t.shape[2], 0)) for t in tensors])

    keys, values = (
        tuple(map(padded, zip(*column, strict=True)))
        for column in ([kv.keys for kv in held], [kv.values for kv in held])
    )
    return BridgeKeyValueCache(held[0].start, keys, values, tuple(longest - kv.length for kv in held))


def _columns(
    joined: dict[int, tuple[Tensor, Tensor]], start: int, stop: int
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    return tuple(joined[layer][0] for layer in range(start, stop)), tuple(
        joined[layer][1] for layer in range(start, stop)
    )


def _shape(model: TransformerBridge, blocks: str) -> ModelShape:
    """Sizes of the wrapped model; `blocks` is the path of its list of blocks.

    The bridge's own copies of joint weights are not counted.
    """
    whole: Any = model.original_model
    embedding, head = whole.get_input_embeddings(), whole.get_output_embeddings()
    tied = embedding.weight.data_ptr() == head.weight.data_ptr()
    outside = sum(p.numel() for name, p in whole.named_parameters() if not name.startswith(f"{blocks}."))
    return ModelShape.of(model.cfg, model.n_params_total - outside, tied)
