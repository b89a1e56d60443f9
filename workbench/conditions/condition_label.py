"""A condition's or search's name as a reader sees it, the same in report, terminal and notebook."""

from __future__ import annotations

from workbench.conditions.condition_registry import kind_label
from workbench.search import SEARCH_METHODS


def condition_label(name: str) -> str:
    """The name without underscores, kinds by their labels and search methods in capitals.

    Example:
        >>> condition_label("resga"), condition_label("random_direction 2")
        ('RESGA', 'random direction 2')
    """
    acronyms = {key for key, method in SEARCH_METHODS.items() if method.__name__.isupper()}
    words = [(word.removesuffix(":"), ":" if word.endswith(":") else "") for word in name.split(" ")]
    return " ".join((word.upper() if word in acronyms else kind_label(word)) + colon for word, colon in words)
