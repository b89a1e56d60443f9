"""Several independent searches inside one search over sentences, which share its budget.

1. Each search has its own scored sentences, learned models, bank of words, elites and random draws.
2. Their steps take turns, so that every kind of budget (calls, seconds, steps) is shared without knowing it.
3. The result is chosen among the sentences of all of them.

Which words a search finds depends on chance; the best of several searches depends on it less (random restarts).
"""

from __future__ import annotations

from dataclasses import replace

from workbench.search.toolkit import SearchToolkit


def toolkit_of(bench: SearchToolkit, number: int, total: int) -> SearchToolkit:
    """Return the tools of one of several independent searches; its memory is part of the whole search's.

    Scorer, allowed tokens and random generator are shared. A checkpoint saves the memory of the whole search,
    so `remember` must be called when something was learned.

    Args:
        bench: The tools of the whole search.
        number: Number of the independent search, from 0.
        total: Number of independent searches; with 1, the tools of the whole search are returned.
    """
    if total == 1:
        return bench
    name = f"search {number}"
    if name not in bench.tools:
        own = {
            key.removeprefix(f"{name}."): value
            for key, value in bench.memory.items()
            if key.startswith(f"{name}.")
        }
        bench.tools[name] = replace(bench, memory=own, tools={})
    return bench.tools[name]


def remember(bench: SearchToolkit, number: int, total: int) -> None:
    """Copy what one of several independent searches has learned to the memory of the whole search.

    Args:
        bench: The tools of the whole search.
        number: Number of the independent search, from 0.
        total: Number of independent searches.
    """
    own = toolkit_of(bench, number, total)
    if own is not bench:
        bench.memory.update({f"search {number}.{key}": value for key, value in own.memory.items()})


def begun(bench: SearchToolkit, total: int) -> list[SearchToolkit]:
    """Return the tools of the independent searches that have scored sentences so far.

    Args:
        bench: The tools of the whole search.
        total: Number of independent searches.
    """
    every = [toolkit_of(bench, number, total) for number in range(total)]
    return [own for own in every if "ids" in own.memory]
