"""Where a search over sentences spends: token-layers and processor time of each part of one search.

python -m benchmarks.sentence_parts --persona hallucination --calls 500
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch

from workbench.budget import Budget
from workbench.contexts import make_contexts
from workbench.models import load_model, runner_for
from workbench.objectives import answer_log_odds
from workbench.personas import load_persona
from workbench.search import SentenceSearch, search
from workbench.search.sentence_writing import SentenceWriter
from workbench.search.sentence_writing.sentence_tools import SentenceTools

#: What is counted apart; a part inside another counts for itself only.
PARTS = {
    SentenceTools: ("score", "fit", "admitted"),
    SentenceWriter: ("write", "read", "screen", "log_probs", "means_after", "next_log_probs"),
}


class Spent:
    """Token-layers and processor seconds by part."""

    def __init__(self, runner: Any) -> None:
        self.meter, self.layers, self.seconds = runner.meter, Counter[str](), Counter[str]()
        self._inner: list[tuple[float, float]] = []

    def counted(self, own: Callable[..., Any], part: str) -> Callable[..., Any]:
        """The function, what it spends counted for its part."""

        def run(*args: Any, **kwargs: Any) -> Any:
            layers, start = self.meter.forward, time.process_time()
            self._inner.append((0.0, 0.0))
            found = own(*args, **kwargs)
            spent = (self.meter.forward - layers, time.process_time() - start)
            inner = self._inner.pop()
            self.layers[part] += spent[0] - inner[0]
            self.seconds[part] += spent[1] - inner[1]
            if self._inner:
                self._inner[-1] = (self._inner[-1][0] + spent[0], self._inner[-1][1] + spent[1])
            return found

        return run


def main() -> None:
    """One search, a line per part."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="smollm2-personas")
    parser.add_argument("--persona", default="hallucination")
    parser.add_argument("--calls", type=float, default=500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(given.model)
    contexts = make_contexts(model, load_persona(f"english_{given.persona}").split(seed=0).search).per_group(
        4, given.seed
    )
    goal = -answer_log_odds().calibrate(model, contexts, n=8)
    spent, start = Spent(runner_for(model)), time.process_time()
    with ExitStack() as patches:
        for owner, names in PARTS.items():
            for name in names:
                patches.enter_context(patch.object(owner, name, spent.counted(getattr(owner, name), name)))
        found = search(
            model,
            goal,
            contexts,
            SentenceSearch(max_cross_entropy=4.0),
            Budget(model_calls=given.calls),
            given.seed,
            batch_tokens=8192,
        )
    seconds = time.process_time() - start
    print(
        f"{found.cost.model_calls:.0f} model calls, {found.history['candidates'].iloc[-1]} sentences scored, {seconds:.0f} s"
    )
    for part, took in spent.seconds.most_common():
        print(
            f"{part:16} {spent.layers[part] / found.cost.forward:6.1%} of the token-layers {took / seconds:6.1%} of the time"
        )


if __name__ == "__main__":
    main()
