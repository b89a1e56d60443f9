"""Convert measured effects of a prompt (a reading) to JSON for the panel and HTML for a notebook.

In both, invisible characters are made visible; the HTML is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from workbench.attribution.ledger_html import matrix_html
from workbench.html_text import escape, shorten, visible
from workbench.panel.prompt_reader import PromptReading
from workbench.report.ledger_grid import NAMES
from workbench.statistics import cluster_interval


def reading_json(reading: PromptReading, labels: Mapping[str, str]) -> dict[str, Any]:
    """Convert the measured effects of a prompt to the JSON that the notebook panel shows.

    The targets are the quantities whose change is measured: directions, latents, the answer. For each method
    of estimation, the JSON has the effect of each token on each target as [mean, low, high, standard
    deviation], in rows [target][token]. It also has the effect of the whole prompt on each target, and the
    probability of the answer that shows the persona with and without the prompt. The interval's ends (low,
    high) are null if the effects were measured on a few questions only.

    Args:
        reading: The measured effects.
        labels: Names that a user gave to targets, such as latents, by the target's name.
    """
    targets = [
        {"name": shown_text(t.name), "kind": t.kind, "label": shown_text(labels.get(t.name, ""))}
        for t in reading.targets.items
    ]
    return {
        "tokens": [shorten(visible(token), 120) for token in reading.tokens],
        "targets": targets,
        "estimators": [{"key": name, "name": NAMES[name]} for name in reading.estimates],
        "cells": {name: _grid(reading, estimate.values) for name, estimate in reading.estimates.items()},
        "rank_correlation": _agreement(reading),
        "totals": _whole(reading, [target["name"] for target in targets]),
        "answer": {
            side: _probability(reading, row)
            for side, row in zip(("with", "without"), reading.probabilities, strict=True)
        },
        "exact": reading.exact,
        "n": len(reading.groups),
        "groups": len(set(reading.groups)),
        "ms": round(1000 * reading.seconds, 1),
    }


def difference_json(a: PromptReading, b: PromptReading) -> list[dict[str, Any]]:
    """Return how much more prompt B changes each target than prompt A, on the same questions.

    Targets are directions, SAE latents and the answer.

    The list is empty if one prompt was measured on all questions and the other only on a few.

    Args:
        a: Measured effects of prompt A.
        b: Measured effects of prompt B.
    """
    if a.exact != b.exact:
        return []
    return _means(b.with_prompt - a.with_prompt, b)


def kept_html(readings: Sequence[PromptReading | None], about: str) -> str:
    """Return a panel's last measured effects as static HTML, for a notebook whose kernel does not run.

    Args:
        readings: The last measured effects of each of the panel's prompts; None for a prompt without any.
        about: Description of the panel.
    """
    parts = [_kept(reading) for reading in readings if reading is not None]
    body = "".join(parts) or '<p class="wb-note">No prompt was read yet.</p>'
    return f'<div><p class="wb-note">{escape(about)} Last reading, kept in the notebook; run the cell for the live panel.</p>{body}</div>'


def how(reading: PromptReading) -> str:
    """Describe in words how a prompt's effects were measured: methods, number of questions, intervals."""
    names = " and ".join(NAMES[name] for name in reading.estimates)
    n, groups = len(reading.groups), len(set(reading.groups))
    return f"Measured by {names} on " + (
        f"all {n} contexts in {groups} groups." if reading.exact else f"{n} contexts; no intervals."
    )


def shown_text(text: str) -> str:
    """Return a name or label for display: invisible characters made visible, at most 120 characters."""
    return shorten(visible(text, spaces=False), 120)


def _kept(reading: PromptReading) -> str:
    with_prompt, without = reading.probabilities.mean(axis=1)
    estimate = next(iter(reading.estimates.values()))
    lines = [
        f"Probability of the answer that shows the persona: {100 * with_prompt:.0f} % with the prompt, {100 * without:.0f} % without.",
        how(reading),
    ]
    names = [target.name for target in reading.targets.items]
    return matrix_html(
        reading.tokens, names, estimate.values.mean(axis=0), f"Prompt: {shorten(reading.text, 300)}", lines
    )


def _grid(reading: PromptReading, values: np.ndarray) -> list[list[list[float | None]]]:
    """Return [mean, low, high, sd] for each target and token, from values [context prompt_pos target]."""
    sd = values.std(axis=0, ddof=1) if len(values) > 1 else np.full(values.shape[1:], np.nan)
    _, n_tokens, n_targets = values.shape
    return [
        [[_plain(v) for v in (*_mean(reading, values[:, i, t]), sd[i, t])] for i in range(n_tokens)]
        for t in range(n_targets)
    ]


def _mean(reading: PromptReading, values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean over contexts, and in an exact reading the ends of its interval (else nan)."""
    if not reading.exact:
        return float(np.add.reduce(values)) / len(values), float("nan"), float("nan")
    interval = cluster_interval(values, reading.groups)
    return interval.estimate, interval.low, interval.high


def _means(values: np.ndarray, reading: PromptReading) -> list[dict[str, Any]]:
    """Return mean, low and high for each target, from values [context target]."""
    return [
        dict(zip(("mean", "low", "high"), map(_plain, _mean(reading, column)), strict=True))
        for column in values.T
    ]


def _whole(reading: PromptReading, names: Sequence[str]) -> list[dict[str, Any]]:
    changes = _means(reading.with_prompt - reading.without_prompt, reading)
    ends = zip(reading.without_prompt.mean(axis=0), reading.with_prompt.mean(axis=0), strict=True)
    return [
        {"target": n, "without": _plain(a), "with": _plain(b), **change}
        for n, (a, b), change in zip(names, ends, changes, strict=True)
    ]


def _probability(reading: PromptReading, row: np.ndarray) -> dict[str, float | None]:
    mean, low, high = _mean(reading, row)
    return {
        "p": _plain(mean),
        "low": _plain(max(low, 0.0)),
        "high": _plain(min(high, 1.0)),
        "rate": _plain(float((row > 0.5).mean())),
    }


def _agreement(reading: PromptReading) -> dict[str, dict[str, float | None]]:
    """Return the rank correlation of each estimate with exact removal, if both were run."""
    if "removal" not in reading.estimates or len(reading.estimates) == 1:
        return {}
    found: dict[str, dict[str, float | None]] = {}
    for row in reading.ledger.agreement.to_dict("records"):
        found.setdefault(str(row["estimator"]), {})[shown_text(str(row["target"]))] = _plain(
            float(row["rank_correlation"])
        )
    return found


def _plain(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None
