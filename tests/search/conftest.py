"""Contexts made of ids alone, and the tiny checkpoints of tests/models."""

from __future__ import annotations

import random

import pytest

from tests.models.conftest import bench  # noqa: F401  (a fixture)
from workbench.contexts import Context, Contexts
from workbench.personas import Item


def contexts_of_ids(shared: bool, n: int = 5, seed: int = 0, suffix: int = 4) -> Contexts:
    """n contexts of random ids; `shared`: all have the same ids left of the slot. Suffixes have unequal lengths."""
    rng = random.Random(seed)
    draw = lambda k: tuple(rng.randrange(4, 330) for _ in range(k))  # noqa: E731
    common = draw(6)
    made = []
    for number in range(n):
        prefix = common if shared else draw(5 + number % 3)
        item = Item(str(number), "q", "yes", "no", f"g{number // 2}")
        made.append(Context(item, bool(number % 2), "", "", prefix, draw(suffix + number % 3), draw(9), ((7 + number,), (40 + number,))))
    return Contexts(tuple(made), "system" if shared else "after_question", "text", "search")


@pytest.fixture(params=[True, False], ids=["shared prefix", "own prefixes"])
def contexts(request: pytest.FixtureRequest) -> Contexts:
    return contexts_of_ids(request.param)
