"""Fluent gradient search for prompts: one engine (`search`), several methods as values.

The package itself can be called: `workbench.search(...)` is the function, although importing any part of this package binds
the name `workbench.search` to the package.
"""

import sys
from types import ModuleType

from workbench.search.beam import Beam
from workbench.search.bench import Bench
from workbench.search.epo import EPO
from workbench.search.frontier import Candidate, Frontier
from workbench.search.gcg import GCG
from workbench.search.guided import Guided
from workbench.search.live import LiveFrontier
from workbench.search.loop import Checkpoint, search
from workbench.search.method import Method
from workbench.search.prefixes import Savings
from workbench.search.progress import Progress
from workbench.search.random_search import RandomSearch
from workbench.search.scored import Proposals, Scored
from workbench.search.scorer import Scorer
from workbench.search.selection import elites, frontier, hypervolume, ladder

__all__ = [
    "EPO",
    "GCG",
    "Beam",
    "Bench",
    "Candidate",
    "Checkpoint",
    "Frontier",
    "Guided",
    "LiveFrontier",
    "Method",
    "Progress",
    "Proposals",
    "RandomSearch",
    "Savings",
    "Scored",
    "Scorer",
    "elites",
    "frontier",
    "hypervolume",
    "ladder",
    "search",
]


class _Callable(ModuleType):
    __call__ = staticmethod(search)


sys.modules[__name__].__class__ = _Callable
