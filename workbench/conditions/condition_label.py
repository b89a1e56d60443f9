"""Labels of conditions, searches and stages: the same in report, terminal and notebook."""

from __future__ import annotations

from workbench.conditions.condition_registry import kind_label
from workbench.search import SEARCH_METHODS

#: Labels of stages whose name in the manifest would not be clear to a reader.
STAGES = {"directions beside": "other directions"}


def stage_label(name: str) -> str:
    """Return the label, for readers, of a stage (step) of a study, such as one of its searches for prompts.

    Example:
        >>> stage_label("search random_direction 1")
        'search random direction 1'
    """
    return STAGES.get(name) or condition_label(name)


def condition_label(name: str) -> str:
    """Return the label of a study condition or of a search, such as "RESGA" for "resga".

    Registered kinds have their own labels, names of search methods are in capitals, and underscores become
    spaces.

    Example:
        >>> condition_label("resga"), condition_label("random_direction 2")
        ('RESGA', 'random direction 2')
    """
    acronyms = {key for key, method in SEARCH_METHODS.items() if method.__name__.isupper()}
    words = [(word.removesuffix(":"), ":" if word.endswith(":") else "") for word in name.split(" ")]
    return " ".join((word.upper() if word in acronyms else kind_label(word)) + colon for word, colon in words)
