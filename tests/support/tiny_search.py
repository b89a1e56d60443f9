"""A small search: every method at a toy size, and a model, contexts and objective to run it on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from tests.support.toy_models import random_model, toy_persona
from workbench.contexts import Contexts, make_contexts
from workbench.models import Site
from workbench.objectives import Objective, projection
from workbench.search import EPO, GCG, Beam, Guided, RandomSearch

SMALL = {"length": 4, "population": 3, "children": 6}
METHODS = [
    EPO(**SMALL, top_k=16, restart_every=3),
    Guided(**SMALL),
    RandomSearch(**SMALL),
    GCG(length=4, children=12, top_k=16),
    Beam(**SMALL),
]


def search_setting() -> tuple[Any, Contexts, Objective]:
    """The random model, two contexts, and the calibrated projection on a random direction."""
    model = random_model()
    contexts = make_contexts(model, toy_persona().split().search, n=2)
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    return (
        model,
        contexts,
        projection(SimpleNamespace(vector=vector, site=Site(1))).calibrate(model, contexts, n=8, length=4),
    )
