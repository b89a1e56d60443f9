"""The pictures of README and docs, from a finished run: `python -m benchmarks.images --run runs/demo` (needs Chromium).

1. report.png: the first screen of the run's report.
2. effects.png: the change in log-odds of each condition (`wb.figures.forest`).
3. panel.png and panel.gif: the live panel, reading the prompt that the search found, whole and word by word.
4. ../gallery/demo_report.html: the report itself.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

import workbench as wb
from workbench.runs import read_json

OUT = Path("docs/images")
_MOUNT = """async ([code, state]) => {
  const module = await import(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  const model = { get: (key) => state[key], set: (key, value) => { state[key] = value; }, save_changes: () => {},
                  on: () => {}, off: () => {}, send: () => {} };
  module.default.render({ model, el: document.getElementById("cell") });
}"""


@contextmanager
def browser_page(width: int, height: int) -> Iterator[Any]:
    """A page of a headless browser without a network, at twice the pixel density."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as profile, sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=program,
            args=["--no-sandbox"],
            offline=True,
            device_scale_factor=2,
            viewport={"width": width, "height": height},
        )
        yield context.new_page()
        context.close()


def report_picture(run: Path) -> None:
    with browser_page(1200, 820) as page:
        page.goto((run / "report.html").resolve().as_uri())
        page.screenshot(path=OUT / "report.png")


def effects_picture(run: Path) -> None:
    chart = wb.figures.forest(read_json(run / "comparison.json", schema=1))
    chart.save(str(OUT / "effects.png"), ppi=120)


def panel_pictures(prompt: str) -> None:
    from workbench.panel import Panel

    model, persona = wb.load_model("organism"), wb.load_persona("sycophancy")
    data = persona.split(seed=0)
    scan = wb.find_directions(model, data.train, data.search)
    panel = Panel(model, persona, direction=scan.best, contexts=wb.make_contexts(model, data.search, n=12))
    words = prompt.split()
    frames = [
        _panel_frame(panel, " ".join(words[: n + 1]), OUT / "panel.png", exact=n + 1 == len(words))
        for n in range(len(words))
    ]
    small = [
        frame.resize((frame.width // 2, frame.height // 2)).convert(
            "P", palette=Image.Palette.ADAPTIVE, colors=64
        )
        for frame in frames
    ]
    durations = [700] * (len(small) - 1) + [3000]
    small[0].save(
        OUT / "panel.gif", save_all=True, append_images=small[1:], duration=durations, loop=0, optimize=True
    )


def _panel_frame(panel: Any, text: str, path: Path, exact: bool) -> Image.Image:
    panel.read(text, exact=exact)
    state = {key: getattr(panel, key) for key in ("about", "comparing", "readings", "difference", "progress")}
    with browser_page(1000, 560) as page:
        page.set_content(
            '<!doctype html><meta charset="utf-8"><body style="margin:12px;background:#fff"><div id="cell"></div>'
        )
        page.evaluate(_MOUNT, [str(panel._esm), state])
        page.locator("textarea").first.wait_for()
        page.screenshot(path=path)
    with Image.open(path) as picture:
        return picture.convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=["report", "effects", "panel"])
    given = parser.parse_args()
    found = {
        entry["kind"]: entry["prompt"]
        for entry in read_json(given.run / "comparison.json", schema=1)["conditions"]
        if entry["prompt"]
    }
    OUT.mkdir(parents=True, exist_ok=True)
    if "report" in given.only:
        report_picture(given.run)
        Path("docs/gallery").mkdir(exist_ok=True)
        shutil.copyfile(given.run / "report.html", "docs/gallery/demo_report.html")
    if "effects" in given.only:
        effects_picture(given.run)
    if "panel" in given.only:
        panel_pictures(found["resga"])


if __name__ == "__main__":
    main()
