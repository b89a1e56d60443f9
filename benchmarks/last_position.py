"""What running only the decision token through the read-out block saves: 72 prompts of 8 tokens on the demo's search contexts.

Operations by the meter, processor seconds in turns; both over the same scoring with `Savings(last_position=False)`.

    OMP_NUM_THREADS=1 python -m benchmarks.last_position
"""

from __future__ import annotations

import time

import torch

from workbench.models import load_model, runner_for
from workbench.objectives import projection
from workbench.search import Savings, Scorer
from workbench.study.presets import demo_study
from workbench.study.stages import Material, scan

PROMPTS, LENGTH, TURNS = 72, 8, 5


def main() -> None:
    """Print the ratios."""
    torch.set_num_threads(1)
    material = Material.load(demo_study(), load_model("organism"))
    runner, contexts = runner_for(material.model), material.search_contexts
    goal = projection(scan(material).best).calibrate(material.model, contexts)
    ids = torch.randint(20, 400, (PROMPTS, LENGTH), generator=torch.Generator().manual_seed(0))
    with_it, without = (Scorer(runner, goal, contexts, Savings(last_position=on)) for on in (True, False))

    def cost(scorer: Scorer) -> tuple[float, float]:
        flops, began = runner.meter.flops, time.process_time()
        scorer.score(ids)
        return runner.meter.flops - flops, time.process_time() - began

    turns = [(cost(with_it), cost(without)) for _ in range(TURNS)]
    ratios = sorted(ours[1] / theirs[1] for ours, theirs in turns)
    print(f"read out behind block {goal.sites[0].layer}: operations {turns[0][0][0] / turns[0][1][0]:.3f}, ", end="")
    print(f"processor time {ratios[TURNS // 2]:.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
