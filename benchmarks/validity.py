"""Does the comparison keep its promises? Simulated clustered answers, where the truth is known; no model is run.

1. Answers are drawn as the workbench meets them: question groups of equal, unequal or very unequal size,
   log-odds with a group's and an item's offset, both option orders with a leaning to one letter, a condition
   that moves groups unequally.
2. Coverage: how often the 95 % intervals of log-odds, rates and differences hold the truth (wanted: 93-97 %),
   next to two intervals that are commonly reported: items taken as independent, and the percentile bootstrap
   of clusters.
3. A/A: two conditions that do not differ; fraction of p < 0.05 (wanted: 5 % or less), next to a paired t test
   over single answers.
4. Power: a true effect of the size that `minimum_detectable_effect_from_spread` names is found in four of
   five comparisons.
5. Selection: the best of 20 prompts that do nothing, chosen and reported on the test split, and chosen on
   selection.

    python -m benchmarks.validity --runs 1000      # about 7 minutes of one core; the default of 300 runs
    takes 2
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from workbench.statistics import (
    cluster_interval,
    minimum_detectable_effect_from_spread,
    paired_difference,
    paired_rate_difference,
    rate_interval,
    sign_flip_p,
)

GROUPS = (8, 12, 48)
SIZES = ("equal", "unequal", "heavy")
#: Mean log-odds before and the effect of the condition: the rates that this gives are the names.
EFFECTS = {"0.62 unmoved": (0.5, 0.0), "0.95 to 0.81": (2.6, -1.0), "0.95 to 0.08": (2.6, -5.0)}


@dataclass(frozen=True)
class Answers:
    """Log-odds before and after, one a context, and their groups."""

    before: np.ndarray
    after: np.ndarray
    groups: np.ndarray


def group_sizes(n_groups: int, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Items of each group: 4; 1 to 11; or lognormal, where one group may hold a third of all."""
    if kind == "equal":
        return np.full(n_groups, 4)
    if kind == "unequal":
        return rng.integers(1, 12, n_groups)
    return np.maximum(1, np.round(rng.lognormal(1.2, 0.9, n_groups)).astype(int))


def draw(sizes: np.ndarray, base: float, shift: float, rng: np.random.Generator) -> Answers:
    """Both orders of every item; a correlation within groups of about 0.4, the effect varies between groups (SD 0.5)."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    offset = rng.normal(0, 1.0, len(sizes))[group] + rng.normal(0, 1.2, len(group))
    change = shift + rng.normal(0, 0.5, len(sizes))[group] + rng.normal(0, 0.5, len(group))
    before = [base + offset + letter + rng.normal(0, 0.3, len(group)) for letter in (0.3, -0.3)]
    after = [base + offset + change + letter + rng.normal(0, 0.3, len(group)) for letter in (0.4, -0.4)]
    return Answers(np.concatenate(before), np.concatenate(after), np.tile(group, 2))


def coverage(runs: int, seed: int) -> list[dict[str, object]]:
    """Fraction of intervals that hold the truth, for every design and quantity."""
    rows = []
    for name, (base, shift) in EFFECTS.items():
        big = draw(np.full(200_000, 1), base, shift, np.random.default_rng(seed))
        truth = truths(big, base, shift)
        for kind in SIZES:
            for n_groups in GROUPS:
                rng, hits = np.random.default_rng([seed, n_groups]), Counter()
                for _ in range(runs):
                    sample = draw(group_sizes(n_groups, kind, rng), base, shift, rng)
                    for quantity, (low, high, of) in intervals(sample, rng).items():
                        hits[quantity] += low <= truth[of] <= high
                rows.append(
                    {"effect": name, "sizes": kind, "groups": n_groups} | {q: hits[q] / runs for q in hits}
                )
    return rows


def truths(big: Answers, base: float, shift: float) -> dict[str, float]:
    """What the intervals should hold: exact for log-odds, from 400,000 answers for rates."""
    before, after = (big.before > 0).mean(), (big.after > 0).mean()
    return {
        "log_odds": base,
        "shift": shift,
        "rate": before,
        "rate_after": after,
        "difference": after - before,
    }


def intervals(sample: Answers, rng: np.random.Generator) -> dict[str, tuple[float, float, str]]:
    """Each reported interval with the name of its truth; those in brackets are what others do."""
    hits, hits_after, groups = sample.before > 0, sample.after > 0, sample.groups
    found = {
        "log_odds": (cluster_interval(sample.before, groups), "log_odds"),
        "shift": (cluster_interval(sample.after - sample.before, groups), "shift"),
        "rate": (rate_interval(hits, groups), "rate"),
        "rate_after": (rate_interval(hits_after, groups), "rate_after"),
        "rate_difference": (paired_rate_difference(hits_after, hits, groups).interval, "difference"),
        "(rate, t interval)": (cluster_interval(hits, groups), "rate"),
        "(difference, t interval)": (cluster_interval(hits_after.astype(float) - hits, groups), "difference"),
    }
    ends = {name: (interval.low, interval.high, of) for name, (interval, of) in found.items()}
    half = stats.t.ppf(0.975, len(groups) - 1) * stats.sem(sample.before)
    alone = (sample.before.mean() - half, sample.before.mean() + half, "log_odds")
    resampled = (*bootstrap(sample.before, groups, rng), "log_odds")
    return ends | {"(log_odds, items independent)": alone, "(log_odds, percentile bootstrap)": resampled}


def bootstrap(
    values: np.ndarray, groups: np.ndarray, rng: np.random.Generator, n: int = 400
) -> tuple[float, float]:
    """Percentile bootstrap of whole clusters."""
    sums, counts = np.bincount(groups, values), np.bincount(groups)
    drawn = rng.integers(0, len(sums), (n, len(sums)))
    low, high = np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), [0.025, 0.975])
    return float(low), float(high)


def a_against_a(runs: int, seed: int) -> list[dict[str, object]]:
    """Fraction of p < 0.05 where nothing differs but noise that groups share."""
    rows = []
    for kind in SIZES:
        for n_groups in GROUPS:
            rng, below = np.random.default_rng([seed, 1, n_groups]), Counter()
            for _ in range(runs):
                sample = draw(group_sizes(n_groups, kind, rng), 0.5, 0.0, rng)
                below["log_odds"] += paired_difference(sample.after, sample.before, sample.groups).p < 0.05
                below["rate"] += (
                    sign_flip_p((sample.after > 0) * 1.0 - (sample.before > 0), sample.groups) < 0.05
                )
                below["(t test, items independent)"] += (
                    stats.ttest_rel(sample.after, sample.before).pvalue < 0.05
                )
            rows.append(
                {"sizes": kind, "groups": n_groups} | {name: count / runs for name, count in below.items()}
            )
    return rows


def power(runs: int, seed: int) -> list[dict[str, object]]:
    """How often an effect of the named size is found (p < 0.05), by number of groups of 4 items."""
    spread = np.sqrt(0.5**2 + 0.5**2 / 4 + 2 * 0.3**2 / 8)  # of a group's mean change, as `draw` makes it
    rows = []
    for n_groups in GROUPS:
        size, rng = (
            minimum_detectable_effect_from_spread(spread, n_groups),
            np.random.default_rng([seed, 2, n_groups]),
        )
        samples = [draw(np.full(n_groups, 4), 0.5, size, rng) for _ in range(runs)]
        found = sum(sign_flip_p(s.after - s.before, s.groups) < 0.05 for s in samples)
        rows.append({"groups": n_groups, "size": size, "found": found / runs})
    return rows


def selection(runs: int, seed: int, prompts: int = 20, n_groups: int = 12) -> dict[str, float]:
    """Mean reported effect of the lowest of 20 prompts that do nothing, by where it was chosen."""
    rng, sizes = np.random.default_rng([seed, 3]), np.full(n_groups, 4)

    def shift():
        return np.array(
            [(s.after - s.before).mean() for s in (draw(sizes, 0.5, 0.0, rng) for _ in range(prompts))]
        )

    on_test, on_selection = [], []
    for _ in range(runs):
        test, chosen_by = shift(), shift()
        on_test.append(test.min())
        on_selection.append(test[chosen_by.argmin()])
    return {
        "chosen on test": float(np.mean(on_test)),
        "chosen on selection": float(np.mean(on_selection)),
        "truth": 0.0,
    }


def markdown(rows: list[dict[str, object]]) -> str:
    """Rows as a Markdown table; fractions in per cent, the effect in nats."""

    def cell(name: str, value: object) -> str:
        if not isinstance(value, float):
            return str(value)
        return f"{value:.2f}" if name == "size" else f"{100 * value:.1f}"

    head = list(rows[0])
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(
        lines + ["| " + " | ".join(cell(name, row[name]) for name in head) + " |" for row in rows]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "latest" / "validity.json")
    arguments = parser.parse_args()
    began, (runs, seed) = time.perf_counter(), (arguments.runs, arguments.seed)
    result = {
        "benchmark": "validity",
        "runs": runs,
        "seed": seed,
        "coverage": coverage(runs, seed),
        "a_against_a": a_against_a(runs, seed),
        "power": power(runs, seed),
        "selection": selection(runs, seed),
    }
    result["seconds"] = round(time.perf_counter() - began, 1)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    for name in ("coverage", "a_against_a", "power"):
        print(f"\n{name}\n\n{markdown(result[name])}")
    print(f"\nselection: {result['selection']}\n{result['seconds']} s")


if __name__ == "__main__":
    main()
