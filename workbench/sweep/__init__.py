"""Run many studies, each once, on one core or on a cluster; and transfer prompts between models.

The studies are a grid, a list, or the paper's ablations. The package itself can be called:
`workbench.sweep(...)` is the function, although importing any part of this package binds the name
`workbench.sweep` to the package.
"""

from workbench.callable_package import make_callable
from workbench.sweep.paper_ablations import ABLATIONS
from workbench.sweep.prompt_transfer import TransferResult, transfer
from workbench.sweep.run_sweep import SweepResult, sweep
from workbench.sweep.sweep_settings import Sweep, ablation_sweep

__all__ = ["ABLATIONS", "Sweep", "SweepResult", "TransferResult", "ablation_sweep", "sweep", "transfer"]

make_callable(__name__, sweep)
