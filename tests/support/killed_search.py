"""A program to be killed: a search with checkpoints that prints a line per step, and its candidates at the end.

python -m tests.support.killed_search NUMBER_OF_THE_METHOD CHECKPOINT
"""

import sys
from pathlib import Path

from tests.support.tiny_search import METHODS, search_setting
from workbench.budget import Budget
from workbench.search import Checkpoint, search

if __name__ == "__main__":
    model, contexts, goal = search_setting()
    found = search(
        model,
        goal,
        contexts,
        METHODS[int(sys.argv[1])],
        Budget(steps=12),
        seed=1,
        on_step=lambda progress: print("step", flush=True),
        checkpoint=Checkpoint(Path(sys.argv[2]), every=2),
    )
    print([(c.ids, c.objective) for c in found.candidates])
