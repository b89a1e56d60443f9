"""The live panel: type a prompt in a notebook, and see what each of its tokens does."""

from workbench.panel.bench import Bench, Reading
from workbench.panel.widget import Panel

__all__ = ["Bench", "Panel", "Reading"]
