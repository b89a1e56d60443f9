"""Run a `HookedTransformer` in parts: its own blocks, one after the other, with all their hooks.

Keys are cached after their rotary embedding to their own positions, so a cropped or forked cache is exact,
and padding does not change them. Most blocks run in `hooked_block.py`, whose attention does not copy the keys
that rows share. The other blocks run in TransformerLens's own code with its own cache entries, for which the
keys are rotated back first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import HookedTransformer
from transformer_lens.cache.key_value_cache_entry import TransformerLensKeyValueCacheEntry
from transformer_lens.hook_points import HookPoint
from transformer_lens.utilities.activation_functions import apply_softcap
from typing_extensions import override

from workbench.errors import UserError
from workbench.models.hook_sites import Site
from workbench.models.hooked_block import Pair, RunPlaces, is_plain, joined_pair, run_block, run_block_at
from workbench.models.runner import HALF, KeyValueCache, ModelShape, Runner
from workbench.models.vocabulary_chunks import log_normalizer


@dataclass(frozen=True)
class HookedKeyValueCache(KeyValueCache):
    """Keys (after the rotary embedding) and values of some blocks, for many rows.

    Positions that rows share are stored once and come first; each row's own positions follow. Several caches
    can be joined to one (`Runner.batch_caches`); each of them (an *owner*) then has the same number of
    neighbouring rows. A cache that was not joined has one owner.

    Attributes:
        start: First block in the cache.
        rows: Number of rows.
        shared: Keys and values per block of the positions that all rows of an owner share; one row per owner.
        own: Keys and values per block of the positions that each row has separately.
        owners: Number of owners.
        padding: Number of padding positions on the left for each owner; None if there are none.
        chosen: For each owner, the rows of `own` that `fork` selected. They are copied for one block at a
            time, when the block runs, so that copies for all blocks are never in memory at once.
    """

    start: int
    rows: int
    shared: tuple[Pair, ...] | None
    own: tuple[Pair, ...] | None = None
    owners: int = 1
    padding: Int[Tensor, " owner"] | None = None
    chosen: Int[Tensor, "owner row"] | None = None

    @property
    def shared_length(self) -> int:
        """Number of cached positions that several rows share (stored once)."""
        return self.shared[0][0].shape[3] if self.shared else 0

    @property
    def own_length(self) -> int:
        """Number of cached positions that are stored for each row separately."""
        return self.own[0][0].shape[3] if self.own else 0

    @property
    @override
    def length(self) -> int:  # type: ignore[override]
        return self.shared_length + self.own_length

    @property
    @override
    def batch(self) -> int:  # type: ignore[override]
        return self.rows

    @override
    def fork(self, index: Int[Tensor, " new_batch"]) -> HookedKeyValueCache:
        own, chosen, each = self.own, self.chosen, len(index) // self.owners
        if own is not None and chosen is None and self.rows == self.owners:
            own = _each(own, lambda t: t.expand(-1, each, -1, -1, -1))
        elif own is not None:
            first = torch.arange(self.owners, device=index.device)[:, None]
            row = index.view(self.owners, -1) - first * (self.rows // self.owners)
            chosen = row if chosen is None else chosen.gather(1, row.to(chosen.device))
        return replace(self, own=own, rows=len(index), chosen=chosen)

    @override
    def crop(self, length: int) -> HookedKeyValueCache:
        room = length - self.shared_length
        shared = _each(self.shared, lambda t: t[..., :length, :]) if self.shared and room < 0 else self.shared
        own = _each(self.own, lambda t: t[..., :room, :]) if self.own and room > 0 else None
        return replace(self, shared=shared, own=own, chosen=self.chosen if own else None)

    @override
    def pick(self, owners: Sequence[int], skip: int = 0) -> HookedKeyValueCache:
        assert self.shared is not None, "batched caches share their prefixes"
        shared = _each(self.shared, lambda t: _rows(t, owners)[..., skip:, :])
        own = _each(self.own, lambda t: _rows(t, owners)) if self.own else None
        padding = None if self.padding is None else _rows(self.padding, owners) - skip
        chosen = None if self.chosen is None else _rows(self.chosen, owners)
        return HookedKeyValueCache(
            self.start, self.rows // self.owners * len(owners), shared, own, len(owners), padding, chosen
        )

    def left_of(self, layer: int) -> tuple[Pair | None, Pair | None]:
        """Return the cached keys and values of one block, in two pairs.

        Returns:
            A pair (keys, values) of the positions that rows share, and a pair of the positions that each row
            has separately; None for a pair without positions.
        """
        shared, own = (side[layer - self.start] if side else None for side in (self.shared, self.own))
        if own is None or self.chosen is None:
            return shared, own
        keys, values = (
            t[torch.arange(self.owners, device=t.device)[:, None], self.chosen.to(t.device)] for t in own
        )
        return shared, (keys, values)

    def joined(
        self, layer: int
    ) -> tuple[Float[Tensor, "row pos kv_head d_head"], Float[Tensor, "row pos kv_head d_head"]]:
        """Return one block's keys and values over all positions, with a copy for every row."""
        pieces = [piece for piece in self.left_of(layer) if piece]
        keys, values = (
            [t.expand(-1, self.rows // self.owners, -1, -1, -1).flatten(0, 1) for t in side]
            for side in zip(*pieces, strict=True)
        )
        return torch.cat(keys, dim=2).transpose(1, 2), torch.cat(values, dim=2).transpose(1, 2)

    def longer(self, own: list[Pair]) -> HookedKeyValueCache:
        """Return the cache with new positions appended to those that each row has separately.

        Args:
            own: For each block, keys and values of each row's positions, cached and new ones.
        """
        return replace(self, own=tuple(own), chosen=None)


def _each(piece: tuple[Pair, ...], change: Callable[[Tensor], Tensor]) -> tuple[Pair, ...]:
    return tuple((change(keys), change(values)) for keys, values in piece)


def _rows(t: Tensor, rows: Sequence[int]) -> Tensor:
    """Select rows of a tensor; neighbouring rows in order are a view, others a copy."""
    first, n = rows[0], len(rows)
    return (
        t[first : first + n]
        if list(rows) == list(range(first, first + n))
        else t[torch.tensor(rows, device=t.device)]
    )


def _only_read(block: Any, names: Sequence[str]) -> bool:
    """Whether the block has no hook except one for each of the names (two for a name that occurs twice)."""
    points = (module for module in block.modules() if isinstance(module, HookPoint))
    return all(
        len(point.fwd_hooks) == names.count(point.name or "") and not point.bwd_hooks for point in points
    )


def _left_padded(
    tensors: Sequence[Float[Tensor, "1 1 kv_head pos d_head"]], length: int
) -> Float[Tensor, "owner 1 kv_head pos d_head"]:
    return torch.cat([torch.nn.functional.pad(t, (0, 0, length - t.shape[3], 0)) for t in tensors])


def _refuse_stack(kv: HookedKeyValueCache | None) -> None:
    if kv is not None and kv.owners > 1:
        raise UserError(
            "a hook on attention's scores or pattern was set after the search had begun: set it before, or switch batched_caches off"
        )


class HookedRunner(Runner):
    """Run a `HookedTransformer` in parts: embedding, ranges of blocks, unembedding (see `Runner`)."""

    def __init__(self, model: HookedTransformer) -> None:
        blocks = sum(p.numel() for p in model.blocks.parameters())
        tied = model.W_E.shape[0] == model.W_U.shape[1] and model.W_E.data_ptr() == model.W_U.data_ptr()
        super().__init__(model, ModelShape.of(model.cfg, blocks, tied))

    @override
    def embed(self, ids: Int[Tensor, "batch pos"], offset: int = 0) -> Float[Tensor, "batch pos d_model"]:
        resid = self.model.hook_embed(self.model.embed(ids))
        if self.model.cfg.positional_embedding_type == "standard":
            return resid + self.model.hook_pos_embed(self.model.pos_embed(ids, offset))
        return resid

    @override
    def run(
        self,
        resid: Float[Tensor, "batch pos d_model"],
        start: int,
        stop: int,
        kv: KeyValueCache | None = None,
        keep: bool = False,
    ) -> tuple[Float[Tensor, "batch pos d_model"], KeyValueCache | None]:
        assert kv is None or (isinstance(kv, HookedKeyValueCache) and kv.start == start), (
            "the cache begins at another block"
        )
        places, own = _places(resid, kv), []
        for layer in range(start, stop):
            block = self.model.blocks[layer]
            if is_plain(block):
                resid, pair = run_block(block, resid, places, *kv.left_of(layer) if kv else ())
            else:
                resid, pair = self._run_unlike(block, resid, places, kv, layer)
            if keep:
                own.append(pair)
        self._count(resid, stop - start, places.left + places.n)
        if not keep:
            return resid, None
        if kv:
            return resid, kv.longer(own)
        one, pairs = len(resid) == 1, tuple(own)
        return resid, HookedKeyValueCache(start, len(resid), pairs if one else None, None if one else pairs)

    def _run_unlike(
        self, block: Any, resid: Tensor, places: RunPlaces, kv: HookedKeyValueCache | None, layer: int
    ) -> tuple[Tensor, Pair]:
        """Run a block in TransformerLens's own code, whose cache entries hold keys before their rotation."""
        _refuse_stack(kv)
        entry = self._entry(kv, layer, resid, places)
        resid, offset = block(resid, past_kv_cache_entry=entry), places.left
        keys, values = places.turn(block.attn, entry.past_keys[:, offset:]), entry.past_values[:, offset:]
        return resid, joined_pair(places, kv.left_of(layer)[1] if kv else None, keys, values)

    @override
    def run_at(
        self,
        resid: Float[Tensor, "batch pos d_model"],
        start: int,
        stop: int,
        positions: Int[Tensor, " batch"],
        kv: KeyValueCache | None = None,
        sites: Sequence[Site] = (),
    ) -> Float[Tensor, "batch 1 d_model"]:
        block = self.model.blocks[stop - 1] if stop > start else None
        if block is None or not is_plain(block) or not _only_read(block, [site.name for site in sites]):
            return super().run_at(resid, start, stop, positions, kv, sites)
        assert kv is None or (isinstance(kv, HookedKeyValueCache) and kv.start == start), (
            "the cache begins at another block"
        )
        resid, _ = self.run(resid, start, stop - 1, kv)
        out = run_block_at(block, resid, _places(resid, kv, positions), *kv.left_of(stop - 1) if kv else ())
        made = sum(
            weight.numel()
            for name, weight in block.attn.named_parameters()
            if name.lstrip("_") in ("W_Q", "W_K", "W_V")
        )
        share = made / self.shape.block_parameters
        keys = resid.shape[1] + (kv.length if kv else 0)
        self._count_layers(out, len(resid) * (resid.shape[1] * share + 1 - share), len(resid) * keys)
        return out

    @override
    def batch_caches(self, caches: Sequence[KeyValueCache]) -> KeyValueCache | None:
        if self.model.cfg.positional_embedding_type not in ("rotary", "standard") or not all(
            map(is_plain, self.model.blocks)
        ):
            return None
        held = [kv for kv in caches if isinstance(kv, HookedKeyValueCache) and kv.shared and not kv.own]
        assert len(held) == len(caches), "only caches of one row are stacked"
        longest = max(kv.length for kv in held)
        pairs = [[kv.shared[i] for kv in held if kv.shared] for i in range(len(held[0].shared or ()))]
        shared = tuple(
            (_left_padded([k for k, _ in pair], longest), _left_padded([v for _, v in pair], longest))
            for pair in pairs
        )
        padding = [longest - kv.length for kv in held]
        hidden = torch.tensor(padding, device=self.device) if any(padding) else None
        return HookedKeyValueCache(held[0].start, len(held), shared, None, len(held), hidden)

    @override
    def logits(self, resid: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_vocab"]:
        self._count_unembedding(resid)
        flat = resid.reshape(1, -1, resid.shape[-1])
        normed = self.model.ln_final(flat) if self.model.cfg.normalization_type is not None else flat
        logits = apply_softcap(self.model.unembed(normed), self.model.cfg.output_logits_soft_cap)
        return logits.float().reshape(*resid.shape[:-1], -1)

    @override
    def logits_between(
        self, resid: Float[Tensor, "... d_model"], start: int, stop: int
    ) -> Float[Tensor, "... token"]:
        flat = resid.reshape(1, -1, resid.shape[-1])
        normed = self.model.ln_final(flat)[0] if self.model.cfg.normalization_type is not None else flat[0]
        self._count_products(len(normed) * (stop - start), normed)
        logits = torch.addmm(self.model.b_U[start:stop], normed, self.model.W_U[:, start:stop])
        logits = apply_softcap(logits, self.model.cfg.output_logits_soft_cap)
        return logits.float().reshape(*resid.shape[:-1], -1)

    @override
    def logits_of(
        self, resid: Float[Tensor, "batch d_model"], ids: Int[Tensor, "batch k"]
    ) -> Float[Tensor, "batch k"]:
        normed = self._normed(resid)
        columns = self.model.W_U.T[ids].to(normed.dtype)
        self._count_products(ids.numel(), resid)
        logits = torch.einsum("bd,bkd->bk", normed, columns) + self.model.b_U[ids]
        return apply_softcap(logits, self.model.cfg.output_logits_soft_cap).float()

    @override
    def log_normalizer(self, resid: Float[Tensor, "position d_model"]) -> Float[Tensor, " position"]:
        self._count_products(len(resid) * self.shape.d_vocab, resid)
        softcap = max(0.0, self.model.cfg.output_logits_soft_cap or 0.0)
        return log_normalizer(self._normed(resid), self.model.W_U.T, self.model.b_U, softcap).float()

    def _normed(self, resid: Float[Tensor, "position d_model"]) -> Float[Tensor, "position d_model"]:
        """Apply the final norm, whose hooks fire.

        If the model's dtype is bfloat16 or float16, the norm is computed in float32 (TransformerLens would
        round to that dtype).
        """
        cfg = self.model.cfg
        if cfg.normalization_type is None:
            return resid.float() if resid.dtype in HALF else resid
        norm = self.model.ln_final
        if resid.dtype not in HALF:
            return norm(resid[:, None])[:, 0]
        x = resid.float()[:, None]
        if cfg.normalization_type.startswith("LN"):
            x = x - x.mean(-1, keepdim=True)
        scale = norm.hook_scale((x.pow(2).mean(-1, keepdim=True) + cfg.eps).sqrt())
        x = norm.hook_normalized(x / scale)[:, 0]
        weight = getattr(norm, "w_float32", getattr(norm, "w", None))
        x = x if weight is None else x * weight.float()
        return x + norm.b.float() if hasattr(norm, "b") else x

    @override
    def embeddings(self, start: int = 0, stop: int | None = None) -> Float[Tensor, "token d_model"]:
        return self.model.W_E[start:stop]

    @override
    def hook_names(self) -> set[str]:
        return set(self.model.hook_dict)

    def _entry(
        self, kv: HookedKeyValueCache | None, layer: int, resid: Tensor, places: RunPlaces
    ) -> TransformerLensKeyValueCacheEntry:
        """Make TransformerLens's cache entry for one block.

        Appending to the entry makes new tensors, so `kv` is unchanged.
        """
        if kv is not None:
            keys, values = kv.joined(layer)
            return TransformerLensKeyValueCacheEntry(
                places.turned_back(self.model.blocks[layer].attn, keys), values
            )
        empty = torch.empty(
            len(resid), 0, self.shape.n_kv_heads, self.shape.d_head, device=resid.device, dtype=resid.dtype
        )
        return TransformerLensKeyValueCacheEntry(empty, empty)


def _places(
    resid: Tensor, kv: HookedKeyValueCache | None, positions: Int[Tensor, " batch"] | None = None
) -> RunPlaces:
    """Describe the positions of a run that continues `kv`."""
    shape = (resid.shape[0], resid.shape[1])
    if kv is None:
        return RunPlaces(shape, 1, 0, 0, None, positions)
    return RunPlaces(shape, kv.owners, kv.shared_length, kv.own_length, kv.padding, positions)
