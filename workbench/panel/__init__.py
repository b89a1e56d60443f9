"""Live panel for notebooks: shows the effect of each token of a prompt while it is typed."""

from workbench.panel.panel_widget import Panel, PanelOptions
from workbench.panel.prompt_reader import PromptReader, PromptReading

__all__ = ["Panel", "PanelOptions", "PromptReader", "PromptReading"]
