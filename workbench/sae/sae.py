"""An SAE at a site of a model: SAELens's module with a small, checked interface.

- `encode`, `decode` and `reconstruct` are those of SAELens.
- `encode_some` computes a few latents from their rows only. This is exact for ReLU, JumpReLU and gated SAEs.
  In a TopK SAE the latents compete, so all pre-activations are computed and the few are picked.
- A latent that is off has no gradient.
- Activations may be on any device: they are moved to the SAE's device, and results are moved back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor

from workbench.errors import UserError
from workbench.html_text import html_facts
from workbench.models import Site, runner_for
from workbench.sae.sae_check import SaeCheck

#: Architectures whose latents do not compete: a latent's activation does not depend on other latents' rows.
SEPARATE = ("standard", "jumprelu", "gated")
COMPETING = ("topk", "abstopk")


@dataclass(frozen=True, eq=False, repr=False)
class Sae:
    """An SAE with the site it was trained at.

    Attributes:
        name: Name or path under which the SAE was loaded.
        site: Site in the model whose activations the SAE reads.
        module: SAELens's SAE, frozen, in evaluation mode.
        fit: How well the SAE reconstructs text of the model that it was loaded for; None if it was loaded
            without a model.
    """

    name: str
    site: Site
    module: SAE[Any]
    fit: SaeCheck | None = None

    def __post_init__(self) -> None:
        if self.architecture not in SEPARATE + COMPETING:
            known = ", ".join(SEPARATE + COMPETING)
            raise UserError(
                f"SAE {self.name!r}: architecture {self.architecture!r} is not supported, expected one of {known}"
            )
        self.module.eval().requires_grad_(False)
        self.module.turn_off_forward_pass_hook_z_reshaping()  # heads are flattened here, so that both forms can be read

    @property
    def architecture(self) -> str:
        """SAELens's name of the architecture: standard (ReLU), jumprelu, gated, topk or abstopk.

        SAELens saves a BatchTopK SAE as jumprelu.
        """
        return self.module.cfg.architecture()

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.module.cfg.d_sae

    @property
    def d_in(self) -> int:
        """Width of the activations that the SAE reads."""
        return self.module.cfg.d_in

    @property
    def device(self) -> torch.device:
        """Device of the SAE's weights."""
        return self.module.W_enc.device

    @property
    def W_dec(self) -> Float[Tensor, "d_sae d_model"]:
        """Decoder rows: the vector that one unit of each latent adds to the reconstruction."""
        return self.module.W_dec.detach()

    @property
    def W_enc(self) -> Float[Tensor, "d_model d_sae"]:
        """Encoder columns: the direction that each latent reads in the activations."""
        return self.module.W_enc.detach()

    @property
    def metadata(self) -> dict[str, Any]:
        """Entries of the SAE's file about its training: model, hook, data."""
        return self.module.cfg.metadata.to_dict()

    @property
    def settings(self) -> dict[str, Any]:
        """Entries of the SAE's file: its computation (k, normalisation, ...) and training, not its device."""
        return {name: value for name, value in self.module.cfg.to_dict().items() if name != "device"}

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change if the site, the architecture or any weight changes."""
        digest = hashlib.sha256(f"{self.site.name} {self.architecture}".encode())
        for name, weight in sorted(self.module.state_dict().items()):
            digest.update(
                f"{name}{tuple(weight.shape)}".encode() + weight.detach().float().cpu().numpy().tobytes()
            )
        return digest.hexdigest()[:16]

    def check(self, model: Any) -> Sae:
        """Check that the SAE fits a model, and return the SAE.

        Args:
            model: A loaded model or its runner.

        Raises:
            UserError: The model does not have the SAE's layer or hook, or has another width there.
        """
        runner = runner_for(model)
        site, shape = self.site.checked(runner.shape.n_layers), runner.shape
        width = shape.n_heads * shape.d_head if site.hook == "z" else shape.d_model
        if site.name not in runner.hook_names():
            raise UserError(f"SAE {self.name!r} reads {site.name}, a hook that this model does not have")
        if width != self.d_in:
            raise UserError(
                f"SAE {self.name!r} reads vectors of width {self.d_in}: this model has width {width} at {site.name}"
            )
        return self

    def encode(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*batch d_sae"]:
        """Compute the activations of all latents; a latent that is off has activation 0.

        Args:
            x: Activations [..., d_model]; for attention heads also [..., head, d_head].

        Returns:
            float32 [..., d_sae], differentiable.
        """
        return self.module.encode(self._flat(x)).float().to(x.device)

    def decode(self, activations: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_model"]:
        """Compute the reconstruction from latent activations, in float32.

        Args:
            activations: Activations of all latents [..., d_sae].

        Raises:
            UserError: The SAE normalises each input, so that activations alone cannot be decoded: use
                `reconstruct`.
        """
        if self.module.cfg.normalize_activations in ("layer_norm", "constant_norm_rescale"):
            raise UserError(
                f"SAE {self.name!r} normalises each input: its activations alone cannot be decoded, use reconstruct(x)"
            )
        return (
            self.module.decode(activations.to(self.device, self.module.dtype)).float().to(activations.device)
        )

    @torch.no_grad()
    def reconstruct(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Compute the SAE's reconstruction of activations: float32, in the shape of x, without gradients."""
        return self.module.decode(self.module.encode(self._flat(x))).float().reshape(x.shape).to(x.device)

    def encode_some(
        self, x: Float[Tensor, "*shape"], latents: Sequence[int]
    ) -> Float[Tensor, "*batch latent"]:
        """Compute the activations of some latents only; equal to encode(x)[..., latents].

        Args:
            x: Activations [..., d_model]; for attention heads also [..., head, d_head].
            latents: Numbers of the latents, in the order of the result.

        Returns:
            float32 [..., latent], differentiable.
        """
        index, here = self._index(latents), self._flat(x)
        if self.architecture in COMPETING:
            return self.encode(here)[..., index].to(x.device)
        before = self.pre_activations(here, latents)
        module: Any = self.module  # which weights it has depends on the architecture
        found = before.relu()
        if self.architecture == "jumprelu":
            found = found * (before > module.threshold[index])
        if self.architecture == "gated":
            gate = module.process_sae_in(here) @ module.W_enc[:, index] + module.b_gate[index]
            found = found * (gate > 0)
        return found.to(x.device)

    def pre_activations(
        self, x: Float[Tensor, "*shape"], latents: Sequence[int] | None = None
    ) -> Float[Tensor, "*batch latent"]:
        """Compute the inputs of the latents' non-linearity (in a gated SAE those of the magnitude path).

        Args:
            x: Activations [..., d_model]; for attention heads also [..., head, d_head].
            latents: Numbers of the latents. None: all latents.

        Returns:
            float32 [..., latent], differentiable.
        """
        module: Any = self.module
        index = slice(None) if latents is None else self._index(latents)
        weights, here = module.W_enc[:, index], self._flat(x)
        if self.architecture == "gated":
            before = module.process_sae_in(here) @ (weights * module.r_mag[index].exp()) + module.b_mag[index]
            return before.float().to(x.device)
        before = module.process_sae_in(here) @ weights + module.b_enc[index]
        if getattr(module.cfg, "rescale_acts_by_decoder_norm", False):
            before = before * module.W_dec[index].norm(dim=-1)
        return before.float().to(x.device)

    def neuronpedia(self, latent: int) -> str | None:
        """Return the address of a latent's page on Neuronpedia, or None if the SAE's file names none."""
        (latent,) = self._index([latent]).tolist()
        page = self.metadata.get("neuronpedia_id")
        return f"https://www.neuronpedia.org/{page}/{latent}" if page else None

    def rows(self, latents: Sequence[int]) -> LatentRows:
        """Return a small SAE of the given latents only, so that the whole SAE can be freed from memory.

        Args:
            latents: Numbers of the latents.

        Raises:
            UserError: The SAE is a TopK SAE, whose latents compete and cannot be computed separately.
        """
        if self.architecture in COMPETING:
            raise UserError(
                f"SAE {self.name!r} is a {self.architecture}: its latents compete, so none can be read without the others"
            )
        index = self._index(latents)
        cut = {"W_enc": (slice(None), index), "b_dec": (slice(None),)}
        state = {
            name: value[cut.get(name, (index,))].clone() for name, value in self.module.state_dict().items()
        }
        cfg = type(self.module.cfg).from_dict({**self.module.cfg.to_dict(), "d_sae": len(index)})
        module = type(self.module)(cfg)
        module.load_state_dict(state)
        return LatentRows(replace(self, module=module), tuple(index.tolist()))

    def __repr__(self) -> str:
        fit = f"; {self.fit.summary}" if self.fit is not None else ""
        return f"Sae({self.name!r}: {self.architecture}, {self.d_sae} latents at {self.site.name}, width {self.d_in}{fit})"

    def _repr_html_(self) -> str:
        facts = {
            "architecture": self.architecture,
            "latents": self.d_sae,
            "site": self.site.name,
            "width": self.d_in,
        }
        page = self.metadata.get("neuronpedia_id")
        facts |= {"reconstruction": self.fit.summary} if self.fit is not None else {}
        return html_facts(facts | ({"Neuronpedia": str(page)} if page else {}), f"SAE {self.name}")

    def _flat(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*batch d_model"]:
        """Return activations on the SAE's device, with attention heads [..., head, d_head] flattened."""
        x = x.to(self.device)
        return x.flatten(-2) if self.site.hook == "z" and x.shape[-1] != self.d_in else x

    def _index(self, latents: Sequence[int]) -> Tensor:
        wrong = [i for i in latents if not 0 <= int(i) < self.d_sae]
        if wrong or not len(latents):
            found = f"latent {wrong[0]} does not exist" if wrong else "no latents given"
            raise UserError(f"{found}: SAE {self.name!r} has latents 0-{self.d_sae - 1}")
        return torch.as_tensor([int(i) for i in latents], device=self.device)


@dataclass(frozen=True, eq=False)
class LatentRows:
    """A few latents cut out of an SAE, addressed by their numbers in the whole SAE."""

    small: Sae
    latents: tuple[int, ...]

    @property
    def site(self) -> Site:
        """Site in the model whose activations the SAE reads."""
        return self.small.site

    def encode_some(
        self, x: Float[Tensor, "*batch d_model"], latents: Sequence[int]
    ) -> Float[Tensor, "*batch latent"]:
        """Compute the activations of some of the kept latents, as `Sae.encode_some`."""
        return self.small.encode_some(x, self._local(latents))

    def pre_activations(
        self, x: Float[Tensor, "*batch d_model"], latents: Sequence[int]
    ) -> Float[Tensor, "*batch latent"]:
        """Compute the inputs of the non-linearity of some of the kept latents, as `Sae.pre_activations`."""
        return self.small.pre_activations(x, self._local(latents))

    def _local(self, latents: Sequence[int]) -> list[int]:
        missing = [i for i in latents if i not in self.latents]
        if missing:
            raise UserError(
                f"latent {missing[0]} was not kept: the rows are those of {', '.join(map(str, self.latents))}"
            )
        return [self.latents.index(i) for i in latents]
