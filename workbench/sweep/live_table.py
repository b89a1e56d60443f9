"""The live table of a sweep: counts, the running studies with their stages, and the failures.

It is shown with rich on a terminal, as one output that is updated in a notebook, and elsewhere as one line
for each study that ends. There is no row per study, because a sweep may have thousands.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from workbench.conditions import stage_label
from workbench.html_text import html_table, shorten, visible
from workbench.sweep.sweep_store import StudyOutcome

EVERY = 0.5
MAX_FAILED = 8


class LiveTable:
    """Context manager that shows the progress of a sweep (a set of studies) while its studies run.

    `labels` has the displayed name of each study, by the hash of its settings (key). `already` has the
    results of studies that were finished before.
    """

    def __init__(self, labels: Mapping[str, str], already: Sequence[StudyOutcome]) -> None:
        self._labels = labels
        self._ended = {outcome.key: outcome for outcome in already}
        self._running: dict[str, tuple[str, float]] = {}
        self._begun, self._fresh, self._last = time.monotonic(), 0, 0.0
        self._notebook, self._live = _notebook(), None
        self._console = Console(stderr=True)

    def __enter__(self) -> LiveTable:
        if self._notebook:
            self._notebook = self._notebook(self._html(), display_id=True)
        elif self._console.is_terminal:
            self._live = Live(self._rich(), console=self._console, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._draw(force=True)
        if self._live:
            self._live.stop()

    def stage(self, key: str, stage: str, share: float) -> None:
        """Record which stage of a running study is computed, and show it.

        Args:
            key: Key of the study, a hash of its settings.
            stage: Name of the stage.
            share: Fraction of the stage that is done, 0 to 1.
        """
        if key not in self._ended:
            self._running[key] = (stage, share)
            self._draw()

    def ended(self, outcome: StudyOutcome) -> None:
        """Record that a study ended, and show it: done, failed, or busy because another process runs it."""
        self._running.pop(outcome.key, None)
        self._ended[outcome.key] = outcome
        self._fresh += 1
        if not self._live and not self._notebook:
            print(
                f"{self.headline()}: {self._name(outcome.key)} {outcome.state} {outcome.reason}".rstrip(),
                file=sys.stderr,
                flush=True,
            )
        self._draw(force=True)

    def headline(self) -> str:
        """Return the number of studies by state, and an estimate of the remaining time."""
        counts = Counter(outcome.state for outcome in self._ended.values())
        total = len(self._labels)
        parts = [
            f"{counts['done']} of {total} done",
            *(f"{n} {state}" for state, n in counts.items() if state != "done"),
        ]
        left = total - len(self._ended)
        if self._fresh and left:
            minutes = left * (time.monotonic() - self._begun) / self._fresh / 60
            parts.append(f"about {minutes:.0f} min left" if minutes >= 1 else "less than a minute left")
        return ", ".join(parts)

    def frame(self) -> pd.DataFrame:
        """Return the table that is shown: the running studies with their stages, then the failed ones."""
        rows = [
            (self._name(key), stage_label(stage), f"{100 * share:.0f} %")
            for key, (stage, share) in self._running.items()
        ]
        failed = [outcome for outcome in self._ended.values() if outcome.state == "failed"]
        rows += [(self._name(o.key), "failed", shorten(o.reason, 160)) for o in failed[:MAX_FAILED]]
        rows += [(f"{len(failed) - MAX_FAILED} more", "failed", "")] if len(failed) > MAX_FAILED else []
        return pd.DataFrame(rows, columns=["study", "stage", "how far"])

    def _name(self, key: str) -> str:
        return shorten(visible(self._labels[key], spaces=False), 100)

    def _draw(self, force: bool = False) -> None:
        if not force and time.monotonic() - self._last < EVERY:
            return
        self._last = time.monotonic()
        if self._live:
            self._live.update(self._rich())
        elif self._notebook:
            self._notebook.update(self._html())

    def _rich(self) -> Table:
        table = Table("study", "stage", "how far", title=self.headline(), title_justify="left")
        for row in self.frame().itertuples(index=False):
            table.add_row(*(escape(visible(cell, spaces=False)) for cell in row))
        return table

    def _html(self) -> Any:
        from IPython.display import HTML

        return HTML(html_table(self.frame(), self.headline()))


def _notebook() -> Any:
    """Return IPython's `display` inside a notebook kernel; None elsewhere, without importing IPython."""
    if "IPython" not in sys.modules:
        return None
    from IPython.core.getipython import get_ipython
    from IPython.display import display

    shell = get_ipython()
    return display if shell is not None and hasattr(shell, "kernel") else None
