"""Many studies: a grid, a list, or the paper's ablations; on one core or on a cluster; each run once. And transfer between models.

The package itself can be called: `workbench.sweep(...)` is the function, although importing any part of this package binds the name
`workbench.sweep` to the package.
"""

import sys
from types import ModuleType

from workbench.sweep.ablations import ABLATIONS
from workbench.sweep.run import SweepResult, sweep
from workbench.sweep.settings import Sweep, ablation_sweep
from workbench.sweep.transfer import Transfer, transfer

__all__ = ["ABLATIONS", "Sweep", "SweepResult", "Transfer", "ablation_sweep", "sweep", "transfer"]


class _Callable(ModuleType):
    __call__ = staticmethod(sweep)


sys.modules[__name__].__class__ = _Callable
