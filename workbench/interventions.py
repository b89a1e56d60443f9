"""Context managers that change activations while the model runs, and always remove their hooks.

1. An edit is a function of the activation at one hook. `Runner.edit` sets the hook and removes it.
2. The positions that are edited are decided per row from the token layout of the running batch
   (`Runner.layout`): all positions, the prompt, the decision token (the last token before the answer), or all
   positions from the decision token on.
3. The edit is written into a copy, at the edited positions only, so all other positions keep exactly their
   values.

Sign: a positive coefficient along a direction increases the persona. Sources: activation addition (Turner et
al. 2023), CAA (Rimsky et al. 2024), steering at prompt tokens only (PrOSV), steering only the tokens beyond a
threshold (arXiv 2604.08169).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.errors import UserError
from workbench.models import Runner, Site, runner_for

#: "all": every position. "prompt": the tokens in the slot, and with no prompt there everything left of the
#: decision token. "decision": the decision token alone. "answer": the decision token and what follows it (as
#: CAA steers).
Positions = Literal["all", "prompt", "decision", "answer"]


class HasDirection(Protocol):
    """Protocol of a steering direction: a unit vector and the site where it is added."""

    @property
    def unit(self) -> Float[Tensor, " d_model"]:
        """The direction as a vector of length 1; plus = more of the persona."""
        ...

    @property
    def site(self) -> Site:
        """Site in the model where the direction is added."""
        ...


class HasLatents(Protocol):
    """Protocol of an SAE whose latents can be clamped: decoder, activations and the site that it reads."""

    @property
    def site(self) -> Site:
        """The site that the SAE reads."""
        ...

    @property
    def W_dec(self) -> Float[Tensor, "d_sae d_model"]:
        """Decoder rows: how much one unit of each latent changes the residual stream."""
        ...

    def encode_some(
        self, x: Float[Tensor, "... d_model"], latents: Sequence[int]
    ) -> Float[Tensor, "... latent"]:
        """Compute the activations of the given latents only; a latent that is off has activation 0.

        Args:
            x: Activations at the SAE's site.
            latents: Numbers of the latents, in the order of the result.
        """
        ...


@contextmanager
def steer(
    model: Any, direction: HasDirection, coefficient: float, positions: Positions = "all"
) -> Iterator[None]:
    """Add coefficient x unit direction to the residual stream, in every run inside the `with` statement.

    The direction is added at its site.

    Args:
        model: A loaded model or its runner.
        direction: A `Direction`, or any object with `unit` (vector of length 1) and `site`.
        coefficient: Length of the added vector, in units of the residual stream; plus = more of the persona.
        positions: Where it is added: "all" positions; "prompt", the prompt's tokens (without a prompt, all
            before the decision token, which is the last one before the answer); "decision", that token; or
            "answer", that token and all after it. All but "all" need a function that knows these positions,
            such as `answer`.

    Raises:
        UserError: `positions` is unknown or cannot be located in this run, or the direction's width is not
            that of the model.

    Example:
        >>> with wb.steer(model, direction, -4.0):
        ...     steered = wb.answer(model, contexts)
        >>> bool(steered.log_odds.mean() < wb.answer(model, contexts).log_odds.mean())
        True
    """
    runner = runner_for(model)
    step = coefficient * _on(runner, _checked(runner, direction.unit))
    with _edited(runner, direction.site, lambda x: x + step.to(x.dtype), positions):
        yield


@contextmanager
def limit(
    model: Any, direction: HasDirection, threshold: float, sign: int, positions: Positions = "all"
) -> Iterator[None]:
    """Limit the projection of activations on a direction, in every run inside the `with` statement.

    An activation whose projection is beyond the threshold is moved along the direction to the threshold.
    Other activations stay as they are.

    Args:
        model: A loaded model or its runner.
        direction: A `Direction`, or any object with `unit` (vector of length 1) and `site`.
        threshold: Limit of the projection, in units of the residual stream.
        sign: -1 lowers projections above the threshold to it (less of the persona); +1 raises those below it.
        positions: Which positions are changed, as in `steer`.
    """
    if sign not in (-1, 1):
        raise UserError(f"the sign of a limit is +1 or -1, found {sign}")
    runner = runner_for(model)
    unit = _on(runner, _checked(runner, direction.unit))

    def moved(x: Tensor) -> Tensor:
        reading = x.float() @ unit
        beyond = (threshold - reading).clamp(min=0) if sign > 0 else (threshold - reading).clamp(max=0)
        return x + (beyond[..., None] * unit).to(x.dtype)

    with _edited(runner, direction.site, moved, positions):
        yield


@contextmanager
def ablate(model: Any, direction: HasDirection, positions: Positions = "all") -> Iterator[None]:
    """Remove the residual stream's component along a direction, in every run inside the `with` statement.

    It is removed at the direction's site; the projection on the direction is then 0.

    Args:
        model: A loaded model or its runner.
        direction: A `Direction`, or any object with `unit` (vector of length 1) and `site`.
        positions: Which positions are changed: "all", "prompt", "decision" or "answer", as in `steer`.

    Example:
        >>> with wb.ablate(model, direction):
        ...     ablated = wb.answer(model, contexts)
    """
    runner = runner_for(model)
    unit = _on(runner, _checked(runner, direction.unit))
    with _edited(
        runner, direction.site, lambda x: x - ((x.float() @ unit)[..., None] * unit).to(x.dtype), positions
    ):
        yield


@contextmanager
def clamp(
    model: Any, sae: HasLatents, latents: Sequence[int], values: Sequence[float], positions: Positions = "all"
) -> Iterator[None]:
    """Hold SAE latents at given activations, in every run inside the `with` statement.

    The residual stream changes by (value - present activation) x decoder row, so the part that the SAE does
    not reconstruct stays as it is.

    Args:
        model: A loaded model or its runner.
        sae: The SAE of the latents.
        latents: Numbers of the latents.
        values: Activation of each latent, in the SAE's unit; 0 switches a latent off.
        positions: Which positions are changed: "all", "prompt", "decision" or "answer", as in `steer`.

    Raises:
        UserError: The SAE does not have one of the latents, or the number of values is not that of latents.

    Example:
        >>> with wb.clamp(model, sae, latents.ids[:1], [0.0]):
        ...     clamped = wb.answer(model, contexts)
    """
    runner = runner_for(model)
    wanted = _checked_latents(sae, latents, values)
    rows = _on(runner, _checked(runner, sae.W_dec[list(latents)]))
    targets = _on(runner, torch.tensor(wanted))

    def moved(x: Tensor) -> Tensor:
        now = sae.encode_some(x.float(), list(latents)).to(x.device)
        return x + ((targets - now) @ rows).to(x.dtype)

    with _edited(runner, sae.site, moved, positions):
        yield


@contextmanager
def patch(
    model: Any, site: Site, values: Float[Tensor, "... d_model"], positions: Positions = "decision"
) -> Iterator[None]:
    """Replace the activation at a site by given values, in every run inside the `with` statement.

    Args:
        model: A loaded model or its runner.
        site: Where in the model the activation is replaced.
        values: [d_model] for all rows of a batch, [batch, d_model] for one vector per row, or [batch, pos,
            d_model].
        positions: Which positions are replaced: "all", "prompt", "decision" or "answer", as in `steer`.

    Example:
        >>> with wb.patch(model, wb.Site(2), torch.zeros(wb.runner_for(model).shape.d_model)):
        ...     patched = wb.answer(model, contexts)
    """
    runner = runner_for(model)
    given = values if values.dim() != 2 else values[:, None]

    def replaced(x: Tensor) -> Tensor:
        if given.shape[-1] != x.shape[-1] or (given.dim() == 3 and given.shape[0] not in (1, x.shape[0])):
            raise UserError(
                f"patch values of shape {tuple(values.shape)} do not fit activations of shape {tuple(x.shape)} at {site.name}"
            )
        return given.to(x.device, x.dtype).expand_as(x)

    with _edited(runner, site, replaced, positions):
        yield


def _edited(runner: Runner, site: Site, fn: Any, positions: Positions) -> Any:
    """Return the context manager that edits one site with `fn`, at the given positions only."""
    if positions not in get_args(Positions):
        raise UserError(f"unknown positions {positions!r}: expected one of {', '.join(get_args(Positions))}")
    site = site.checked(runner.shape.n_layers)

    def edit(activation: Tensor) -> Tensor:
        if positions == "all":
            return fn(activation)
        return torch.where(_mask(runner, activation, positions)[..., None], fn(activation), activation)

    return runner.edit(site.name, edit)


def _mask(
    runner: Runner, activation: Float[Tensor, "batch pos d_model"], positions: Positions
) -> Bool[Tensor, "batch pos"]:
    layout = runner.layout
    if layout is None:
        raise UserError(
            f"positions={positions!r} needs a run that says where its prompt and decision tokens are: use positions='all'"
        )
    at = torch.arange(activation.shape[1], device=activation.device)[None]
    start, stop, decision = (
        edge.to(activation.device)[:, None]
        for edge in (layout.prompt_start, layout.prompt_stop, layout.decision)
    )
    if positions == "decision":
        return at == decision
    if positions == "answer":
        return at >= decision
    in_prompt = (at >= start) & (at < stop)
    return torch.where(start == stop, at < decision, in_prompt)


def _checked(runner: Runner, vectors: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
    if vectors.shape[-1] != runner.shape.d_model:
        raise UserError(
            f"a vector of width {vectors.shape[-1]} does not fit this model, whose residual stream has {runner.shape.d_model}"
        )
    return vectors


def _checked_latents(sae: HasLatents, latents: Sequence[int], values: Sequence[float]) -> list[float]:
    d_sae = sae.W_dec.shape[0]
    unknown = [latent for latent in latents if not 0 <= latent < d_sae]
    if unknown:
        raise UserError(f"latent {unknown[0]} does not exist: this SAE has latents 0-{d_sae - 1}")
    if len(latents) != len(values) or not latents:
        raise UserError(f"expected one value for each of {len(latents)} latents, found {len(values)}")
    return [float(value) for value in values]


def _on(runner: Runner, vectors: Tensor) -> Tensor:
    return vectors.detach().float().to(runner.device)
