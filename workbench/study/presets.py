"""Studies that stand ready: the demo on the embedded model."""

from __future__ import annotations

from workbench.budget import Budget
from workbench.study.settings import Directions, Search, Sign, Study


def demo_study(persona: str = "sycophancy", sign: Sign = "suppress", seed: int = 0) -> Study:
    """The organism's study at a size that two CPU cores finish in a few minutes. Its budget is counted in steps, not in
    seconds, so that the same seed gives the same prompts on a busy machine too."""
    options = {"length": 8, "population": 6, "children": 12, "top_k": 48, "restart_every": 0, "gradient_contexts": 4}
    return Study(
        name=f"demo {persona}",
        persona=persona,
        sign=sign,
        seed=seed,
        directions=Directions(rows=256, texts=20, contexts=16),
        search=Search(method="epo", options=options, budget=Budget(steps=24), contexts=8),
    )
