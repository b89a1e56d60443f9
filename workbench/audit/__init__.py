"""The audit of one's own prompt: which words cause the persona, and the smallest edit that takes it away."""

import sys
from types import ModuleType

from workbench.audit.audit import Audit, audit, inside
from workbench.audit.effects import Effects, Through, WordEffect
from workbench.audit.mend import Collateral, Mend
from workbench.audit.phrases import Phrase
from workbench.audit.words import Words

__all__ = ["Audit", "Collateral", "Effects", "Mend", "Phrase", "Through", "WordEffect", "Words", "audit", "inside"]


class _Callable(ModuleType):
    """`wb.audit` is the verb, also once this package of the same name was imported."""

    __call__ = staticmethod(audit)


sys.modules[__name__].__class__ = _Callable
