"""A persona's direction: a vector in the residual stream with its sign, site and origin.

Random control directions are drawn with the covariance of activations.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import UserError
from workbench.html_text import html_facts
from workbench.models import Site
from workbench.models.hook_sites import Position


@dataclass(frozen=True, eq=False)
class Direction:
    """A persona's direction in the residual stream, with its sign, layer and hook.

    Its reading of an activation x is the projection x . unit, in units of the residual stream; plus = more of
    the persona.

    Attributes:
        vector: float32 [d_model]; its length is the distance along it between the mean activations of rows
            that show the persona and rows that do not.
        site: Layer, hook and token position where it is read (usually the decision token, the last one before
            the answer).
        persona: Name of the persona.
        method: Name of the method that made it.
        auc: Probability that the reading of a held-out row that shows the persona exceeds that of one that
            does not.
        threshold: Midpoint between the mean readings of train rows in which the model chooses the persona's
            answer and of those in which it chooses the other one.
        source: How it was made, in words.
        mean: Mean of the readings of the train rows.
        sd: Standard deviation of these readings.
        fitted_at: Token position of the activations that the direction was fitted to.

    Example:
        >>> hook = "blocks.2.hook_resid_post"
        >>> direction = wb.Direction.from_tensor(torch.ones(4), hook, persona="sycophancy")
        >>> float(direction.reading(torch.ones(1, 4))[0])
        2.0
    """

    vector: Float[Tensor, " d_model"]
    site: Site
    persona: str
    method: str
    auc: float = float("nan")
    threshold: float = 0.0
    source: str = ""
    mean: float = 0.0
    sd: float = 1.0
    fitted_at: Position = "decision"

    def __post_init__(self) -> None:
        if self.vector.dim() != 1 or not bool(torch.isfinite(self.vector).all()):
            raise UserError(
                f"a direction is one finite vector [d_model], found shape {tuple(self.vector.shape)}"
            )
        if float(self.vector.norm()) == 0:
            raise UserError(f"the direction {self.name!r} has length 0")
        object.__setattr__(self, "vector", self.vector.detach().to("cpu", torch.float32).clone())

    @property
    def name(self) -> str:
        """Name from persona, method and site, such as `sycophancy own_choice blocks.2.hook_resid_post`."""
        return f"{self.persona} {self.method} {self.site.name}"

    @classmethod
    def from_tensor(
        cls,
        vector: Float[Tensor, " d_model"],
        hook_name: str,
        persona: str = "persona",
        method: str = "given",
        position: Position = "decision",
    ) -> Direction:
        """Make a direction from a plain vector and the TransformerLens hook name where it is read.

        Args:
            vector: [d_model], in units of the residual stream; plus = more of the persona.
            hook_name: Hook name, such as `blocks.5.hook_resid_post`.
            persona: Name of the persona.
            method: Name of the method that made the vector, for tables.
            position: Token of a sequence that is read.

        Returns:
            The direction, without AUC and threshold.

        Raises:
            UserError: The workbench does not read that hook, or the vector is not a finite [d_model].

        Example:
            >>> Direction.from_tensor(torch.tensor([3.0, 4.0]), "blocks.5.hook_resid_post").norm
            5.0
        """
        return cls(torch.as_tensor(vector), Site.parse(hook_name, position), persona, method)

    @property
    def hook_name(self) -> str:
        """TransformerLens name of the hook where the direction is read, as in `blocks.5.hook_resid_post`."""
        return self.site.name

    def to_tensor(self) -> Float[Tensor, " d_model"]:
        """Return a copy of the vector, float32 on the CPU, for a TransformerLens hook at `hook_name`."""
        return self.vector.clone()

    @property
    def norm(self) -> float:
        """Length of the direction's vector, in units of the residual stream."""
        return float(self.vector.norm())

    @property
    def unit(self) -> Float[Tensor, " d_model"]:
        """The direction's vector scaled to length 1."""
        return self.vector / self.vector.norm()

    def reading(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch"]:
        """Return the projections of activations on the direction's unit vector, in float32 on their device.

        Raises:
            UserError: The width of `x` is not that of the direction.
        """
        if x.shape[-1] != len(self.vector):
            raise UserError(
                f"the direction {self.name!r} has width {len(self.vector)}, the activations have {x.shape[-1]}"
            )
        return x.float() @ self.unit.to(x.device)

    def __neg__(self) -> Direction:
        """Return the opposite direction, with plus = less of the persona."""
        return replace(
            self,
            vector=-self.vector,
            method=f"-{self.method}",
            auc=1 - self.auc,
            threshold=-self.threshold,
            mean=-self.mean,
        )

    def __repr__(self) -> str:
        return f"Direction({self.name}, norm {self.norm:.3g}, held-out AUC {self.auc:.3f})"

    def _repr_html_(self) -> str:
        facts = {
            "site": self.site.name,
            "method": self.method,
            "length": self.norm,
            "held-out AUC": self.auc,
            "threshold": self.threshold,
        }
        return html_facts(
            facts | {"source": self.source or "not said"},
            caption=f"Direction of {self.persona}; plus = more of it",
        )

    def to_json(self) -> dict[str, Any]:
        """Return all fields of the direction except the vector, as plain JSON values."""
        entry = {k: v for k, v in asdict(replace(self)).items() if k not in ("vector", "site")}
        return {
            **entry,
            "norm": self.norm,
            "layer": self.site.layer,
            "hook": self.site.hook,
            "position": self.site.position,
        }


def random_directions(
    direction: Direction,
    activations: Float[Tensor, "n d_model"],
    n: int,
    seed: int = 0,
    both_signs: bool = True,
) -> tuple[Direction, ...]:
    """Draw random control directions that have the covariance of the model's activations.

    They have the length and the site (layer and hook) of `direction`. Each is g @ (x - mean), where x are the
    activations and g is Gaussian. An isotropic random vector instead mostly points where activations never
    go.

    Args:
        direction: The direction that they are controls of.
        activations: [n, d_model] at its site.
        n: Number of vectors.
        seed: Seed of the draws.
        both_signs: Whether each vector is followed by its negative, which gives 2n directions.

    Returns:
        The directions.

    Raises:
        UserError: `n` is below 1, the widths differ, or the activations do not vary.

    Example:
        >>> len(wb.random_directions(scan.best, scan.activations, n=3, both_signs=False))
        3
    """
    if n < 1:
        raise UserError(f"expected at least 1 random direction, found {n}")
    if activations.shape[-1] != len(direction.vector):
        raise UserError(
            f"activations of width {activations.shape[-1]} do not fit a direction of width {len(direction.vector)}"
        )
    centred = activations.double() - activations.double().mean(dim=0)
    weights = torch.randn(n, len(centred), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    vectors = weights @ centred
    lengths = vectors.norm(dim=1, keepdim=True)
    if float(lengths.min()) == 0:
        raise UserError("the activations do not vary: no covariance to draw random directions from")
    vectors = (vectors / lengths * direction.norm).float()
    made = []
    for number, vector in enumerate(vectors):
        source = f"random, covariance of {len(centred)} activations, seed {seed}"
        plain = replace(
            direction,
            vector=vector,
            method=f"random_{number}",
            auc=float("nan"),
            threshold=0.0,
            source=source,
        )
        made.extend([plain, -plain] if both_signs else [plain])
    return tuple(made)
