"""Sites at which activations are read: a hook, a layer and a token position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from workbench.errors import UserError

Position = Literal["decision", "answer", "response_mean"]

#: Canonical hook names (TransformerLens's) by short name.
HOOKS = {
    "resid_pre": "blocks.{layer}.hook_resid_pre",
    "resid_mid": "blocks.{layer}.hook_resid_mid",
    "resid_post": "blocks.{layer}.hook_resid_post",
    "attn_out": "blocks.{layer}.hook_attn_out",
    "mlp_out": "blocks.{layer}.hook_mlp_out",
    "z": "blocks.{layer}.attn.hook_z",
    "pattern": "blocks.{layer}.attn.hook_pattern",
}


@dataclass(frozen=True, order=True)
class Site:
    """Place where activations are read: a block, a hook point and a token position.

    Attributes:
        layer: Block index, from 0.
        hook: `resid_pre`, `resid_mid`, `resid_post`, `attn_out`, `mlp_out`, `z` or `pattern`.
        position: Token of the sequence that is read. `decision`: the last token before the answer; `answer`:
            the first token of the answer; `response_mean`: the mean over the answer.

    Example:
        >>> wb.Site(2).name
        'blocks.2.hook_resid_post'
    """

    layer: int
    hook: str = "resid_post"
    position: Position = "decision"

    @property
    def name(self) -> str:
        """Name of the hook point in TransformerLens, such as `blocks.5.hook_resid_post`."""
        return HOOKS[self.hook].format(layer=self.layer)

    def checked(self, n_layers: int) -> Site:
        """Return this site after checking it against the model.

        Args:
            n_layers: Number of layers of the model.

        Raises:
            UserError: The model has no such layer, or the hook is unknown.
        """
        if self.hook not in HOOKS:
            raise UserError(f"unknown hook {self.hook!r}: expected one of {', '.join(HOOKS)}")
        if not 0 <= self.layer < n_layers:
            raise UserError(f"layer {self.layer} does not exist: this model has layers 0-{n_layers - 1}")
        return self

    @classmethod
    def parse(cls, name: str, position: Position = "decision") -> Site:
        """Make a site from a TransformerLens hook name.

        Args:
            name: A hook name, such as `blocks.5.hook_resid_post`.
            position: Token position of the site.

        Raises:
            UserError: The name does not belong to a hook in `HOOKS`.
        """
        for hook, pattern in HOOKS.items():
            head, tail = pattern.split("{layer}")
            middle = name.removeprefix(head).removesuffix(tail)
            if name.startswith(head) and name.endswith(tail) and middle.isdigit():
                return cls(int(middle), hook, position)
        raise UserError(
            f"unknown hook name {name!r}: expected a form like {HOOKS['resid_post'].format(layer=5)!r}"
        )
