"""Token and attention views of circuitsvis for notebooks, with escaped tokens, a local script and no network.

circuitsvis (1.43.3) writes tokens as JSON into an inline script, where `</script>` in a token would end the
script. Some of its views then insert tokens as markup and others as text, so no single escape is right for
all. Therefore `<`, `>` and `&` become `‹`, `›` and a full-width `＆`, which are not markup, and invisible
characters are made visible. The package's own script is inlined, compressed (0.5 MB instead of 1.3 MB), and
only once for views that are added with `+`. Where scripts may not run (in an untrusted notebook, or on a web
page), a static table is shown instead of the view.
"""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from workbench.attribution.ledger_html import matrix_html
from workbench.errors import UserError
from workbench.html_text import escape, shorten, visible
from workbench.models import Site, runner_for
from workbench.optional_packages import needs_extra

_FULL_WIDTH = str.maketrans({"<": "\u2039", ">": "\u203a", "&": "\uff06"})
_PARTS = re.compile(
    r'<div id="(?P<id>[\w-]+)"[^>]*/>\s*<script crossorigin type="module">(?P<source>.*)'
    r'CircuitsVis\.render\(\s*"(?P=id)",\s*CircuitsVis\.(?P<component>\w+),\s*(?P<props>.*?)\s*\)\s*</script>\s*',
    re.DOTALL,
)
MAX_TOKENS = 2_000


@dataclass(frozen=True)
class CircuitsvisView:
    """One or more circuitsvis pictures as HTML that a notebook displays.

    Pictures can be combined with `+`; the circuitsvis script is then included only once.

    Attributes:
        pieces: For each picture: the id of its HTML element, a static picture for viewers without scripts,
            and the JavaScript call that draws it.
        source: The compressed circuitsvis script in base64.
    """

    pieces: tuple[tuple[str, str, str], ...]
    source: str

    @property
    def html(self) -> str:
        """HTML of all pictures, together with the script that draws them."""
        places = "".join(
            f'<div id="{name}" style="margin:15px 0">{still}</div>' for name, still, _ in self.pieces
        )
        calls = "\n".join(call for *_, call in self.pieces)
        return f"""{places}<script type="module">
const bytes = Uint8Array.from(atob("{self.source}"), (c) => c.charCodeAt(0));
const text = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
const CircuitsVis = new Function(text + ";return CircuitsVis")();
{calls}
</script>"""

    def __add__(self, other: CircuitsvisView) -> CircuitsvisView:
        return CircuitsvisView((*self.pieces, *other.pieces), self.source)

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return f"{len(self.pieces)} view{'s' if len(self.pieces) > 1 else ''} for a notebook"


def ledger_view(ledger: Any, estimator: str = "removal") -> CircuitsvisView:
    """Show the prompt's tokens, coloured by their mean effect on a target that the reader selects.

    Args:
        ledger: The `Ledger` of `attribute`.
        estimator: The estimator whose effects are shown.

    Returns:
        A view that a notebook displays.

    Example:
        >>> ledger = wb.attribute(model, "be blunt", {"answer": wb.answer_log_odds()}, contexts)
        >>> "blunt" in wb.ledger_view(ledger).html
        True
    """
    return token_view(_with_spaces(ledger.tokens, ledger.text), ledger.means(estimator), ledger.shown_names)


def _with_spaces(tokens: Sequence[str], text: str) -> list[str]:
    """Add to the tokens the spaces that the text has between them, if the vocabulary's tokens have none.

    The tokens are returned unchanged if they do not match the text.
    """
    place, found = 0, []
    for token in tokens:
        start = place if text.startswith(token, place) else len(text) - len(text[place:].lstrip(" "))
        if not text.startswith(token, start):
            return list(tokens)
        place = start + len(token)
        found.append(
            text[start - (start > 0 and text[start - 1] == " " and not token.startswith(" ")) : place]
        )
    return found


def token_view(
    tokens: Sequence[str], values: Float[np.ndarray, "prompt_pos target"], labels: Sequence[str]
) -> CircuitsvisView:
    """Show tokens coloured by one of several values, selected by pointing at the value's label.

    Args:
        tokens: The tokens as text.
        values: One value per token and label.
        labels: Names of the values.

    Raises:
        UserError: The sizes of the arguments differ.
    """
    with needs_extra("notebook", "a token view"):
        from circuitsvis.tokens import colored_tokens_multi

    found = np.asarray(values, dtype=np.float32)
    if found.shape != (len(tokens), len(labels)):
        raise UserError(
            f"expected values of shape {(len(tokens), len(labels))} (tokens, labels), found {found.shape}"
        )
    still = matrix_html(tokens, labels, found, "Tokens by value")
    return _view(
        colored_tokens_multi(_safe(tokens), torch.as_tensor(found), _safe(labels, spaces=False)).local_src,
        still,
    )


def attention_view(
    tokens: Sequence[str],
    patterns: Float[np.ndarray, "head query_pos key_pos"],
    names: Sequence[str] | None = None,
) -> CircuitsvisView:
    """Show the attention patterns of several heads (circuitsvis).

    Args:
        tokens: The sequence's tokens as text.
        patterns: Attention weights, float [head query_pos key_pos].
        names: Names of the heads; None for their numbers.

    Returns:
        A view that a notebook displays.

    Raises:
        UserError: The sizes of `tokens`, `patterns` and `names` differ, or there are too many tokens.

    Example:
        >>> "circuitsvis" in wb.attention_view(["Be", " kind"], np.tril(np.ones((1, 2, 2)))).html.lower()
        True
    """
    with needs_extra("notebook", "an attention view"):
        from circuitsvis.attention import attention_heads

    found = np.asarray(patterns, dtype=np.float32)
    if found.ndim != 3 or found.shape[1:] != (len(tokens), len(tokens)) or len(names or found) != len(found):
        raise UserError(
            f"expected patterns of shape (heads, {len(tokens)}, {len(tokens)}) and a name for each, found {found.shape}"
        )
    named = _safe(names or [f"head {i}" for i in range(len(found))], spaces=False)
    still = f"<p>Attention patterns of {escape(', '.join(named))}: run the cell to see them.</p>"
    return _view(
        attention_heads(torch.as_tensor(found), _safe(tokens), named, max_value=1.0, min_value=0.0).local_src,
        still,
    )


def circuit_view(model: Any, ledger: Any, context: Any) -> CircuitsvisView:
    """Show the attention patterns of a circuit's heads on one question, with the prompt in its slot.

    Args:
        model: A loaded model or its runner.
        ledger: A `Ledger` with a circuit (`wb.attribute(..., circuit=10)`).
        context: One of the contexts (a question in its chat template).

    Returns:
        A view that a notebook displays without a network.

    Raises:
        UserError: The ledger has no circuit, the circuit has no head, or the model's attention patterns
            cannot be read.

    Example:
        >>> wb.circuit_view(model, ledger, contexts[0])  # doctest: +SKIP
    """
    runner = runner_for(model)
    heads = (
        sorted({(node.site.layer, node.head) for node in ledger.circuit.nodes if node.head is not None})
        if ledger.circuit
        else []
    )
    sites = sorted({Site(layer, "pattern") for layer, _ in heads})
    if not heads or any(site.name not in runner.hook_names() for site in sites):
        raise UserError(
            "no attention to show: expected a ledger with a circuit that has a head, of a model whose patterns can be read"
        )
    ids = context.ids(ledger.prompt_ids)
    with torch.no_grad(), runner.capture(sites) as caught:
        runner.run(runner.embed(torch.tensor([ids], device=runner.device)), 0, runner.shape.n_layers)
    patterns = [caught[Site(layer, "pattern")][0, head].float().cpu().numpy() for layer, head in heads]
    return attention_view(
        [runner.decode([i]) for i in ids],
        np.stack(patterns),
        [f"layer {layer}, head {head}" for layer, head in heads],
    )


def _view(page: str, still: str) -> CircuitsvisView:
    """Extract the parts of a page that circuitsvis wrote into a view."""
    found = _PARTS.fullmatch(page.strip())
    if found is None:
        raise UserError("this version of circuitsvis writes its views in another form: expected 1.43.3")
    call = f'CircuitsVis.render("{found["id"]}", CircuitsVis.{found["component"]}, {found["props"]})'
    return CircuitsvisView(
        ((found["id"], still, call),),
        base64.b64encode(gzip.compress(found["source"].encode(), mtime=0)).decode(),
    )


def _safe(texts: Sequence[str], spaces: bool = True) -> list[str]:
    if len(texts) > MAX_TOKENS:
        raise UserError(
            f"a view of {len(texts)} tokens is too large for a page: expected at most {MAX_TOKENS}"
        )
    return [shorten(visible(text, spaces), 200).translate(_FULL_WIDTH) for text in texts]
