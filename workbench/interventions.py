"""Changing what happens inside the model while it runs: context managers that always take their hooks off.

1. An edit is a function of the activation at one hook; `Runner.edit` puts it there and takes it off.
2. Where it acts is decided per row from the running batch's layout (`Runner.layout`): everywhere, at the
   prompt, at the decision token, or from the decision token on.
3. Everything outside these positions keeps its bits: the edit is written into a copy, at the masked positions
   only.

Sign: a positive coefficient along a direction is more of the persona.
Sources: activation addition (Turner et al. 2023), CAA (Rimsky et al. 2024), steering at prompt tokens only
(PrOSV) and of tokens beyond a threshold only (arXiv 2604.08169).
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
    """What steering needs of a direction: its vector at length 1, and the site that it is added at."""

    @property
    def unit(self) -> Float[Tensor, " d_model"]:
        """The vector at length 1; plus = more of the persona."""
        ...

    @property
    def site(self) -> Site:
        """Where the direction is added."""
        ...


class HasLatents(Protocol):
    """What clamping needs of an SAE, and the site that it reads."""

    @property
    def site(self) -> Site:
        """The site that the SAE reads."""
        ...

    @property
    def W_dec(self) -> Float[Tensor, "d_sae d_model"]:
        """Decoder rows: the change of the residual stream by one unit of each latent."""
        ...

    def encode_some(
        self, x: Float[Tensor, "... d_model"], latents: Sequence[int]
    ) -> Float[Tensor, "... latent"]:
        """Activations of a few latents, 0 where they are off."""
        ...


@contextmanager
def steer(
    model: Any, direction: HasDirection, coefficient: float, positions: Positions = "all"
) -> Iterator[None]:
    """Add coefficient x unit direction to the residual stream at the direction's site while the block runs.

    Args:
        model: A loaded model or its runner.
        direction: A `Direction` (anything with `unit` and `site`).
        coefficient: In units of the residual stream; plus = more of the persona.
        positions: "all", or "prompt", "decision", "answer" in runs with a layout (those of `answer`).

    Raises:
        UserError: An unknown rule of positions, a direction of another width, or a rule that needs a layout
            in a run without one.

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
    """Conditional steering: readings beyond the threshold are moved to it, all others stay as they are.

    sign -1: no reading above `threshold` (less of the persona); +1: none below it. threshold: a reading x .
    unit.
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
    """Remove the residual stream's component along a direction at its site (reading 0) while the block runs.

    Args:
        model: A loaded model or its runner.
        direction: A `Direction` (anything with `unit` and `site`).
        positions: As in `steer`.

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
    """Hold latents at given activations while the block runs.

    The change is (value - activation now) x decoder row, so what the SAE does not explain stays untouched.

    Args:
        model: A loaded model or its runner.
        sae: The SAE of the latents.
        latents: Numbers of the latents.
        values: One per latent, in the latents' unit.
        positions: As in `steer`.

    Raises:
        UserError: A latent that the SAE does not have.

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
    """Replace the activation at a site while the block runs.

    Args:
        model: A loaded model or its runner.
        site: Where.
        values: [d_model] for all rows, [batch, d_model] for one per row, or [batch, pos, d_model].
        positions: As in `steer`.

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
    """The edit of one site, written in at the wanted positions only."""
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
