"""A real browser, and a list of everything that must not happen in a page."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.paths import ROOT

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
#: Where `make test` installs it.
AXE = ROOT / ".cache/npm/node_modules/axe-core/axe.min.js"
needs_axe = pytest.mark.skipif(
    not AXE.exists(), reason="axe-core is not installed: `make test` installs it with npm"
)
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
    return page.evaluate(
        "axe.run().then((r) => r.violations.map((v) => v.id + ': ' + v.nodes[0].html.slice(0, 120)))"
    )


def wait_until(page, expression: str, seconds: float = 60.0) -> None:
    """Waits for a JavaScript expression to hold, asked again from here.

    Playwright's own `wait_for_function` evaluates its text inside the page at the second try, which the
    policy of a report forbids: such a wait ended with an EvalError on a machine that was too busy to draw at
    once.
    """
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {expression}"
        page.wait_for_timeout(100)


class Tab:
    """One page with everything that must not happen noted down."""

    def __init__(self, page) -> None:
        self.page, self.trouble = page, trouble_of(page)
        page.on(
            "request",
            lambda request: (
                self.trouble.append(request.url)
                if not request.url.startswith(("file:", "blob:", "data:"))
                else None
            ),
        )

    def open(self, path: Path, fragment: str = "", width: int = 1280, scheme: str = "light") -> Tab:
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.emulate_media(
            color_scheme=scheme, reduced_motion="reduce"
        )  # a smooth scroll has no end to wait for
        self.page.goto("about:blank")
        self.page.goto(path.as_uri() + fragment)
        wait_until(
            self.page,
            "!document.querySelector('#scatter') || document.querySelector('#scatter svg') !== null",
        )
        return self

    @property
    def fragment(self) -> str:
        return self.page.evaluate("decodeURIComponent(location.hash)")
