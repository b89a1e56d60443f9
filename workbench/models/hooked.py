"""The seam for `HookedTransformer`: its own blocks, one after the other, with its own key-value cache entries.

TransformerLens caches keys before their rotation and rotates all of them at each call, so a cropped or forked cache is
exact: positions are counted from the left edge, which is the same for all rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import HookedTransformer
from transformer_lens.cache.key_value_cache_entry import TransformerLensKeyValueCacheEntry
from transformer_lens.utilities import apply_softcap

from workbench.models.runner import KV, Runner, Shape


@dataclass(frozen=True)
class HookedKV(KV):
    """Per block: keys and values [batch pos kv_head d_head]. start: the first block it holds."""

    start: int
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    @property
    def length(self) -> int:  # type: ignore[override]
        return self.keys[0].shape[1]

    @property
    def batch(self) -> int:  # type: ignore[override]
        return self.keys[0].shape[0]

    def fork(self, index: Int[Tensor, " new_batch"]) -> HookedKV:
        if self.batch == 1:
            return self._each(lambda t: t.expand(len(index), -1, -1, -1))
        return self._each(lambda t: t[index.to(t.device)])

    def crop(self, length: int) -> HookedKV:
        return self._each(lambda t: t[:, :length])

    def _each(self, fn) -> HookedKV:
        return HookedKV(self.start, tuple(map(fn, self.keys)), tuple(map(fn, self.values)))


class HookedRunner(Runner):
    """A HookedTransformer behind the seam."""

    def __init__(self, model: HookedTransformer) -> None:
        cfg = model.cfg
        blocks = sum(p.numel() for p in model.blocks.parameters())
        tied = model.W_E.shape[0] == model.W_U.shape[1] and model.W_E.data_ptr() == model.W_U.data_ptr()
        shape = Shape(
            n_layers=cfg.n_layers,
            d_model=cfg.d_model,
            n_heads=cfg.n_heads,
            n_kv_heads=cfg.n_key_value_heads or cfg.n_heads,
            d_head=cfg.d_head,
            d_vocab=cfg.d_vocab,
            n_ctx=cfg.n_ctx,
            block_parameters=blocks // cfg.n_layers,
            tied=tied,
        )
        super().__init__(model, shape)

    def embed(self, ids: Int[Tensor, "batch pos"], offset: int = 0) -> Float[Tensor, "batch pos d_model"]:
        resid = self.model.hook_embed(self.model.embed(ids))
        if self.model.cfg.positional_embedding_type == "standard":
            return resid + self.model.hook_pos_embed(self.model.pos_embed(ids, offset))
        return resid

    def run(
        self, resid: Float[Tensor, "batch pos d_model"], start: int, stop: int, kv: KV | None = None, keep: bool = False
    ) -> tuple[Float[Tensor, "batch pos d_model"], KV | None]:
        assert kv is None or (isinstance(kv, HookedKV) and kv.start == start), "the cache begins at another block"
        self._count(resid, stop - start, resid.shape[1] + (kv.length if kv else 0))
        keys, values = [], []
        for layer in range(start, stop):
            entry = self._entry(kv, layer, resid) if kv is not None or keep else None
            resid = self.model.blocks[layer](resid, past_kv_cache_entry=entry)
            if keep:
                keys.append(entry.past_keys)
                values.append(entry.past_values)
        return resid, HookedKV(start, tuple(keys), tuple(values)) if keep else None

    def logits(self, resid: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_vocab"]:
        self._count_unembedding(resid)
        flat = resid.reshape(1, -1, resid.shape[-1])
        normed = self.model.ln_final(flat) if self.model.cfg.normalization_type is not None else flat
        logits = apply_softcap(self.model.unembed(normed), self.model.cfg.output_logits_soft_cap)
        return logits.float().reshape(*resid.shape[:-1], -1)

    def logits_of(self, resid: Float[Tensor, "batch d_model"], ids: Int[Tensor, "batch k"]) -> Float[Tensor, "batch k"]:
        normed = self.model.ln_final(resid[:, None])[:, 0] if self.model.cfg.normalization_type is not None else resid
        columns = self.model.W_U.T[ids]
        self.meter.flops += 2 * ids.numel() * self.shape.d_model
        logits = torch.einsum("bd,bkd->bk", normed, columns) + self.model.b_U[ids]
        return apply_softcap(logits, self.model.cfg.output_logits_soft_cap).float()

    def embeddings(self) -> Float[Tensor, "d_vocab d_model"]:
        return self.model.W_E

    def hook_names(self) -> set[str]:
        return set(self.model.hook_dict)

    def _entry(self, kv: HookedKV | None, layer: int, resid: Tensor) -> TransformerLensKeyValueCacheEntry:
        """TransformerLens's cache entry for one block; appending to it makes new tensors, so `kv` stays as it is."""
        if kv is not None:
            index = layer - kv.start
            return TransformerLensKeyValueCacheEntry(kv.keys[index], kv.values[index])
        empty = torch.empty(len(resid), 0, self.shape.n_kv_heads, self.shape.d_head, device=resid.device, dtype=resid.dtype)
        return TransformerLensKeyValueCacheEntry(empty, empty)
