"""Where a latent fires in one text: its activation at every token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from workbench.activations import read_all
from workbench.errors import UserError
from workbench.html_text import ShowsTable, shorten
from workbench.models import runner_for

#: Longest text that is tokenised.
MAX_CHARACTERS = 20_000


@dataclass(frozen=True, repr=False)
class LatentFiring(ShowsTable):
    """A latent on one text.

    Attributes:
        latent: Its number.
        tokens: The text's tokens.
        activations: One for each, in the latent's unit; 0 where it is off.

    Example:
        >>> LatentFiring(80, ("be", " honest"), (0.0, 3.5)).peak
        1
    """

    latent: int
    tokens: tuple[str, ...]
    activations: tuple[float, ...]

    @property
    def peak(self) -> int:
        """Index of the token on which it fires most."""
        return max(range(len(self.tokens)), key=lambda i: self.activations[i])

    def shown_table(self) -> tuple[str, pd.DataFrame]:
        """Tokens with activations."""
        return f"Latent {self.latent} on each token", pd.DataFrame(
            {"token": self.tokens, "activation": self.activations}
        )


def latent_firing(model: Any, sae: Any, latent: int, text: str) -> LatentFiring:
    """Reads a latent on a text of one's own.

    Args:
        model: A loaded model or its runner.
        sae: The SAE of the latent.
        latent: Its number.
        text: Plain text; a beginning-of-text token is put in front where the model has one, and is not shown.

    Returns:
        The activation at each token.

    Raises:
        UserError: An empty text, one that is longer than the model's context or that it cannot read, or a
            latent that does not exist.

    Example:
        >>> wb.latent_firing(model, sae, latents.ids[0], "be honest").tokens
        ('be', 'honest')
    """
    runner = runner_for(model)
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"a text of {len(text):,} characters: expected at most {MAX_CHARACTERS:,}")
    ids, begin = list(runner.encode(text)), runner.tokenizer.bos_token_id
    if not ids:
        raise UserError("expected a text with at least one token, found none")
    read = runner.decode(ids)
    if "".join(read.split()) != "".join(text.split()):
        raise UserError(
            f"this model reads {shorten(read, 80)!r}: a part of what is typed has no token of its own"
        )
    whole = ids if begin is None or ids[0] == begin else [begin, *ids]
    if len(whole) > runner.shape.n_ctx:
        raise UserError(f"a text of {len(whole):,} tokens: this model's context holds {runner.shape.n_ctx:,}")
    with torch.no_grad():
        states = read_all(runner, [whole], [sae.site])[sae.site][0]
        found = sae.encode_some(states.float(), [latent])[:, 0].cpu().tolist()
    return LatentFiring(latent, tuple(runner.decode([i]) for i in ids), tuple(found[len(whole) - len(ids) :]))
