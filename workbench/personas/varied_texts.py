"""Varied system texts of a persona: how many different ones a study needs to fit and test directions."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.errors import UserError

#: Smallest number of distinct varied system texts of a study.
LEAST_TEXTS = 8


def distinct_texts(texts: Sequence[str]) -> list[str]:
    """Return the distinct system texts without surrounding spaces, in order of first appearance.

    Args:
        texts: System texts; empty ones do not count.

    Returns:
        At least `LEAST_TEXTS` texts.

    Raises:
        UserError: There are fewer distinct texts.
    """
    distinct = list(dict.fromkeys(text.strip() for text in texts if text.strip()))
    if len(distinct) < LEAST_TEXTS:
        found = f"the persona has {len(distinct)} varied system texts"
        raise UserError(f"{found}: at least {LEAST_TEXTS} are needed, half to fit and half to test on")
    return distinct
