"""Griffe extension for the API pages: `Example:` of a docstring is a section of examples, so that its prompts are shown as code."""

from __future__ import annotations

from typing import Any

import griffe


class ExampleSections(griffe.Extension):
    """Griffe knows the section `Examples:` only; `Example:` would be an admonition with Markdown in it."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rename the section before the docstring is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
