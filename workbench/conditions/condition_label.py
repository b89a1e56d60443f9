"""A condition's or search's name as a reader sees it, the same in report, terminal and notebook."""

from __future__ import annotations

from workbench.conditions.condition_registry import kind_label
from workbench.search import SEARCH_METHODS

#: Stages whose name in the manifest is no word for a reader.
STAGES = {"directions beside": "other directions"}


def stage_label(name: str) -> str:
    """A stage of a study as a reader sees it; a search is called by its condition.

    Example:
        >>> stage_label("search random_direction 1")
        'search random direction 1'
    """
    return STAGES.get(name) or condition_label(name)


def condition_label(name: str) -> str:
    """The name without underscores, kinds by their labels and search methods in capitals.

    Example:
        >>> condition_label("resga"), condition_label("random_direction 2")
        ('RESGA', 'random direction 2')
    """
    acronyms = {key for key, method in SEARCH_METHODS.items() if method.__name__.isupper()}
    words = [(word.removesuffix(":"), ":" if word.endswith(":") else "") for word in name.split(" ")]
    return " ".join((word.upper() if word in acronyms else kind_label(word)) + colon for word, colon in words)
