"""Fluent gradient search for prompts: one engine (`search`) and several methods as values.

The package itself can be called: `workbench.search(...)` is the function, although importing any part of this
package binds the name `workbench.search` to the package.
"""

from workbench.callable_package import make_callable
from workbench.search.elite_selection import elites, hypervolume, ladder, pareto_frontier
from workbench.search.frontier import Candidate, Frontier, write_frontiers
from workbench.search.live_frontier import LiveFrontier
from workbench.search.methods.beam import Beam
from workbench.search.methods.epo import EPO
from workbench.search.methods.gcg import GCG
from workbench.search.methods.guided import Guided
from workbench.search.methods.random_search import RandomSearch
from workbench.search.methods.sentences import SentenceSearch
from workbench.search.scored_prompts import ChildProposals, ScoredPrompts
from workbench.search.scoring.prefix_cache import Optimizations
from workbench.search.scoring.scorer import Scorer
from workbench.search.search_loop import Checkpoint, search
from workbench.search.search_method import SEARCH_METHODS, SearchMethod
from workbench.search.search_progress import SearchProgress
from workbench.search.toolkit import SearchToolkit

__all__ = [
    "EPO",
    "GCG",
    "SEARCH_METHODS",
    "Beam",
    "Candidate",
    "Checkpoint",
    "ChildProposals",
    "Frontier",
    "Guided",
    "LiveFrontier",
    "Optimizations",
    "RandomSearch",
    "ScoredPrompts",
    "Scorer",
    "SearchMethod",
    "SearchProgress",
    "SearchToolkit",
    "SentenceSearch",
    "elites",
    "hypervolume",
    "ladder",
    "pareto_frontier",
    "search",
    "write_frontiers",
]

make_callable(__name__, search)
