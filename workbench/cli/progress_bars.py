"""Progress bars of a study on standard error."""

from __future__ import annotations

from typing import Any

from rich.console import Console


class ProgressBars:
    """One progress bar per stage of a study, on standard error; plain lines if that is no terminal.

    Nothing is printed before the first stage begins, so that an error before it is a single line. If standard error
    is no terminal, nothing is printed before the first stage has made progress either: a study whose model or
    persona cannot be loaded ends with one line.
    """

    def __enter__(self) -> ProgressBars:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.table import Column

        # in a narrow terminal only the note is cut: bar, percentage and time keep their width
        stage = TextColumn(
            "{task.description}",
            table_column=Column(no_wrap=True, min_width=26, max_width=26, overflow="ellipsis"),
        )
        share = TextColumn("{task.percentage:>3.0f} %", table_column=Column(no_wrap=True, min_width=5))
        note = TextColumn(
            "{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
        )
        bar = BarColumn(bar_width=14, table_column=Column(min_width=14))
        elapsed = TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7))
        self._progress = Progress(stage, bar, share, elapsed, note, console=Console(stderr=True), expand=True)
        self._tasks: dict[str, Any] = {}
        return self

    def update(self, stage: str, share: float) -> None:
        """Show how much of a stage is done.

        Args:
            stage: Name of the stage.
            share: Fraction that is done, 0 to 1.
        """
        if not self._tasks:
            if share == 0.0 and not self._progress.console.is_terminal:
                return
            self._progress.start()
        if stage not in self._tasks:
            from workbench.conditions import stage_label

            self._tasks[stage] = self._progress.add_task(stage_label(stage), total=1.0, note="")
        self._progress.update(self._tasks[stage], completed=share)

    def note(self, stage: str, progress: Any) -> None:
        """Show a search's state next to its stage's bar: best objective, its fluency, speed and time left."""
        from workbench.search.live_frontier import line

        if stage in self._tasks:
            self._progress.update(self._tasks[stage], note=line(progress))

    def __exit__(self, *exc: object) -> None:
        if self._tasks:
            self._progress.stop()
