"""A TransformerLens block whose attention does not copy shared keys, in few kernel launches.

TransformerLens joins the cache to the new keys in every row, rotates all of them and repeats them for every
query head. In this module:

1. Keys that several neighbouring rows share are multiplied once with the queries of all these rows (a few
   large products); keys of a single row are multiplied with that row's queries. The scores are joined, one
   softmax is taken, and the values are mixed piece by piece.
2. Keys are rotated once, when they are computed, to their own positions, and are cached in that form. Queries
   are scaled in the same product that rotates them.
3. Rotations and masks, which depend on positions only, are computed once per run for all blocks
   (`RunPlaces`).
4. Hook points without hooks are skipped.

The results equal TransformerLens's up to rounding. A soft-cap is applied to the scores before they are
masked. With a sliding window, keys that no query reaches are not multiplied. Positions are counted in the
padded batch, where a query and its keys move alike.

All hooks that are set fire (ln1's once instead of three times). A block with a hook on scores or pattern, or
with one of TransformerLens's switches for split inputs and results, runs in TransformerLens's own code;
`is_plain` decides this.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.components.mlps.gated_mlp import GatedMLP
from transformer_lens.components.rms_norm import RMSNorm
from transformer_lens.utilities.activation_functions import apply_softcap

#: Rotated keys and values. An owner has one row (shared by all its rows) or as many as its rows.
Pair = tuple[Float[Tensor, "owner row kv_head pos d_head"], Float[Tensor, "owner row kv_head pos d_head"]]


def is_plain(block: Any) -> bool:
    """Whether this package's faster code (`run_block`) can run a TransformerLens block.

    It can if the architecture is supported and no hook is set on the attention scores or pattern. Otherwise
    TransformerLens's own code must run the block.
    """
    cfg, attn = block.cfg, block.attn
    switches = (
        "use_attn_in",
        "use_split_qkv_input",
        "use_attn_result",
        "use_hook_mlp_in",
        "attn_only",
        "parallel_attn_mlp",
        "load_in_4bit",
    )
    other = (
        "use_attention_sinks",
        "use_logn_attn",
        "ungroup_grouped_query_attention",
        "clip_qkv",
        "use_dynamic_ntk_rope",
    )
    inside = [
        attn.hook_attn_scores,
        attn.hook_pattern,
        *(getattr(attn, name) for name in ("hook_rot_q", "hook_rot_k") if hasattr(attn, name)),
    ]
    return (
        not any(getattr(cfg, name, None) for name in switches + other)
        and cfg.positional_embedding_type in ("rotary", "standard")
        and cfg.attention_dir == "causal"
        and (attn.attn_type == "global" or isinstance(cfg.window_size, int))
        and not (cfg.original_architecture or "").startswith("Olmo")
        and not any(point.fwd_hooks or point.bwd_hooks for point in inside)
    )


class RunPlaces:
    """Token positions of one run of the blocks, with rotary rotations and masks computed once for all blocks.

    Rows continue cached positions. Some of these are shared by neighbouring rows (an *owner* is the cache
    that such rows share), others belong to a single row.

    Args:
        shape: Number of rows, and number n of new positions per row.
        owners: Number of owners; each has the same number of rows.
        shared: Number of cached positions that all rows of an owner share; they come first.
        own: Number of cached positions that each row has separately; they come between the shared and the new
            ones.
        padding: For each owner, the number of padding positions on the left of its cache, which attention
            must not see; None if there are none.
        positions: For each row, the one new position whose output is needed; None if all are.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        owners: int,
        shared: int,
        own: int,
        padding: Int[Tensor, " owner"] | None,
        positions: Int[Tensor, " row"] | None = None,
    ) -> None:
        (self.rows, self.n), self.owners, self.shared, self.own, self.padding, self.positions = (
            shape,
            owners,
            shared,
            own,
            padding,
            positions,
        )
        self._made: dict[object, Any] = {}

    def once(self, key: object, make: Callable[[], Any]) -> Any:
        """Return a value that is computed at its first use and then kept for the whole run of the blocks.

        Args:
            key: Name of the value.
            make: Function that computes it, called at the first use of the key.
        """
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    @property
    def left(self) -> int:
        """Number of cached positions left of the new ones, padding included."""
        return self.shared + self.own

    def turn(self, attn: Any, x: Float[Tensor, "row pos head d_head"], scale: float = 1.0) -> Tensor:
        """Apply the rotary embedding to queries or keys of the new positions, and multiply by `scale`.

        If `x` has one position per row, that position is `positions`. Without rotary embeddings only the
        scale is applied.

        Args:
            attn: The block's attention.
            x: Queries or keys.
            scale: Factor of the result.
        """
        if attn.cfg.positional_embedding_type != "rotary":
            return x if scale == 1.0 else x * scale
        some = x.shape[1] < self.n
        cos, sin = self.once(
            ("turn", attn.attn_type, some, scale),
            lambda: _rotation(attn, self._places(attn, some), self.left + self.n, scale),
        )
        return _rotated(attn, x.unflatten(0, (len(cos), -1)), cos, sin, scale).flatten(0, 1)

    def turned_back(self, attn: Any, keys: Float[Tensor, "row pos head d_head"]) -> Tensor:
        """Undo the rotary embedding of cached keys, for a cache without padding."""
        if attn.cfg.positional_embedding_type != "rotary":
            return keys
        cos, sin = _rotation(attn, torch.arange(self.left, device=keys.device)[None, None], self.left)
        length = cos.square() + sin.square()
        return _rotated(attn, keys[None], cos / length, -sin / length)[0]

    def _places(self, attn: Any, some: bool) -> Int[Tensor, "group row pos"]:
        """Position of each token in its sequence: one row for all, or one per owner if caches are padded."""
        device = attn.rotary_cos.device
        if self.positions is not None and some:
            at = self.left + self.positions.view(self.owners, -1, 1)
        else:
            at = torch.arange(self.left, self.left + self.n, device=device)[None, None]
        return at if self.padding is None else at - self.padding[:, None, None]

    def own_mask(
        self, window: int | None, skip: int, groups: int, like: Tensor
    ) -> list[Float[Tensor, "batch query key"]]:
        """Return a list with one mask (-inf) for the keys that each row has separately.

        These are its own cached and its new positions. Masked are keys right of the query and keys outside
        the query's sliding window. The list is empty if nothing is masked.

        Args:
            window: Size of the sliding window; None for full attention.
            skip: Number of keys on the left that are left out of the mask, because no query reaches them.
            groups: Query heads per key head.
            like: Tensor with the dtype, device and head axis of the queries.
        """
        if self.n == 1 and window is None:
            return []
        keys, queries = (
            torch.arange(self.shared + skip, self.left + self.n, device=like.device),
            self._queries(like)[..., None],
        )
        mask = keys > queries
        if window is not None:
            mask = mask | (keys <= queries - window)
        if self.positions is None:
            return [_minus_infinity(mask.repeat(groups, 1)[None], like)]
        mask = mask.unflatten(0, (self.owners, -1))[:, None].expand(-1, like.shape[1], -1, groups, -1)
        return [_minus_infinity(mask.flatten(0, 2), like)]

    def shared_mask(
        self, window: int | None, skip: int, groups: int, like: Tensor
    ) -> list[Float[Tensor, "batch query key"]]:
        """Return a list of masks (-inf) for the cached keys that several rows share.

        Masked are padding positions and keys outside the query's sliding window. These are two separate
        masks, because each alone is small. The list is empty if nothing is masked.

        Args:
            window: Size of the sliding window; None for full attention.
            skip: Number of keys on the left that are left out of the masks, because no query reaches them.
            groups: Query heads per key head.
            like: Tensor with the dtype, device and head axis of the queries.
        """
        keys, heads, rows, masks = (
            torch.arange(skip, self.shared, device=like.device),
            like.shape[1],
            self.rows // self.owners,
            [],
        )
        if window is not None and skip <= self.left + self.n - 1 - window:
            far = keys <= self._queries(like)[..., None] - window
            if self.positions is None:
                far = far.repeat(rows * groups, 1)[None]
            else:
                far = (
                    far.unflatten(0, (self.owners, -1))[:, None]
                    .expand(-1, heads, -1, groups, -1)
                    .flatten(2, 3)
                    .flatten(0, 1)
                )
            masks.append(far)
        if self.padding is not None:
            masks.append((keys < self.padding[:, None]).repeat_interleave(heads, 0)[:, None])
        return [_minus_infinity(mask, like) for mask in masks]

    def _queries(self, like: Tensor) -> Int[Tensor, "*row query"]:
        """Positions of the queries, counted in the padded batch."""
        if self.positions is not None:
            return self.left + self.positions[:, None]
        return torch.arange(self.left, self.left + self.n, device=like.device)


def run_block(
    block: Any,
    resid: Float[Tensor, "row pos d_model"],
    places: RunPlaces,
    shared: Pair | None = None,
    own: Pair | None = None,
) -> tuple[Float[Tensor, "row pos d_model"], Pair]:
    """Run a TransformerLens block on new token positions that follow cached ones.

    Args:
        block: A block for which `is_plain` is True.
        resid: Residual stream before the block.
        places: The rows' cached and new positions.
        shared: Keys and values of the cached positions that several rows share; None if there are none.
        own: Keys and values of the cached positions that each row has separately; None if there are none.

    Returns:
        The residual stream after the block, and `own` extended by the keys and values of the new positions.
    """
    resid = _at(block.hook_resid_pre, resid)
    attended, pair = _attended(block, resid, places, shared, own)
    return _after_attention(block, resid, attended), pair


def _attended(
    block: Any, resid: Tensor, places: RunPlaces, shared: Pair | None, own: Pair | None
) -> tuple[Tensor, Pair]:
    """Return attention's output, and the rows' own keys and values.

    Queries and other temporary tensors are freed at the return, before the MLP runs.
    """
    attn = block.attn
    q, k, v = _qkv(attn, _normed(block.ln1, resid))
    q, pair = (
        places.turn(attn, q, 1 / float(attn.attn_scale)),
        joined_pair(places, own, places.turn(attn, k), v),
    )
    alone = (
        shared is None and own is None and not _softcap(attn) and (_window(attn) or q.shape[1]) >= q.shape[1]
    )
    z = _mixed_here(q, pair) if alone else _mixed_with_cache(attn, q, places, shared, pair)
    return _out(attn, z), pair


def run_block_at(
    block: Any,
    resid: Float[Tensor, "row pos d_model"],
    places: RunPlaces,
    shared: Pair | None = None,
    own: Pair | None = None,
) -> Float[Tensor, "row 1 d_model"]:
    """Run a block like `run_block`, but return its output at one position per row (`places.positions`).

    At the other positions only queries, keys and values are computed; hooks after the attention see only the
    one position.

    Args:
        block: A block for which `is_plain` is True.
        resid: Residual stream before the block, at all new positions.
        places: The rows' cached and new positions, with the one position of each row whose output is needed.
        shared: Keys and values of the cached positions that several rows share; None if there are none.
        own: Keys and values of the cached positions that each row has separately; None if there are none.
    """
    assert places.positions is not None, "one position a row is wanted"
    resid, rows, attn = (
        _at(block.hook_resid_pre, resid),
        torch.arange(places.rows, device=resid.device),
        block.attn,
    )
    normed, last = _normed(block.ln1, resid), (rows, places.positions)
    q, k, v = _qkv(attn, normed)
    q = places.turn(attn, q[last][:, None], 1 / float(attn.attn_scale))
    z = _mixed_with_cache(attn, q, places, shared, joined_pair(places, own, places.turn(attn, k), v))
    return _after_attention(block, resid[last][:, None], _out(attn, z))


def _at(point: Any, x: Tensor) -> Tensor:
    """Pass `x` through a hook point if a hook is set on it."""
    return point(x) if point._forward_hooks or point._backward_hooks or point._backward_pre_hooks else x


def _normed(norm: Any, x: Tensor) -> Tensor:
    """Apply a norm; torch's own RMS norm is used if it is equal and no hook is set."""
    points = (norm, norm.hook_scale, norm.hook_normalized) if type(norm) is RMSNorm else ()
    if points and not any(
        point._forward_hooks or point._backward_hooks or point._backward_pre_hooks for point in points
    ):
        return torch.nn.functional.rms_norm(x, (norm.length,), norm.w, norm.eps)
    return norm(x)


def _after_attention(block: Any, resid: Tensor, attended: Tensor) -> Tensor:
    """Add attention's output to the residual stream, then apply the MLP."""
    if block.cfg.use_normalization_before_and_after:
        attended = _normed(block.ln1_post, attended)
    middle = _at(block.hook_resid_mid, resid + _at(block.hook_attn_out, attended))
    return _at(block.hook_resid_post, middle + mlp_out(block, _normed(block.ln2, middle)))


def mlp_out(block: Any, normed: Tensor) -> Tensor:
    """Return the MLP's output.

    If no gradients and hooks are needed, a gated MLP is computed with two instead of five tensors of its
    width in memory.
    """
    mlp = block.mlp
    points = (
        (mlp, mlp.hook_pre, mlp.hook_pre_linear, mlp.hook_post)
        if type(mlp) is GatedMLP and not block.cfg.is_layer_norm_activation()
        else ()
    )
    if (
        not points
        or torch.is_grad_enabled()
        or normed.device != mlp.W_gate.device
        or any(point._forward_hooks for point in points)
    ):
        return block.apply_mlp(normed)
    linear = torch.nn.functional.linear
    middle = mlp.act_fn(linear(normed, mlp.W_gate.T.contiguous()))
    middle.mul_(linear(normed, mlp.W_in.T.contiguous())).add_(mlp.b_in)
    out = linear(middle, mlp.W_out.T.contiguous(), mlp.b_out)
    return _at(
        block.hook_mlp_out, block.ln2_post(out) if block.cfg.use_normalization_before_and_after else out
    )


def _softcap(attn: Any) -> float:
    """Soft-cap of the attention scores; 0 if the model has none (TransformerLens writes -1)."""
    return max(0.0, attn.cfg.attn_scores_soft_cap or 0.0)


def _window(attn: Any) -> int | None:
    """Number of positions that a query sees, its own included; None for all."""
    return attn.cfg.window_size if attn.attn_type == "local" else None


def _qkv(attn: Any, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute queries, keys and values [row pos head d_head], after query and key norms if there are any."""
    grouped = "_W_K" in attn._parameters
    q = _at(attn.hook_q, _linear(normed, attn.W_Q, attn.b_Q))
    k = _at(
        attn.hook_k, _linear(normed, attn._W_K, attn._b_K) if grouped else _linear(normed, attn.W_K, attn.b_K)
    )
    v = _at(
        attn.hook_v, _linear(normed, attn._W_V, attn._b_V) if grouped else _linear(normed, attn.W_V, attn.b_V)
    )
    if not attn.cfg.use_qk_norm:
        return q, k, v
    return (
        _normed(attn.q_norm, q.flatten(0, 2)).view_as(q),
        _normed(attn.k_norm, k.flatten(0, 2)).view_as(k),
        v,
    )


def _linear(
    x: Float[Tensor, "row pos d_model"],
    w: Float[Tensor, "head d_model d_head"],
    b: Float[Tensor, "head d_head"],
) -> Tensor:
    """Project `x` to all heads; no weight is copied if it is a view of Hugging Face's."""
    return torch.nn.functional.linear(x, w.transpose(1, 2).flatten(0, 1), b.flatten()).unflatten(-1, b.shape)


def _out(attn: Any, z: Float[Tensor, "row pos head d_head"]) -> Float[Tensor, "row pos d_model"]:
    return torch.nn.functional.linear(_at(attn.hook_z, z).flatten(2), attn.W_O.flatten(0, 1).T, attn.b_O)


def joined_pair(
    places: RunPlaces,
    own: Pair | None,
    k: Float[Tensor, "row pos kv_head d_head"],
    v: Float[Tensor, "row pos kv_head d_head"],
) -> Pair:
    """Append the keys and values of new positions to those that each row has cached.

    In memory the result is ordered by cache (several rows may continue one cache), key head and row.

    Args:
        places: The rows' cached and new positions.
        own: Cached keys and values of each row; None if there are none.
        k: New keys.
        v: New values.
    """
    joined = []
    for number, t in enumerate((k, v)):
        new = t.unflatten(0, (places.owners, -1)).permute(0, 3, 1, 2, 4)
        joined.append(
            (
                new.contiguous() if own is None else torch.cat([own[number].transpose(1, 2), new], dim=3)
            ).transpose(1, 2)
        )
    return joined[0], joined[1]


def _mixed_here(q: Float[Tensor, "row pos head d_head"], pair: Pair) -> Float[Tensor, "row pos head d_head"]:
    """Attention without a cache, by torch's own kernel."""
    keys, values = (t.flatten(0, 1) for t in pair)
    return torch.nn.functional.scaled_dot_product_attention(
        q.transpose(1, 2), keys, values, is_causal=True, scale=1.0, enable_gqa=True
    ).transpose(1, 2)


def _mixed_with_cache(
    attn: Any, q: Float[Tensor, "row query head d_head"], places: RunPlaces, shared: Pair | None, own: Pair
) -> Float[Tensor, "row query head d_head"]:
    """Attention of rotated and scaled queries over the shared keys and each row's own keys."""
    owners, window, n, heads = places.owners, _window(attn), q.shape[1], own[0].shape[2]
    rows, groups = len(q) // owners, q.shape[2] // heads
    by_head = (
        q.reshape(owners, rows, n, heads, groups, -1)
        .permute(0, 3, 1, 4, 2, 5)
        .contiguous()
        .view(owners, heads, rows * groups * n, -1)
    )
    first, pieces = 0 if window is None else max(0, places.left - window + 1), []
    if shared is not None and first < places.shared:
        masks = places.once(("shared", window), lambda: places.shared_mask(window, first, groups, by_head))
        pieces.append((*_from(shared, first), masks))
    skip = max(0, first - places.shared)
    pieces.append(
        (
            *_from(own, skip),
            places.once(("own", window), lambda: places.own_mask(window, skip, groups, by_head)),
        )
    )
    scores = [
        _scores(attn, by_head.view(len(keys), -1, q.shape[-1]), keys, masks) for keys, _, masks in pieces
    ]
    scores = [part.view(owners, heads, rows, groups * n, -1) for part in scores]
    pattern = (
        (torch.cat(scores, dim=-1) if len(scores) > 1 else scores[0])
        .softmax(-1)
        .split([part.shape[-1] for part in scores], dim=-1)
    )
    z = None
    for part, (_, values, _) in zip(pattern, pieces, strict=True):
        here = part.reshape(len(values), -1, part.shape[-1])
        z = (
            torch.bmm(here, values)
            if z is None
            else torch.baddbmm(z.view(len(values), -1, values.shape[-1]), here, values)
        )
    assert z is not None, "a query sees its own key"
    return (
        z.view(owners, heads, rows, groups, n, -1)
        .permute(0, 2, 4, 1, 3, 5)
        .reshape(owners * rows, n, heads * groups, -1)
    )


def _from(
    pair: Pair, skip: int
) -> tuple[Float[Tensor, "batch pos d_head"], Float[Tensor, "batch pos d_head"]]:
    """Keys and values from position `skip` on, one batch entry for each owner, key head and row."""
    keys, values = (t[..., skip:, :].transpose(1, 2).flatten(0, 2) for t in pair)
    return keys, values


def _scores(
    attn: Any,
    q: Float[Tensor, "batch query d_head"],
    keys: Float[Tensor, "batch pos d_head"],
    masks: list[Tensor],
) -> Tensor:
    """Attention scores: products, then the model's soft-cap, then the masks."""
    cap = _softcap(attn)
    if cap or not masks:
        return reduce(torch.add, masks, apply_softcap(torch.bmm(q, keys.transpose(1, 2)), cap))
    return reduce(torch.add, masks[1:], torch.baddbmm(masks[0], q, keys.transpose(1, 2)))


def _rotation(
    attn: Any, at: Int[Tensor, "group row pos"], stop: int, scale: float = 1.0
) -> tuple[Float[Tensor, "group row pos 1 dim"], Float[Tensor, "group row pos 1 dim"]]:
    """Cosines and signed sines at some positions (all below `stop`), times `scale`."""
    if stop > attn.rotary_cos.shape[0]:
        attn._extend_rotary_embeddings(min(attn.cfg.n_ctx, max(stop, 2 * attn.rotary_cos.shape[0])))
    cos, sin = (
        table[at] if scale == 1.0 else table[at] * scale for table in (attn.rotary_cos, attn.rotary_sin)
    )
    adjacent = attn.cfg.rotary_adjacent_pairs
    sides = torch.tensor([-1.0, 1.0], device=sin.device, dtype=sin.dtype)
    signed = sin.unflatten(-1, (-1, 2) if adjacent else (2, -1)) * (sides if adjacent else sides[:, None])
    return cos[..., None, :], signed.flatten(-2)[..., None, :]


def _rotated(
    attn: Any, x: Float[Tensor, "group row pos head d_head"], cos: Tensor, sin: Tensor, scale: float = 1.0
) -> Tensor:
    """Rotate the first dimensions of each head; multiply the others (partial RoPE) by `scale`."""
    dim = cos.shape[-1]
    part = x if dim == x.shape[-1] else x[..., :dim]
    other = (
        part.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
        if attn.cfg.rotary_adjacent_pairs
        else part.roll(dim // 2, -1)
    )
    turned = torch.addcmul(part * cos, other, sin)
    return turned if dim == x.shape[-1] else torch.cat([turned, x[..., dim:] * scale], dim=-1)


def _minus_infinity(mask: Tensor, like: Tensor) -> Tensor:
    return torch.zeros(mask.shape, dtype=like.dtype, device=like.device).masked_fill_(mask, -torch.inf)
