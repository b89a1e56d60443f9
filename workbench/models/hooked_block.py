"""A TransformerLens block whose attention does not copy what its rows share.

TransformerLens joins a cache to the new keys for every row, turns all of them and repeats them for every query head. Here the
keys to the left stay in pieces: keys that several neighbouring rows share are multiplied once with the queries of all of them (a few large
products), those of each row with the row's own queries. The scores are joined, one softmax is taken, and the values are mixed piece by piece:
the same numbers to rounding. A soft-cap bends the scores before they are masked. With a sliding window, keys that no query reaches are
not multiplied at all: positions are counted in the padded batch, in which a query and its keys move alike.

The block's hooks all fire (ln1 once instead of three times). Whoever looks at scores or pattern, or sets one of TransformerLens's
switches for split inputs and results, gets TransformerLens's own block: `is_plain` says when.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.utilities.activation_functions import apply_softcap

#: Keys and values. Each owner's serve as many neighbouring rows as there are to an owner.
Pair = tuple[Float[Tensor, "owner pos kv_head d_head"], Float[Tensor, "owner pos kv_head d_head"]]
#: Positions of each owner's first piece that nobody may look at: padding on the left.
Hidden = Bool[Tensor, "owner pos"] | None


def is_plain(block: Any) -> bool:
    """True if this block's attention is what `run_block` computes and nobody looks inside it."""
    cfg, attn = block.cfg, block.attn
    switches = ("use_attn_in", "use_split_qkv_input", "use_attn_result", "use_hook_mlp_in", "attn_only", "parallel_attn_mlp", "load_in_4bit")
    other = ("use_attention_sinks", "use_logn_attn", "ungroup_grouped_query_attention", "clip_qkv", "use_dynamic_ntk_rope")
    inside = [attn.hook_attn_scores, attn.hook_pattern, *(getattr(attn, name) for name in ("hook_rot_q", "hook_rot_k") if hasattr(attn, name))]
    return (
        not any(getattr(cfg, name, None) for name in switches + other)
        and cfg.positional_embedding_type in ("rotary", "standard")
        and cfg.attention_dir == "causal"
        and (attn.attn_type == "global" or isinstance(cfg.window_size, int))
        and not (cfg.original_architecture or "").startswith("Olmo")
        and not any(point.fwd_hooks or point.bwd_hooks for point in inside)
    )


def run_block(
    block: Any, resid: Float[Tensor, "row pos d_model"], left: Sequence[Pair], hidden: Hidden = None
) -> tuple[Float[Tensor, "row pos d_model"], Pair]:
    """The block after the pieces `left` (in order): its output, and the new keys and values (keys not yet turned)."""
    resid = block.hook_resid_pre(resid)
    attended, new = _attend(block.attn, block.ln1(resid), left, hidden)
    return _after_attention(block, resid, attended), new


def run_block_at(
    block: Any, resid: Float[Tensor, "row pos d_model"], positions: Int[Tensor, " row"], left: Sequence[Pair], hidden: Hidden = None
) -> Float[Tensor, "row 1 d_model"]:
    """What leaves the block at one position a row.

    Of the others only keys and values are made (and queries, which TransformerLens makes together with them). Hooks after the queries see
    that position only.
    """
    resid, rows = block.hook_resid_pre(resid), torch.arange(len(positions), device=resid.device)
    q, k, v = _qkv(block.attn, block.ln1(resid))
    attended = _out(block.attn, _mixed_with_cache(block.attn, q, [*left, (k, v)], hidden, positions))
    return _after_attention(block, resid[rows, positions][:, None], attended)


def _after_attention(block: Any, resid: Tensor, attended: Tensor) -> Tensor:
    """Attention's output joined to the residual stream, and the MLP."""
    if block.cfg.use_normalization_before_and_after:
        attended = block.ln1_post(attended)
    middle = block.hook_resid_mid(resid + block.hook_attn_out(attended))
    return block.hook_resid_post(middle + block.apply_mlp(block.ln2(middle)))


def _attend(attn: Any, normed: Float[Tensor, "row pos d_model"], left: Sequence[Pair], hidden: Hidden) -> tuple[Tensor, Pair]:
    q, k, v = _qkv(attn, normed)
    alone = not left and not _softcap(attn) and (_window(attn) or q.shape[1]) >= q.shape[1]
    z = _mixed_here(attn, q, k, v) if alone else _mixed_with_cache(attn, q, [*left, (k, v)], hidden)
    return _out(attn, z), (k, v)


def _softcap(attn: Any) -> float:
    """The bound of the scores; 0 where there is none (TransformerLens writes -1)."""
    return max(0.0, attn.cfg.attn_scores_soft_cap or 0.0)


def _window(attn: Any) -> int | None:
    """How many positions a query sees, its own counted; None: all."""
    return attn.cfg.window_size if attn.attn_type == "local" else None


def _qkv(attn: Any, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return attn.calculate_qkv_matrices(normed, normed, normed)


def _out(attn: Any, z: Float[Tensor, "row pos head d_head"]) -> Float[Tensor, "row pos d_model"]:
    return attn.hook_z(z).flatten(2) @ attn.W_O.flatten(0, 1) + attn.b_O


def _mixed_here(attn: Any, q: Tensor, k: Tensor, v: Tensor) -> Float[Tensor, "row pos head d_head"]:
    """Nothing to the left: torch's own attention."""
    turned = (_turned(attn, q, 0).transpose(1, 2), _turned(attn, k, 0).transpose(1, 2), v.transpose(1, 2))
    scale = 1 / float(attn.attn_scale)
    return torch.nn.functional.scaled_dot_product_attention(*turned, is_causal=True, scale=scale, enable_gqa=True).transpose(1, 2)


def _mixed_with_cache(
    attn: Any, q: Tensor, pieces: Sequence[Pair], hidden: Hidden, positions: Int[Tensor, " row"] | None = None
) -> Float[Tensor, "row pos head d_head"]:
    """The last piece holds the queries' own positions. positions: of each row only the query at that position."""
    own, window = sum(keys.shape[1] for keys, _ in pieces[:-1]), _window(attn)
    seen = _seen(pieces, hidden, 0 if window is None else own - window + 1)
    q, kv_heads, owners = _turned(attn, q, own), pieces[0][0].shape[2], len(pieces[0][0])
    at = torch.arange(own, own + q.shape[1], device=q.device) if positions is None else own + positions[:, None]
    if positions is not None:
        q = q[torch.arange(len(q), device=q.device), positions][:, None]
    rows, pos = q.shape[:2]
    q = _by_kv_head(q, kv_heads) / attn.attn_scale
    scores = [apply_softcap(_scores(q, _turned(attn, piece.keys, piece.start), owners), _softcap(attn)) for piece in seen]
    if seen[0].hidden is not None:
        scores[0] = scores[0].masked_fill(seen[0].hidden[:, None, None, None], -torch.inf)
    scores = [_masked(part, piece, at, seen[-1].stop - 1, window) for part, piece in zip(scores, seen, strict=True)]
    pattern = torch.cat(scores, dim=-1).softmax(-1).split([part.shape[-1] for part in scores], dim=-1)
    z = reduce(torch.add, (_mixed(part, piece.values) for part, piece in zip(pattern, seen, strict=True)))
    return z.reshape(rows, kv_heads, -1, pos, z.shape[-1]).permute(0, 3, 1, 2, 4).reshape(rows, pos, -1, z.shape[-1])


@dataclass(frozen=True, eq=False)
class SeenKeys:
    """The keys of a piece that some query reaches. start: position of its first key. stop: after its last. hidden: padding among its keys."""

    keys: Float[Tensor, "owner pos kv_head d_head"]
    values: Float[Tensor, "owner pos kv_head d_head"]
    start: int
    stop: int
    hidden: Hidden


def _seen(pieces: Sequence[Pair], hidden: Hidden, first: int) -> list[SeenKeys]:
    """The keys at position `first` or later."""
    found, start = [], 0
    for keys, values in pieces:
        skip, stop = max(0, first - start), start + keys.shape[1]
        if start + skip < stop:
            padding = hidden[:, skip:] if hidden is not None and start == 0 else None
            found.append(SeenKeys(keys[:, skip:], values[:, skip:], start + skip, stop, padding))
        start = stop
    return found


def _masked(scores: Float[Tensor, "owner row_of_it kv_head query key"], keys: SeenKeys, at: Tensor, last: int, window: int | None) -> Tensor:
    """-inf where a key is to the right of its query or beyond its window.

    at: positions of the queries, [query] or [row 1]; last: the last position of all.
    """
    places, mask = torch.arange(keys.start, keys.stop, device=at.device), None
    if keys.stop > last:
        mask = places > at[..., None]
    if window is not None and keys.start <= last - window:
        far = places <= at[..., None] - window
        mask = far if mask is None else mask | far
    if mask is None:
        return scores
    if at.ndim == 1:  # the heads that share keys follow one another
        return scores.masked_fill(mask.repeat(scores.shape[3] // len(at), 1), -torch.inf)
    return scores.masked_fill(mask.unflatten(0, scores.shape[:2])[:, :, None], -torch.inf)


def _turned(attn: Any, x: Tensor, start: int) -> Tensor:
    return attn.apply_rotary(x, start) if attn.cfg.positional_embedding_type == "rotary" else x


def _by_kv_head(q: Float[Tensor, "row pos head d_head"], kv_heads: int) -> Float[Tensor, "row kv_head query d_head"]:
    """Queries of all heads that share a key head, one after the other."""
    rows, pos, heads, size = q.shape
    return q.view(rows, pos, kv_heads, heads // kv_heads, size).permute(0, 2, 3, 1, 4).reshape(rows, kv_heads, -1, size)


def _scores(q: Float[Tensor, "row kv_head query d_head"], keys: Tensor, owners: int) -> Float[Tensor, "owner row_of_it kv_head query key"]:
    """One product for each owner of keys, with the queries of all its rows; given by the owners of the first piece."""
    if len(keys) == len(q):
        return (q @ keys.permute(0, 2, 3, 1)).unflatten(0, (owners, -1))
    flat = q.unflatten(0, (owners, -1)).transpose(1, 2).flatten(2, 3) @ keys.permute(0, 2, 3, 1)
    return flat.unflatten(2, (-1, q.shape[2])).transpose(1, 2)


def _mixed(pattern: Float[Tensor, "owner row_of_it kv_head query key"], values: Tensor) -> Float[Tensor, "owner row_of_it kv_head query d_head"]:
    owners, rows = pattern.shape[:2]
    if len(values) == owners * rows:
        return (pattern.flatten(0, 1) @ values.transpose(1, 2)).unflatten(0, (owners, rows))
    flat = pattern.transpose(1, 2).flatten(2, 3) @ values.transpose(1, 2)
    return flat.unflatten(2, (rows, pattern.shape[3])).transpose(1, 2)
