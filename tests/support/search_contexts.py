"""Contexts made of ids alone, and the tiny checkpoints of tests/models."""

from __future__ import annotations

import random

import torch

from workbench.contexts import Context, Contexts
from workbench.models import Site
from workbench.objectives import ProjectionObjective
from workbench.personas import Item
from workbench.search import ChildProposals


def contexts_of_ids(shared: bool, n: int = 5, seed: int = 0, suffix: int = 4) -> Contexts:
    """n contexts of random ids; `shared`: all have the same ids left of the slot. Suffixes have unequal lengths."""
    rng = random.Random(seed)
    draw = lambda k: tuple(rng.randrange(4, 330) for _ in range(k))  # noqa: E731
    common = draw(6)
    made = []
    for number in range(n):
        prefix = common if shared else draw(5 + number % 3)
        item = Item(str(number), "q", "yes", "no", f"g{number // 2}")
        made.append(
            Context(
                item,
                bool(number % 2),
                "",
                "",
                prefix,
                draw(suffix + number % 3),
                draw(9),
                ((7 + number,), (40 + number,)),
            )
        )
    return Contexts(tuple(made), "system" if shared else "after_question", "text", "search")


PARENTS = torch.tensor([[10, 20, 30, 40, 50], [11, 21, 31, 41, 51]])
CHILDREN = ChildProposals(
    torch.tensor([[10, 20, 99, 40, 50], [11, 21, 31, 41, 98], [97, 21, 31, 41, 51], [11, 96, 31, 95, 51]]),
    torch.tensor([0, 1, 1, 1]),
    torch.tensor([2, 4, 0, 1]),
)


def random_projection(d_model: int, layer: int = 0) -> ProjectionObjective:
    return ProjectionObjective(
        torch.nn.functional.normalize(
            torch.randn(d_model, generator=torch.Generator().manual_seed(1)), dim=0
        ),
        Site(layer),
        "raw",
    )
