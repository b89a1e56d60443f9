"""Overview page of several runs: a forest plot for each persona and sign, with a link to each run's report.

1. Each run's comparison is read as the report reads it. A run that cannot be read is listed and does not stop
   the page.
2. Runs that differ only in the seed (same model, persona, sign, metric and test questions) are one line of
   the plot: the mean effect over seeds with a t interval over runs, because the result of a prompt search is
   random. A line of one run has the run's own clustered interval. Runs on different questions are never in
   one line.
3. The page is self-contained and has no script: the plots are SVG with the report's classes, the tables plain
   HTML.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from workbench.errors import UserError
from workbench.report import verdict as story
from workbench.report.load_run import load_run
from workbench.report.page_assets import styles
from workbench.report.report_page import environment, inline_hash
from workbench.runs import write_text
from workbench.schema import ComparisonFile, ConditionEntry
from workbench.statistics import over_seeds

#: Largest number of lines in one plot; further lines are only in the table.
MAX_LINES = 60


@dataclass(frozen=True)
class OverviewRun:
    """A run that is listed on a page that compares several runs.

    Attributes:
        path: The run directory.
        label: Label that distinguishes the run from the others.
        state: "done", "failed" or another state of a sweep's study.
        reason: Reason why the run is not done; empty if it is done.

    Example:
        >>> wb.OverviewRun(tmp_path, "seed 1").state
        'done'
    """

    path: Path
    label: str = ""
    state: str = "done"
    reason: str = ""


@dataclass(frozen=True)
class OverviewLine:
    """One line of a forest plot: the effect of a condition (a prompt or intervention) in one or several runs.

    Attributes:
        condition: Name of the condition.
        label: Settings of the runs, without the seed.
        kind: Kind of the condition, such as a found prompt, a written prompt or steering.
        runs: Number of runs with different results.
        rate: Mean rate of the matching answer (the one that shows the persona).
        shift: Mean change of the persona's log-odds against no prompt.
        low: Lower end of the 95 % interval of `shift`; None without an interval.
        high: Upper end of the interval.
    """

    condition: str
    label: str
    kind: str
    runs: int
    rate: float | None
    shift: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class OverviewGroup:
    """One forest plot of comparable runs.

    These have the same model, persona, sign (less or more of the persona), metric and questions.

    Attributes:
        title: Title of the plot.
        lines: All lines of the plot's table.
        low: Lower end of the axis.
        high: Upper end of the axis.
        ticks: Positions of the axis ticks.
        drawn: Lines that are drawn: the first ones, at most MAX_LINES, without models that always give the
            same answer.
    """

    title: str
    lines: tuple[OverviewLine, ...]
    low: float
    high: float
    ticks: tuple[float, ...]
    drawn: tuple[OverviewLine, ...] = ()


@dataclass
class _Read:
    run: OverviewRun
    comparison: ComparisonFile | None = None
    problem: str = ""
    link: str | None = None


@dataclass
class _Shifts:
    kind: str
    shifts: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    interval: tuple[float | None, float | None] = (None, None)
    results: set[tuple[str | None, float | None, float]] = field(default_factory=set)


def write_overview(
    runs: Sequence[OverviewRun | str | os.PathLike[str]], path: str | os.PathLike[str], title: str = ""
) -> Path:
    """Write one HTML page that compares several runs.

    Links to the runs' own reports are relative, so the whole directory can be moved.

    Args:
        runs: Run directories, or `OverviewRun`s with a label and a state.
        path: The HTML file to write.
        title: Title of the page; empty for the number of runs.

    Returns:
        The path of the page.

    Raises:
        UserError: There are no runs, a run does not exist, or the page cannot be written.

    Example:
        >>> (tmp_path / "run").mkdir()
        >>> wb.write_overview([tmp_path / "run"], tmp_path / "overview.html").name
        'overview.html'
    """
    if not runs:
        raise UserError("expected at least one run for an overview")
    target = Path(path)
    read = [_read(run if isinstance(run, OverviewRun) else _named(Path(run)), target) for run in runs]
    style = styles("shared.css", "report.css")
    policy = f"default-src 'none'; style-src '{inline_hash(style)}'; base-uri 'none'; form-action 'none'"
    states = Counter(one.run.state for one in read)
    text = (
        environment()
        .get_template("overview.html.j2")
        .render(
            policy=policy,
            style=Markup(style),
            title=title or f"{len(read)} runs",
            states=states,
            groups=_groups(read),
            read=read,
        )
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, text)
    return target


def _named(path: Path) -> OverviewRun:
    if not path.is_dir():
        raise UserError(f"expected a run directory, found no directory at {path}")
    return OverviewRun(path, path.name)


def _read(run: OverviewRun, target: Path) -> _Read:
    if run.state != "done":
        return _Read(run, problem=run.reason)
    contents = load_run(run.path)
    if contents.comparison is None:
        return _Read(
            run, problem=next((line for line in contents.missing if "comparison" in line), "no comparison")
        )
    report = run.path / "report.html"
    link = quote(os.path.relpath(report, target.parent)) if report.is_file() else None
    return _Read(run, contents.comparison, link=link)


def _groups(read: Iterable[_Read]) -> list[OverviewGroup]:
    """Group the runs into plots, in the order of the plots' first runs."""
    found: dict[tuple[str, ...], list[_Read]] = {}
    for one in read:
        if one.comparison is not None:
            c = one.comparison
            questions = c.splits["test"].hash if "test" in c.splits else None
            found.setdefault(
                (c.persona, str(c.wanted), c.model, c.metric, questions or str(one.run.path)), []
            ).append(one)
    return [_group(key, members) for key, members in found.items()]


def _group(key: tuple[str, ...], members: Sequence[_Read]) -> OverviewGroup:
    persona, wanted, model, metric, _ = key
    lines = sorted(
        _lines(members), key=lambda line: (story.group_index(line.kind), int(wanted) * -line.shift)
    )
    drawn = tuple(line for line in lines if line.kind != "constant_answer")[
        :MAX_LINES
    ]  # a constant's log-odds are arbitrary
    title = f"{'less' if wanted == '-1' else 'more'} {persona.replace('_', ' ')} on {model} ({metric})"
    return OverviewGroup(title, tuple(lines), *_axis(drawn), drawn)


def _axis(drawn: Sequence[OverviewLine]) -> tuple[float, float, tuple[float, ...]]:
    """Compute the ends and ticks of an axis that includes zero and every mean.

    An interval of two runs can be twenty times as wide as all effects. So intervals are cut where the axis
    ends, which is at most half the range of the means beyond them.
    """
    shifts = [0.0, *(line.shift for line in drawn)]
    low, high = min(shifts), max(shifts)
    room = max(0.5 * (high - low), 0.05)
    ends = [
        min(max(end, low - room), high + room)
        for line in drawn
        for end in (line.low, line.high)
        if end is not None
    ]
    low, high = min([low, *ends]), max([high, *ends])
    pad = 0.04 * (high - low) or 0.05
    width = (high - low) or 2 * pad  # also an axis if nothing is drawn or all values are zero
    step = next(
        k * 10.0**power for power in range(-9, 12) for k in (1, 2, 5) if width / (k * 10.0**power) <= 7
    )
    first, last = math.ceil((low - pad) / step), math.floor((high + pad) / step)
    return low - pad, high + pad, tuple(round(i * step, 9) for i in range(first, last + 1))


def _lines(members: Sequence[_Read]) -> Iterator[OverviewLine]:
    """Yield one line per condition and label, where the label excludes the seed."""
    gathered: dict[tuple[str, str], _Shifts] = {}
    for one in members:
        assert one.comparison is not None
        for condition in one.comparison.conditions:
            difference = condition.difference(one.comparison.baseline)
            if condition.name == one.comparison.baseline or difference is None or difference.log_odds is None:
                continue
            at = gathered.setdefault(
                (_shown_name(condition), _seedless(one.run.label)), _Shifts(condition.kind)
            )
            result = (condition.prompt, condition.log_odds, difference.log_odds)
            if result in at.results:
                continue  # the same draw in two runs is one result (see compare_runs.independent_runs)
            at.results.add(result)
            at.shifts.append(difference.log_odds)
            at.rates += [condition.rate] if condition.rate is not None else []
            at.interval = difference.log_odds_ci
    for (name, label), at in gathered.items():
        spread = over_seeds(at.shifts) if len(at.shifts) > 1 else None
        low, high = (spread.interval.low, spread.interval.high) if spread else at.interval
        rate = sum(at.rates) / len(at.rates) if at.rates else None
        yield OverviewLine(
            name, label, at.kind, len(at.shifts), rate, sum(at.shifts) / len(at.shifts), low, high
        )


def _shown_name(condition: ConditionEntry) -> str:
    """Return a name that is the same in all runs: the kind, if the name contains a found prompt's text."""
    return story.label(condition.kind if ":" in condition.name else condition.name)


def _seedless(label: str) -> str:
    """Return the label of a line: the runs' settings without the seed and those in the plot's title."""
    told = ("seed=", "persona=", "sign=", "model.name=", "name=")
    return ", ".join(part for part in label.split(", ") if not part.startswith(told) and "=" in part)
