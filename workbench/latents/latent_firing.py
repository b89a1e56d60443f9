"""Activations of one latent at every token of a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from workbench.activations import read_all
from workbench.errors import UserError
from workbench.html_text import ShowsTable, shorten
from workbench.models import runner_for

#: Most characters of a text that is tokenised.
MAX_CHARACTERS = 20_000


@dataclass(frozen=True, repr=False)
class LatentFiring(ShowsTable):
    """Activations of one SAE latent at every token of a text.

    Attributes:
        latent: Number of the latent.
        tokens: Texts of the tokens.
        activations: Activation at each token, in the SAE's unit; 0 where the latent is off.

    Example:
        >>> LatentFiring(80, ("be", " honest"), (0.0, 3.5)).peak
        1
    """

    latent: int
    tokens: tuple[str, ...]
    activations: tuple[float, ...]

    @property
    def peak(self) -> int:
        """Index of the token with the highest activation."""
        return max(range(len(self.tokens)), key=lambda i: self.activations[i])

    def shown_table(self) -> tuple[str, pd.DataFrame]:
        """Return a caption and a table of tokens with activations, to show in a notebook."""
        return f"Latent {self.latent} on each token", pd.DataFrame(
            {"token": self.tokens, "activation": self.activations}
        )


def latent_firing(model: Any, sae: Any, latent: int, text: str) -> LatentFiring:
    """Compute the activation of an SAE latent at every token of a given text.

    Args:
        model: A loaded model or its runner.
        sae: The SAE of the latent.
        latent: Number of the latent.
        text: Plain text, without a chat template. A beginning-of-text token is put before it if the model has
            one; that token is not in the result.

    Returns:
        The activation at each token.

    Raises:
        UserError: The text is empty, is longer than the model's context, or has a part that the tokenizer
            cannot represent; or the latent does not exist.

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
