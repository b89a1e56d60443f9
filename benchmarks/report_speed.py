"""First paint and interaction of the report's linked view, 40 tokens x 200 latents over 30 contexts, in headless Chromium.

    python -m benchmarks.report_speed --out benchmarks/latest/report_speed.json

First paint: navigation to the frame after the whole matrix (all rows) is drawn. Hover: from a pointer event on a cell to the layout
that follows it, over 40 cells.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from playwright.sync_api import sync_playwright

from workbench.report import write_report

TOKENS, LATENTS, CONTEXTS = 40, 200, 30
PAINT = "() => new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(performance.now()))))"
HOVER = """() => Array.from({ length: 40 }, (_, i) => { const t = performance.now();
  const cell = document.querySelector(`#matrix td[data-r="${5 * i}"][data-c="${i}"]`);
  cell.dispatchEvent(new PointerEvent("pointerover", { bubbles: true })); document.body.offsetHeight; return performance.now() - t; })"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/latest/report_speed.json"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        path = write_report(run(Path(place) / "run"))
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.set_default_timeout(300_000)
        page.goto(path.as_uri() + "#rows=all")
        page.wait_for_selector(f"#matrix tbody tr:nth-child({LATENTS + 2})", state="attached")
        paint, hover = page.evaluate(PAINT), page.evaluate(HOVER)
        found = {"cells": page.locator("#matrix td").count(), "page_bytes": path.stat().st_size, "first_paint_ms": round(paint)}
        browser.close()
    found |= {"hover_ms_median": round(float(np.median(hover)), 1), "hover_ms_p95": round(float(np.percentile(hover, 95)), 1)}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


def run(directory: Path) -> Path:
    """A run directory with an attribution of this size."""
    directory.mkdir()
    rng, names = np.random.default_rng(0), ["answer log-odds", "direction", *(f"latent {i}" for i in range(LATENTS))]
    effects = rng.normal(size=(2, TOKENS, len(names)))
    cells = [
        {"position": i, "token": f"word{i}", "target": name, "estimator": estimator, "mean": v, "sd": 0.3, "low": v - 0.5, "high": v + 0.5}
        for estimator, values in zip(("removal", "gradient_x_input"), effects)
        for i, row in enumerate(values.tolist())
        for name, v in zip(names, row)
    ]
    pd.DataFrame(cells).to_parquet(directory / "attribution.parquet")
    (directory / "attribution.json").write_text(json.dumps({"schema": 1, "n_contexts": CONTEXTS, "tokens": [f"word{i}" for i in range(TOKENS)]}))
    return directory


if __name__ == "__main__":
    main()
