"""The end of a wrapped Hugging Face model in float32: final norm, unembedding, scale and soft-cap.

`find_output_head` finds these parts through the bridge and the configuration, and keeps them only if they
give the model's own logits. A head that does more than these parts is left to the model itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.models.vocabulary_chunks import log_normalizer


@dataclass(frozen=True)
class OutputHead:
    """Final norm and unembedding of a model, computed in float32.

    Attributes:
        norm: The final norm, which keeps float32 inputs in float32 (its weights may have a shorter dtype).
        weight: The unembedding, one row per token.
        bias: Added to the logits; None if the model has none.
        scale: Factor of the logits.
        softcap: Soft-cap of the logits; 0 for none.
    """

    norm: Callable[[Tensor], Tensor]
    weight: Float[Tensor, "d_vocab d_model"]
    bias: Float[Tensor, " d_vocab"] | None
    scale: float
    softcap: float

    def normed(self, resid: Float[Tensor, "position d_model"]) -> Float[Tensor, "position d_model"]:
        """Apply the final norm and the logit scale in float32; the result is on the unembedding's device."""
        wide = resid if resid.dtype == torch.float64 else resid.float()
        return self.norm(wide[:, None].to(self.weight.device))[:, 0] * self.scale

    def logits_of(
        self, resid: Float[Tensor, "batch d_model"], ids: Int[Tensor, "batch k"]
    ) -> Float[Tensor, "batch k"]:
        """Return float32 logits of a few tokens per row, without computing those of all tokens.

        Args:
            resid: Residuals after the last block, one position per row.
            ids: Token ids, each row's own.
        """
        ids = ids.to(self.weight.device)
        normed = self.normed(resid)
        logits = torch.einsum("bd,bkd->bk", normed, self.weight[ids].to(normed.dtype))
        logits = logits if self.bias is None else logits + self.bias[ids].to(normed.dtype)
        return (self.softcap * torch.tanh(logits / self.softcap) if self.softcap > 0 else logits).float()

    def log_normalizer(self, resid: Float[Tensor, "position d_model"]) -> Float[Tensor, " position"]:
        """Return log(sum(exp(logits))) over the vocabulary for each position, computed in chunks."""
        return log_normalizer(self.normed(resid), self.weight, self.bias, self.softcap).float()


@torch.no_grad()
def find_output_head(model: Any, d_model: int, own_logits: Callable[[Tensor], Tensor]) -> OutputHead | None:
    """Find the output head of a TransformerBridge and check it against the model's own logits.

    Args:
        model: The TransformerBridge.
        d_model: Width of the residual stream.
        own_logits: Function from residuals to the model's own logits.

    Returns:
        The head, or None if its parts do not give `own_logits` on random residuals.
    """
    whole, cfg = model.original_model, getattr(model.original_model, "config", None)
    norm_name = getattr((model.adapter.component_mapping or {}).get("ln_final"), "name", None)
    unembedding = whole.get_output_embeddings()
    text = getattr(cfg, "text_config", cfg)
    scale = float(getattr(text, "logit_scale", None) or 1.0) / float(
        getattr(text, "logits_scaling", None) or 1.0
    )
    softcap = float(getattr(text, "final_logit_softcapping", None) or 0.0)
    if not norm_name or unembedding is None:
        return None
    head = OutputHead(
        whole.get_submodule(norm_name), unembedding.weight, getattr(unembedding, "bias", None), scale, softcap
    )
    dtype = next(model.parameters()).dtype
    resid = torch.randn(3, d_model, generator=torch.Generator().manual_seed(0)).to(
        next(model.parameters()).device, dtype
    )
    try:
        wanted = own_logits(resid)
        ids = torch.arange(min(256, wanted.shape[1]), device=wanted.device).expand(3, -1)
        found = head.logits_of(resid, ids).to(wanted.device)
    except (RuntimeError, TypeError, ValueError):
        return None
    allowed = (1e-4 if dtype in (torch.float32, torch.float64) else 0.05) * float(wanted.abs().max())
    return head if float((found - wanted.gather(1, ids)).abs().max()) <= allowed else None
