"""Side effects of a prompt on SAE latents: which unintended latents it changes, and how many are active.

1. The SAE encodes the decision token (the last token before the answer) of every context: without a prompt,
   under the prompt, and under a prompt that a person wrote.
2. A latent's change is its mean activation under the prompt minus that without a prompt. Its size is |change|
   x the norm of its decoder row, which is how far it moves the residual stream.
3. The largest changes outside the objective's latents are listed, next to the manual prompt's change of the
   same latents. L0 is the number of active latents (the paper, arXiv 2601.02896, finds 50-60 under prompts
   and above 150 under dense steering).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from workbench.attribution.attribution_problem import AttributionProblem, Ids
from workbench.attribution.attribution_targets import as_targets
from workbench.contexts import Contexts
from workbench.html_text import ShowsTable
from workbench.models import runner_for
from workbench.prompt_tokens import encode_prompt
from workbench.sae import Sae
from workbench.schema import MeanEntry, MovedLatentEntry, SideEffectsEntry
from workbench.statistics import Interval, cluster_interval


@dataclass(frozen=True)
class MovedLatent:
    """Change of one SAE latent's activation by a prompt, at the last token before the answer.

    Attributes:
        latent: Index of the latent.
        before: Mean activation on questions without a prompt.
        change: Mean activation under the prompt minus `before`, with its interval over contexts.
        size: |change| times the norm of the latent's decoder row, in units of the residual stream.
        manual: The same change under a prompt that a person wrote, for comparison; None without one.
    """

    latent: int
    before: float
    change: Interval
    size: float
    manual: float | None = None


@dataclass(frozen=True, repr=False)
class SideEffects(ShowsTable):
    """Latents whose activation a prompt changes, and the number of active latents.

    If the prompt was optimized for some latents (its objective), these are listed separately.

    Attributes:
        site: Layer and hook at which the SAE reads.
        sae: Name of the SAE.
        manual: The prompt written by a person that is compared; None without one.
        beside: Latents outside the objective, the largest change first.
        inside: Latents of the objective.
        aimed: Sum of the sizes of the changes of the objective's latents, as a fraction of the sum over all
            latents. None if the objective has no latents or no latent changed.
        active: Mean number of active latents (L0) by condition: "no prompt", "prompt", "manual prompt".
    """

    site: str
    sae: str
    manual: str | None
    beside: tuple[MovedLatent, ...]
    inside: tuple[MovedLatent, ...]
    aimed: float | None
    active: dict[str, Interval]

    @property
    def table(self) -> pd.DataFrame:
        """Table with one row per latent; those that the prompt was not optimized for come first."""
        rows = [
            {
                "latent": m.latent,
                "in_objective": inside,
                "before": m.before,
                "change": m.change.estimate,
                "low": m.change.low,
                "high": m.change.high,
                "manual_prompt": np.nan if m.manual is None else m.manual,
                "size": m.size,
            }
            for members, inside in ((self.beside, False), (self.inside, True))
            for m in members
        ]
        return pd.DataFrame(rows)

    @property
    def verdict(self) -> str:
        """Result in one or two sentences: the number of active latents, and the intended part of the change.

        The intended part is the fraction of all latents' changes that is of latents the prompt was optimized
        for.
        """
        counts = ", ".join(f"{interval.estimate:.1f} under {name}" for name, interval in self.active.items())
        aimed = (
            ""
            if self.aimed is None
            else f" The objective's latents hold {100 * self.aimed:.0f} % of how far all latents move."
        )
        return f"Active latents at the decision token: {counts}.{aimed}"

    def to_entry(self) -> SideEffectsEntry:
        """Convert the result to the `side_effects` entry of attribution.json."""
        ends = {name: interval.to_json() for name, interval in self.active.items()}
        return SideEffectsEntry(
            site=self.site,
            sae=self.sae,
            manual=self.manual,
            aimed=self.aimed,
            verdict=self.verdict,
            active={
                name: MeanEntry(mean=i.estimate, low=ends[name][0], high=ends[name][1])
                for name, i in self.active.items()
            },
            beside=[_entry(m) for m in self.beside],
            inside=[_entry(m) for m in self.inside],
        )

    def shown_table(self) -> tuple[str, pd.DataFrame]:
        """Return a caption with the verdict, and the table of latents."""
        return f"Latents that the prompt moves ({self.verdict})", self.table


def side_effects(
    model: Any,
    sae: Sae,
    prompt: str | Sequence[int],
    contexts: Contexts,
    objective: Sequence[int] = (),
    manual: str | None = None,
    top: int = 10,
) -> SideEffects:
    """Measure how a prompt changes the activations of all latents of an SAE at the decision token.

    Args:
        model: A loaded model or its runner.
        sae: The SAE.
        prompt: Text or token ids.
        contexts: Questions in their chat template.
        objective: Indices of the latents that the prompt was optimized for.
        manual: A prompt to compare with, usually written by a person; None for no comparison.
        top: Number of latents outside the objective to list.

    Returns:
        The latents that moved most, each with its interval.

    Raises:
        UserError: SAE and model do not fit.

    Example:
        >>> moved = wb.side_effects(model, sae, "be blunt", contexts, objective=latents.ids, top=3)
    """
    runner = runner_for(model)
    sae.check(runner)
    ids = {"no prompt": None, "prompt": _ids(runner, contexts, prompt)}
    if manual:
        ids["manual prompt"] = _ids(runner, contexts, manual)
    problem = AttributionProblem(runner, ids["prompt"] or (), contexts, as_targets({}))
    with torch.no_grad():
        encoded = {
            name: sae.encode(problem.read(sae.site, [p] * len(contexts))).double().cpu().numpy()
            for name, p in ids.items()
        }
    active = {
        name: cluster_interval((values != 0).sum(axis=1).astype(float), contexts.groups)
        for name, values in encoded.items()
    }
    change = encoded["prompt"] - encoded["no prompt"]
    size = np.abs(change.mean(axis=0)) * sae.W_dec.norm(dim=1).double().cpu().numpy()
    chosen = sorted(set(objective))
    others = [int(i) for i in np.argsort(-size, kind="stable") if int(i) not in set(chosen) and size[i] > 0][
        :top
    ]
    aimed = float(size[chosen].sum() / size.sum()) if chosen and size.sum() > 0 else None
    made = lambda latent: _moved(latent, encoded, change, float(size[latent]), contexts)  # noqa: E731
    return SideEffects(
        sae.site.name, sae.name, manual, tuple(map(made, others)), tuple(map(made, chosen)), aimed, active
    )


def _moved(
    latent: int,
    encoded: dict[str, Float[np.ndarray, "context d_sae"]],
    change: np.ndarray,
    size: float,
    contexts: Contexts,
) -> MovedLatent:
    before = encoded["no prompt"][:, latent].mean()
    manual = encoded["manual prompt"][:, latent].mean() - before if "manual prompt" in encoded else None
    return MovedLatent(
        latent,
        float(before),
        cluster_interval(change[:, latent], contexts.groups),
        size,
        None if manual is None else float(manual),
    )


def _ids(runner: Any, contexts: Contexts, prompt: str | Sequence[int]) -> Ids:
    return (
        encode_prompt(runner, contexts, prompt) if isinstance(prompt, str) else tuple(int(i) for i in prompt)
    )


def _entry(moved: MovedLatent) -> MovedLatentEntry:
    low, high = moved.change.to_json()
    return MovedLatentEntry(
        latent=moved.latent,
        before=moved.before,
        change=moved.change.estimate,
        low=low,
        high=high,
        manual=moved.manual,
        size=moved.size,
    )
