"""What stands left of the prompt: run once, its keys and values kept and forked to the prompts and children behind it.

1. Contexts with the same ids left of the slot form one `Group`.
2. Its prefix is run once: keys and values below the read-out depth for the objective, and above it for fluency.
3. Every prompt forks them; a child forks its parent's, cropped to what both share.

Without `Savings.prefix_kv` nothing is kept and the prefix is run again in front of every prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.contexts import Context, Contexts
from workbench.models import KV, Runner
from workbench.search.finite import check_prefix
from workbench.search.scored import Ids


@dataclass(frozen=True)
class Savings:
    """Which exact savings are used; all by default. `halving`: share of the contexts on which all children are scored first; the
    better half goes on to as many contexts again, and so on (0: off; an approximation in who survives, never in a survivor's
    score, which is over all contexts)."""

    prefix_kv: bool = True
    shared_prompt: bool = True
    parent_kv: bool = True
    lazy_fluency: bool = True
    last_position: bool = True
    halving: float = 0.0


@dataclass
class Group:
    """Contexts (by index) that share what stands left of the slot, with its cache below and above the read-out depth, and
    log p(first prompt token)."""

    prefix: tuple[int, ...]
    members: list[int]
    low: KV | None = None
    high: KV | None = None
    next_log_probs: Float[Tensor, "1 1 d_vocab"] | None = None


class Prefixes:
    """The groups of some contexts for objectives that read at `depth` blocks. The first `fluent` groups measure fluency."""

    def __init__(self, runner: Runner, contexts: Contexts, depth: int, savings: Savings, fluent: int) -> None:
        self.runner, self.depth, self.cached = runner, depth, savings.prefix_kv
        self.groups = _grouped(contexts, savings.shared_prompt)
        self.fluent = self.groups[:fluent]
        with torch.no_grad():
            for number, group in enumerate(self.groups):
                self._run(group, number < fluent)

    def fork(self, kv: KV | None, rows: int) -> KV | None:
        """A prefix's one cache for so many rows."""
        return None if kv is None else kv.fork(torch.zeros(rows, dtype=torch.long, device=self.runner.device))

    def left_of(self, start: KV | None, group: Group, cache: KV | None, parent: Tensor, position: int) -> KV | None:
        """What stands left of the changed position: the prefix's cache `start`, or the parents' cropped to what is shared."""
        if position == 0 or not self.cached or cache is None:
            return self.fork(start, len(parent))
        return cache.fork(parent).crop(len(group.prefix) + position)

    def embed(self, group: Group, ids: Ids, position: int) -> Float[Tensor, "candidate pos d_model"]:
        """Embedded prompt tokens at their places; without prefix caches the prefix is embedded with them."""
        return self.lead(group, self.runner.embed(ids, len(group.prefix) + position))

    def lead(self, group: Group, embedded: Tensor) -> Tensor:
        """The embedded prefix in front, where it has no cache."""
        if self.cached:
            return embedded
        prefix = torch.tensor([group.prefix], device=self.runner.device).expand(len(embedded), -1)
        return torch.cat([self.runner.embed(prefix), embedded], dim=1)

    def leaf(self, group: Group, ids: Ids) -> Float[Tensor, "candidate prompt_pos d_model"]:
        """The prompt's embeddings as something to differentiate with respect to."""
        return self.runner.embed(ids, len(group.prefix)).detach().requires_grad_(True)

    def own(self, group: Group, resid: Tensor) -> Tensor:
        """The prompt's own positions (without prefix caches the prefix was run with them)."""
        return resid if self.cached else resid[:, len(group.prefix) :]

    def suffix(self, group: Group, context: Context, embedded: Tensor, position: int) -> Tensor:
        """A context's embedded suffix behind prompts that were embedded from `position` on."""
        lead = 0 if self.cached else -len(group.prefix)
        offset = len(group.prefix) + position + embedded.shape[1] + lead
        ids = torch.tensor([context.suffix_ids], dtype=torch.long, device=self.runner.device).reshape(1, -1)
        return self.runner.embed(ids, offset).expand(len(embedded), -1, -1)

    def to_top(self, resid: Tensor, high: KV | None, keep: bool = False) -> tuple[Tensor, KV | None]:
        """From the read-out depth to the end, behind the rows' cache `high`."""
        n_layers = self.runner.shape.n_layers
        return (resid, None) if self.depth == n_layers else self.runner.run(resid, self.depth, n_layers, high, keep=keep)

    def _run(self, group: Group, fluent: bool) -> None:
        ids = torch.tensor([group.prefix], device=self.runner.device)
        resid, low = self.runner.run(self.runner.embed(ids), 0, self.depth, keep=True)
        group.low = low if self.cached else None
        if fluent:
            top, high = self.to_top(resid, None, keep=True)
            group.high = high if self.cached else None
            group.next_log_probs = self.runner.logits(top[:, -1:]).log_softmax(-1)
            if group.next_log_probs.isnan().any():
                check_prefix(self.runner, group.prefix)


def _grouped(contexts: Contexts, shared: bool) -> list[Group]:
    groups: dict[object, Group] = {}
    for index, context in enumerate(contexts):
        key = context.prefix_ids if shared and context.suffix_ids else index
        groups.setdefault(key, Group(context.prefix_ids, [])).members.append(index)
    return list(groups.values())
