"""Use your own TransformerLens `ActivationCache`s, with scores, as data for directions and latents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from workbench.directions.direction_method import Labels
from workbench.directions.labelled_activations import LabelledActivations, within_contexts
from workbench.errors import UserError
from workbench.models import Site
from workbench.models.hook_sites import Position


@dataclass(frozen=True, eq=False, repr=False)
class LabelledCache:
    """Activations that you already have, with labels, to fit directions to without running the model.

    There is one row per sequence, in the order of the caches.

    Attributes:
        caches: One `ActivationCache`, or a list of them. Any mapping from hook names to activations [batch,
            pos, d_model] will do; a cache with activations [pos, d_model] gives one row.
        scores: One number per row, plus = shows the persona: the model's own log-odds, or +1 and -1.
        token: Index of the token that is read, one for all rows or one per row; -1 is the last token. Rows of
            unequal length that are padded on the right need one index each.
        groups: Question group of each row (rows about one subject belong together); None makes every row a
            separate group.
        contexts: What each row is about, such as its question, so that rows can be compared within contexts;
            None if they cannot.
        position: Name of the position of this token, recorded in the direction.
        persona: Name of what is labelled.

    Example:
        >>> cache = {"blocks.2.hook_resid_post": torch.randn(4, 7, 16)}  # from model.run_with_cache(tokens)
        >>> cached = wb.LabelledCache(cache, scores=[1, -1, 1, -1])
    """

    caches: Mapping[str, Any] | Any
    scores: Sequence[float] | Float[Tensor, " n"]
    token: int | Sequence[int] = -1
    groups: Sequence[str] | None = None
    contexts: Sequence[str] | None = None
    position: Position = "decision"
    persona: str = "persona"

    def __repr__(self) -> str:
        n = len(self.caches) if isinstance(self.caches, (list, tuple)) else 1
        caches = f"{n} cache{'' if n == 1 else 's'}"
        return f"LabelledCache({self.persona}: {len(self.scores)} labelled rows of {caches}, read at the {self.position} token)"

    def layers(self, n_layers: int) -> list[int]:
        """Return the layers whose block outputs are in every cache.

        Raises:
            UserError: There is no such layer.
        """
        found = [
            layer for layer in range(n_layers) if all(Site(layer).name in cache for cache in self._all())
        ]
        if not found:
            raise UserError(
                f"the caches hold no output of a block: expected hook names such as {Site(0).name!r}"
            )
        return found

    def activations(self, layers: Sequence[int], labels: Labels = "choice") -> LabelledActivations:
        """Return the cached rows as labelled activations, the form in which direction methods use them.

        Args:
            layers: Layers whose block outputs are read.
            labels: With "choice_within" the mean over the rows with the same entry in `contexts` is
                subtracted; with all others the rows are used unchanged.

        Returns:
            One row per sequence.

        Raises:
            UserError: A layer is missing, or scores, groups, contexts or tokens do not fit the rows.
        """
        states = {layer: self._read(Site(layer).name) for layer in layers}
        n = len(next(iter(states.values())))
        scores = torch.as_tensor(self.scores, dtype=torch.float32).detach().cpu()
        if scores.shape != (n,) or not bool(torch.isfinite(scores).all()):
            raise UserError(
                f"expected one finite score per row, {n} in all, found shape {tuple(scores.shape)}"
            )
        groups, contexts = (
            [*map(str, given)] if given is not None else [f"row {i}" for i in range(n)]
            for given in (self.groups, self.contexts)
        )
        if not len(groups) == len(contexts) == n:
            raise UserError(
                f"expected {n} groups and contexts, one per row, found {len(groups)} and {len(contexts)}"
            )
        data = LabelledActivations(
            states,
            scores,
            tuple(groups),
            tuple(contexts),
            (1,) * n,
            torch.zeros(n, dtype=torch.bool),
            self.position,
            tuple(contexts),
        )
        if labels != "choice_within":
            return data
        if self.contexts is None:
            raise UserError("rows cannot be compared within contexts: LabelledCache has no `contexts`")
        return within_contexts(data)

    def _all(self) -> Sequence[Mapping[str, Any]]:
        caches = list(self.caches) if isinstance(self.caches, (list, tuple)) else [self.caches]
        if not caches or not all(hasattr(cache, "keys") for cache in caches):
            raise UserError("expected an ActivationCache or a list of them")
        return caches

    def _read(self, hook: str) -> Float[Tensor, "n d_model"]:
        """Return the activation of each row's chosen token at a hook, float32 on the CPU."""
        blocks = []
        for cache in self._all():
            if hook not in cache:
                raise UserError(f"a cache has no activation {hook!r}")
            values = cache[hook].detach().float().cpu()
            blocks.append(rearrange(values, "pos d_model -> 1 pos d_model") if values.dim() == 2 else values)
        n = sum(map(len, blocks))
        token = [self.token] * n if isinstance(self.token, int) else [int(t) for t in self.token]
        if len(token) != n:
            raise UserError(f"expected one token per row, {n} in all, found {len(token)}")
        rows = [row for block in blocks for row in block]
        for i, (row, at) in enumerate(zip(rows, token, strict=True)):
            if not -len(row) <= at < len(row):
                raise UserError(f"row {i} has {len(row)} tokens: there is no token {at}")
        return torch.stack([row[at] for row, at in zip(rows, token, strict=True)])
