"""circuitsvis's token and attention views, with one adapter: escaped tokens, local source, no network.

circuitsvis (1.43.3) writes tokens as JSON into an inline script, so that `</script>` in a token ends it; some of its views then
put tokens into the page as markup and others as text, so that no escape is right in all of them. Here `<`, `>` and `&` become
their full-width forms, which are nobody's markup; invisible characters are made visible; and the package's own copy of the
script is put inline (1.3 MB a view) instead of being loaded from the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from workbench.errors import UserError
from workbench.html_text import shorten, visible
from workbench.optional_packages import needs_extra

_FULL_WIDTH = str.maketrans({"<": "\uff1c", ">": "\uff1e", "&": "\uff06"})
MAX_TOKENS = 2_000


@dataclass(frozen=True)
class CircuitsvisView:
    """A piece of HTML that shows itself in a notebook."""

    html: str

    def _repr_html_(self) -> str:
        return self.html


def ledger_view(ledger: Any, estimator: str = "removal") -> CircuitsvisView:
    """The prompt's tokens, coloured by their mean effect on the target that one points at (circuitsvis).

    Args:
        ledger: The `Ledger` of `attribute`.
        estimator: The estimator whose effects are shown.

    Returns:
        A piece of HTML that shows itself in a notebook.

    Example:
        >>> ledger = wb.attribute(model, "be blunt", {"answer": wb.answer_log_odds()}, contexts)
        >>> "blunt" in wb.ledger_view(ledger).html
        True
    """
    return token_view(ledger.tokens, ledger.means(estimator), ledger.names)


def token_view(tokens: Sequence[str], values: Float[np.ndarray, "prompt_pos target"], labels: Sequence[str]) -> CircuitsvisView:
    """Tokens coloured by one of several values each, chosen by pointing at its label. Raises UserError where sizes differ."""
    with needs_extra("notebook", "a token view"):
        from circuitsvis.tokens import colored_tokens_multi
    from torch import as_tensor

    found = np.asarray(values, dtype=np.float32)
    if found.shape != (len(tokens), len(labels)):
        raise UserError(f"expected values of shape {(len(tokens), len(labels))} (tokens, labels), found {found.shape}")
    return CircuitsvisView(colored_tokens_multi(_safe(tokens), as_tensor(found), _safe(labels, spaces=False)).local_src)


def attention_view(tokens: Sequence[str], patterns: Float[np.ndarray, "head pos pos"]) -> CircuitsvisView:
    """Attention patterns, one a head (circuitsvis).

    Args:
        tokens: The texts of the sequence's tokens.
        patterns: Attention weights, float [head query_pos key_pos].

    Returns:
        A piece of HTML that shows itself in a notebook.

    Raises:
        UserError: The sizes of `tokens` and `patterns` differ, or there are too many tokens.

    Example:
        >>> "circuitsvis" in wb.attention_view(["Be", " kind"], np.tril(np.ones((1, 2, 2)))).html.lower()
        True
    """
    with needs_extra("notebook", "an attention view"):
        from circuitsvis.attention import attention_patterns
    from torch import as_tensor

    found = np.asarray(patterns, dtype=np.float32)
    if found.ndim != 3 or found.shape[1:] != (len(tokens), len(tokens)):
        raise UserError(f"expected patterns of shape (heads, {len(tokens)}, {len(tokens)}), found {found.shape}")
    return CircuitsvisView(attention_patterns(_safe(tokens), as_tensor(found)).local_src)


def _safe(texts: Sequence[str], spaces: bool = True) -> list[str]:
    if len(texts) > MAX_TOKENS:
        raise UserError(f"a view of {len(texts)} tokens is too large for a page: expected at most {MAX_TOKENS}")
    return [shorten(visible(text, spaces), 200).translate(_FULL_WIDTH) for text in texts]
