"""Personas and their data: contrast items, published formats, splits by group, checks that need no model."""

from workbench.personas.items import Item, LetterForm, Metric, Persona, Sign, Split, Splits

__all__ = ["Item", "LetterForm", "Metric", "Persona", "Sign", "Split", "Splits"]
