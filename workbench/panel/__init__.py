"""The live panel: type a prompt in a notebook, and see what each of its tokens does."""

from workbench.panel.panel_widget import Panel, PanelOptions
from workbench.panel.prompt_reader import PromptReader, PromptReading

__all__ = ["Panel", "PanelOptions", "PromptReader", "PromptReading"]
