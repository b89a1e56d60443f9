"""Heatmap of the ledger: targets by prompt tokens, coloured by effect."""
# ruff: noqa: RUF001  (typographic signs are meant)

from __future__ import annotations

from typing import Any

import pandas as pd

from workbench.html_text import visible
from workbench.plots.palette import DIVERGING
from workbench.report.figures.chart_style import alt, filled, plain_text


def heatmap(ledger: Any, estimator: str = "removal", rows: int = 20) -> alt.LayerChart | alt.FacetChart:
    """Draw the effect of each prompt token on each target as a heatmap with figures.

    Targets are the answer's log-odds, directions and latents.

    Orange with + raises the row's quantity, blue with − lowers it. Each row is shaded relative to its largest
    effect.

    Args:
        ledger: A `Ledger` or its table (attribution.parquet).
        estimator: The estimator whose effects are drawn.
        rows: Largest number of targets.
    """
    table = ledger if isinstance(ledger, pd.DataFrame) else ledger.table
    if not isinstance(ledger, pd.DataFrame):
        table = table.assign(
            target=table["target"].replace(dict(zip(ledger.names, ledger.shown_names, strict=True)))
        )
    frame = table.loc[table["estimator"] == estimator]
    kept = list(dict.fromkeys(frame["target"]))[:rows]
    frame = filled(
        frame[frame["target"].isin(kept)], f"no cell of the estimator {estimator!r} in this ledger"
    )
    peak = frame.groupby("target")["mean"].transform(lambda v: v.abs().max() or 1.0)
    tokens = [
        f"{position}  {plain_text(visible(token), 24)}"
        for position, token in zip(frame["position"], frame["token"])
    ]
    frame = frame.assign(
        share=frame["mean"] / peak, shown=[f"{v:+.2g}".replace("-", "−") for v in frame["mean"]], token=tokens
    )
    order = list(dict.fromkeys(frame.sort_values("position")["token"]))
    base = alt.Chart(frame[["token", "target", "mean", "low", "high", "share", "shown"]]).encode(
        x=alt.X("token:N", sort=order, title=None, axis=alt.Axis(labelAngle=-45, orient="top")),
        y=alt.Y("target:N", sort=kept, title=None),
    )
    scale = alt.Scale(domain=[-1, 0, 1], range=list(DIVERGING), interpolate="rgb")
    cells = base.mark_rect().encode(
        color=alt.Color("share:Q", scale=scale, title="fraction of the row's largest"),
        tooltip=["token", "target", "mean", "low", "high"],
    )
    texts = base.mark_text(fontSize=10).encode(
        text="shown:N", color=alt.condition("abs(datum.share) > 0.75", alt.value("white"), alt.value("black"))
    )
    return alt.layer(cells, texts).properties(width=max(160, 52 * len(order)), height=22 * len(kept))
