"""First paint and interaction of the report, 40 tokens x 200 latents x 100 questions under 12 conditions, in headless Chromium.

    python -m benchmarks.report_speed --repeats 7 --out benchmarks/latest/report_speed.json

Each repeat opens the page in a new tab; a figure is the median, with its smallest and largest value.

First paint: navigation to the frame after the whole matrix (all rows) is drawn. First interaction: navigation
until a press on a cell has been answered in the page. Hover: from a pointer event on a cell to the layout
that follows it, over 40 cells. Question: from a press on a row to its card. task_ms: processor time of the
page's main thread until the first interaction was answered (Chromium's TaskDuration), which is what an idle
core needs; the wall clock holds what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from playwright.sync_api import sync_playwright

from workbench.report import write_report

TOKENS, LATENTS, CONTEXTS, QUESTIONS, CONDITIONS = 40, 200, 30, 100, 12
PAINT = "() => new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(performance.now()))))"
HOVER = """() => Array.from({ length: 40 }, (_, i) => { const t = performance.now();
  const cell = document.querySelector(`#matrix td[data-r="${5 * i}"][data-c="${i}"]`);
  cell.dispatchEvent(new PointerEvent("pointerover", { bubbles: true })); document.body.offsetHeight; return performance.now() - t; })"""
#: Answered: the cell is kept, and its reading is told.
PRESS = """() => { document.querySelector('#matrix td[data-r="150"][data-c="30"]').click(); document.body.offsetHeight;
  return document.querySelectorAll('#matrix td[aria-selected=true]').length === 1 ? performance.now() : -1; }"""
QUESTION = """() => { const t = performance.now();
  document.querySelectorAll('#questions .opens')[20].click(); document.body.offsetHeight;
  return document.querySelectorAll('#questions .card.question').length === 1 ? performance.now() - t : -1; }"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/latest/report_speed.json"))
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        path = write_report(run(Path(place) / "run"))
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        repeats = [measure(browser, path) for _ in range(given.repeats)]
        found = {
            "cells": repeats[0].pop("cells"),
            "page_bytes": path.stat().st_size,
            "repeats": given.repeats,
        }
        browser.close()
    for name in (
        "first_paint_ms",
        "first_interaction_ms",
        "task_ms",
        "question_ms",
        "hover_ms_median",
        "hover_ms_p95",
    ):
        values = [repeat[name] for repeat in repeats]
        found |= {
            name: round(float(np.median(values)), 1),
            f"{name}_range": [round(min(values), 1), round(max(values), 1)],
        }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


def measure(browser: Any, path: Path) -> dict[str, float]:
    """One opening of the page, in milliseconds."""
    page = browser.new_page()
    page.set_default_timeout(300_000)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(path.as_uri() + "#rows=all")
    page.wait_for_selector(f"#matrix tbody tr:nth-child({LATENTS + 2})", state="attached", timeout=300_000)
    answered = page.evaluate(PRESS)
    spent = {entry["name"]: entry["value"] for entry in session.send("Performance.getMetrics")["metrics"]}
    paint, hover = page.evaluate(PAINT), page.evaluate(HOVER)
    page.evaluate("document.querySelector('#every-question').open = true")
    page.wait_for_selector("#questions .opens", state="attached")
    found = {
        "first_paint_ms": paint,
        "first_interaction_ms": answered,
        "task_ms": 1000 * spent["TaskDuration"],
    }
    found |= {"question_ms": page.evaluate(QUESTION), "cells": page.locator("#matrix td").count()}
    page.close()
    return found | {
        "hover_ms_median": float(np.median(hover)),
        "hover_ms_p95": float(np.percentile(hover, 95)),
    }


def run(directory: Path) -> Path:
    """A run directory with an attribution of this size."""
    directory.mkdir()
    rng, names = (
        np.random.default_rng(0),
        ["answer log-odds", "direction", *(f"latent {i}" for i in range(LATENTS))],
    )
    effects = rng.normal(size=(2, TOKENS, len(names)))
    cells = [
        {
            "position": i,
            "token": f"word{i}",
            "target": name,
            "estimator": estimator,
            "mean": v,
            "sd": 0.3,
            "low": v - 0.5,
            "high": v + 0.5,
        }
        for estimator, values in zip(("removal", "gradient_x_input"), effects)
        for i, row in enumerate(values.tolist())
        for name, v in zip(names, row)
    ]
    pd.DataFrame(cells).to_parquet(directory / "attribution.parquet")
    (directory / "attribution.json").write_text(
        json.dumps({"schema": 1, "n_contexts": CONTEXTS, "tokens": [f"word{i}" for i in range(TOKENS)]})
    )
    _comparison(directory, rng)
    return directory


def _comparison(directory: Path, rng: np.random.Generator) -> None:
    """A comparison of CONDITIONS conditions on QUESTIONS questions, with their texts."""
    names = ["no prompt", "resga", *(f"random text {i}" for i in range(CONDITIONS - 2))]
    kinds = ["none", "resga", *["random_text"] * (CONDITIONS - 2)]
    items = [f"item {i}" for i in range(QUESTIONS)]
    odds = rng.normal(size=(CONDITIONS, QUESTIONS)) - np.eye(CONDITIONS)[1][:, None] * 2
    rows = [
        {
            "condition": name,
            "kind": kind,
            "item": item,
            "group": item,
            "matching_first": True,
            "log_odds": value,
        }
        for name, kind, values in zip(names, kinds, odds.tolist())
        for item, value in zip(items, values)
    ]
    pd.DataFrame(rows).to_parquet(directory / "evaluation.parquet")
    texts = [
        {
            "measure": "",
            "item": i,
            "group": i,
            "question": f"Is {i} right? " * 8,
            "matching": "Yes.",
            "not_matching": "No.",
        }
        for i in items
    ]
    pd.DataFrame(texts).to_parquet(directory / "questions.parquet")
    shifts = odds.mean(axis=1) - odds[0].mean()
    conditions = [
        {
            "name": name,
            "kind": kind,
            "method": "",
            "prompt": f"prompt {name}",
            "rate": 0.5,
            "ci": [0.4, 0.6],
            "n": QUESTIONS,
            "groups": QUESTIONS,
            "selection_rate": 0.5,
            "differences": [
                {
                    "to": "no prompt",
                    "value": 0.0,
                    "ci": [-0.1, 0.1],
                    "p": 0.5,
                    "p_adjusted": 0.5,
                    "log_odds": float(shift),
                    "log_odds_ci": [float(shift) - 0.3, float(shift) + 0.3],
                }
            ],
        }
        for name, kind, shift in zip(names, kinds, shifts)
    ]
    entry = {
        "schema": 1,
        "persona": "sycophancy",
        "model": "model",
        "sign": "suppress",
        "metric": "text",
        "seed": 0,
        "splits": {},
        "conditions": conditions,
    }
    (directory / "comparison.json").write_text(json.dumps(entry))


if __name__ == "__main__":
    main()
