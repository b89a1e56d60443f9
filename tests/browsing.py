"""A real browser, and a list of everything that must not happen in a page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
AXE = Path(__file__).parents[1] / "node_modules/axe-core/axe.min.js"
needs_axe = pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed: npm install --no-save axe-core")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


@contextmanager
def open_browser(profile: Path, offline: bool = True) -> Iterator:
    """A browser whose network is cut off, unless the page comes from a server of the test's own."""
    with sync_api.sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(profile), executable_path=CHROMIUM, args=FLAGS.split(), headless=True, offline=offline
        )
        yield context
        context.close()


def trouble_of(page, warnings: bool = True) -> list[str]:
    """Filled while the page lives: errors (and warnings) that it writes to the console, errors that nothing caught, dialogs."""
    trouble: list[str] = []
    counted = ("error", "warning") if warnings else ("error",)
    page.on("console", lambda message: trouble.append(message.text) if message.type in counted else None)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("dialog", lambda dialog: (trouble.append("a dialog opened"), dialog.dismiss()))
    return trouble


def axe_violations(page) -> list[str]:
    """What axe-core finds wrong with the page, shadow roots included; the page's own policy does not stop it."""
    page.evaluate(AXE.read_text())
    return page.evaluate("axe.run().then((r) => r.violations.map((v) => v.id + ': ' + v.nodes[0].html.slice(0, 120)))")
