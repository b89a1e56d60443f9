"""`Runner` for `HookedTransformer`: its own blocks, one after the other, with all their hooks.

Keys are cached before their rotation, as TransformerLens does, so a cropped or forked cache is exact: positions are counted
from the left edge, which is the same for all rows. Most blocks run by `hooked_block.py`, whose attention does not copy
what rows share; the others by TransformerLens's own code with its own cache entries.
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
from workbench.models.hooked_block import Hidden, Pair, is_plain, run_block, run_block_at
from workbench.models.runner import HALF, KeyValueCache, ModelShape, Runner
from workbench.models.vocabulary_chunks import log_normalizer


@dataclass(frozen=True)
class HookedKeyValueCache(KeyValueCache):
    """Keys (not yet turned) and values, in pieces from left to right; a piece has a row each, or a few owners' that neighbouring rows share.

    start: the first block it holds. pieces: for each piece, a pair [owner pos kv_head d_head] a block. rows: how many. owners: of shared
    pieces (1: all rows share them), which are joined to nothing else. hidden: padding left in the first piece of batched caches.
    """

    start: int
    pieces: tuple[tuple[Pair, ...], ...]
    rows: int
    owners: int = 1
    hidden: Hidden = None

    @property
    @override
    def length(self) -> int:  # type: ignore[override]
        return sum(piece[0][0].shape[1] for piece in self.pieces)

    @property
    @override
    def batch(self) -> int:  # type: ignore[override]
        return self.rows

    @override
    def fork(self, index: Int[Tensor, " new_batch"]) -> HookedKeyValueCache:
        pieces = tuple(piece if len(piece[0][0]) == self.owners else _each(piece, lambda t: t[index.to(t.device)]) for piece in self.pieces)
        return replace(self, pieces=pieces, rows=len(index))

    @override
    def crop(self, length: int) -> HookedKeyValueCache:
        pieces, room = [], length
        for piece in self.pieces:
            if room > 0:
                pieces.append(_each(piece, lambda t, room=room: t[:, :room]))
            room -= piece[0][0].shape[1]
        return replace(self, pieces=tuple(pieces), hidden=None if self.hidden is None else self.hidden[:, :length])

    @override
    def pick(self, owners: Sequence[int], skip: int = 0) -> HookedKeyValueCache:
        of_one = self.rows // self.owners
        rows = [owner * of_one + row for owner in owners for row in range(of_one)]
        first, *others = (_each(piece, lambda t: _rows(t, owners if len(t) == self.owners else rows)) for piece in self.pieces)
        hidden = None if self.hidden is None else _rows(self.hidden, owners)[:, skip:]
        pieces = (_each(first, lambda t: t[:, skip:]), *others)
        return HookedKeyValueCache(self.start, pieces, len(rows), len(owners), hidden)

    def left_of(self, layer: int) -> list[Pair]:
        """One block's pieces."""
        return [piece[layer - self.start] for piece in self.pieces]

    def joined(self, layer: int) -> Pair:
        """One block's keys and values as a whole, every row with its own copy."""
        pairs = [tuple(t.expand(self.rows, -1, -1, -1) for t in pair) for pair in self.left_of(layer)]
        keys, values = zip(*pairs, strict=True)
        return torch.cat(keys, dim=1), torch.cat(values, dim=1)

    def longer(self, new: list[Pair]) -> HookedKeyValueCache:
        """The cache continued by the new positions of each block; joined to the last piece where both have a row each."""
        piece, pieces, only_a_stack = tuple(new), self.pieces, self.owners > 1 and len(self.pieces) == 1
        if len(pieces[-1][0][0]) == len(piece[0][0]) and not only_a_stack:
            both = zip(pieces[-1], piece, strict=True)
            piece, pieces = tuple((torch.cat([k, kk], dim=1), torch.cat([v, vv], dim=1)) for (k, v), (kk, vv) in both), pieces[:-1]
        return replace(self, pieces=(*pieces, piece))


def _each(piece: tuple[Pair, ...], change: Callable[[Tensor], Tensor]) -> tuple[Pair, ...]:
    return tuple((change(keys), change(values)) for keys, values in piece)


def _rows(t: Tensor, rows: Sequence[int]) -> Tensor:
    """The rows of a tensor: a view where they are neighbours."""
    first, n = rows[0], len(rows)
    return t[first : first + n] if list(rows) == list(range(first, first + n)) else t[torch.tensor(rows, device=t.device)]


def _only_read(block: Any, names: Sequence[str]) -> bool:
    """Whether no hook is set in the block but one for each of the names (two for a name that occurs twice)."""
    points = (module for module in block.modules() if isinstance(module, HookPoint))
    return all(len(point.fwd_hooks) == names.count(point.name or "") and not point.bwd_hooks for point in points)


def _left_padded(tensors: Sequence[Float[Tensor, "1 pos kv_head d_head"]], length: int) -> Float[Tensor, "owner pos kv_head d_head"]:
    return torch.cat([torch.nn.functional.pad(t, (0, 0, 0, 0, length - t.shape[1], 0)) for t in tensors])


def _refuse_stack(kv: HookedKeyValueCache | None) -> None:
    if kv is not None and kv.owners > 1:
        raise UserError("a hook on attention's scores or pattern was set after the search had begun: set it before, or switch batched_caches off")


class HookedRunner(Runner):
    """A HookedTransformer as a `Runner`."""

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
        self, resid: Float[Tensor, "batch pos d_model"], start: int, stop: int, kv: KeyValueCache | None = None, keep: bool = False
    ) -> tuple[Float[Tensor, "batch pos d_model"], KeyValueCache | None]:
        assert kv is None or (isinstance(kv, HookedKeyValueCache) and kv.start == start), "the cache begins at another block"
        new: list[Pair] = []
        for layer in range(start, stop):
            block = self.model.blocks[layer]
            if is_plain(block):
                resid, pair = run_block(block, resid, *(kv.left_of(layer), kv.hidden) if kv else ((), None))
            else:
                _refuse_stack(kv)
                entry = self._entry(kv, layer, resid)
                resid = block(resid, past_kv_cache_entry=entry)
                offset = kv.length if kv else 0
                pair = entry.past_keys[:, offset:], entry.past_values[:, offset:]
            if keep:
                new.append(pair)
        self._count(resid, stop - start, resid.shape[1] + (kv.length if kv else 0))
        if not keep:
            return resid, None
        return resid, kv.longer(new) if kv else HookedKeyValueCache(start, (tuple(new),), len(resid))

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
        assert kv is None or (isinstance(kv, HookedKeyValueCache) and kv.start == start), "the cache begins at another block"
        resid, _ = self.run(resid, start, stop - 1, kv)
        out = run_block_at(block, resid, positions, *(kv.left_of(stop - 1), kv.hidden) if kv else ((), None))
        made = sum(weight.numel() for name, weight in block.attn.named_parameters() if name.lstrip("_") in ("W_Q", "W_K", "W_V"))
        share = made / self.shape.block_parameters
        keys = resid.shape[1] + (kv.length if kv else 0)
        self._count_layers(out, len(resid) * (resid.shape[1] * share + 1 - share), len(resid) * keys)
        return out

    @override
    def batch_caches(self, caches: Sequence[KeyValueCache]) -> KeyValueCache | None:
        if self.model.cfg.positional_embedding_type not in ("rotary", "standard") or not all(map(is_plain, self.model.blocks)):
            return None
        held = [kv for kv in caches if isinstance(kv, HookedKeyValueCache) and kv.rows == 1 and len(kv.pieces) == 1]
        assert len(held) == len(caches), "only caches of one row are stacked"
        longest = max(kv.length for kv in held)
        padding = torch.tensor([longest - kv.length for kv in held], device=self.device)
        piece = tuple(
            (_left_padded([kv.pieces[0][i][0] for kv in held], longest), _left_padded([kv.pieces[0][i][1] for kv in held], longest))
            for i in range(len(held[0].pieces[0]))
        )
        hidden = torch.arange(longest, device=self.device) < padding[:, None]
        return HookedKeyValueCache(held[0].start, (piece,), len(held), len(held), hidden if bool(padding.any()) else None)

    @override
    def logits(self, resid: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_vocab"]:
        self._count_unembedding(resid)
        flat = resid.reshape(1, -1, resid.shape[-1])
        normed = self.model.ln_final(flat) if self.model.cfg.normalization_type is not None else flat
        logits = apply_softcap(self.model.unembed(normed), self.model.cfg.output_logits_soft_cap)
        return logits.float().reshape(*resid.shape[:-1], -1)

    @override
    def logits_of(self, resid: Float[Tensor, "batch d_model"], ids: Int[Tensor, "batch k"]) -> Float[Tensor, "batch k"]:
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
        """After the final norm, whose hooks fire; in float32 where the model's dtype is shorter (TransformerLens would round to it)."""
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

    def _entry(self, kv: HookedKeyValueCache | None, layer: int, resid: Tensor) -> TransformerLensKeyValueCacheEntry:
        """TransformerLens's cache entry for one block; appending to it makes new tensors, so `kv` stays as it is."""
        if kv is not None:
            return TransformerLensKeyValueCacheEntry(*kv.joined(layer))
        empty = torch.empty(len(resid), 0, self.shape.n_kv_heads, self.shape.d_head, device=resid.device, dtype=resid.dtype)
        return TransformerLensKeyValueCacheEntry(empty, empty)
