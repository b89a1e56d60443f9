"""Data of single questions for the page: text, both answers, and the log-odds under each condition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from workbench.comparison.question_changes import question_changes
from workbench.conditions import condition_label
from workbench.html_text import shorten
from workbench.report.load_run import RunContents

#: Largest number of questions of one kind on the page, of cells, and of characters of a text. The page says
#: what is left out.
MAX_QUESTIONS = 600
MAX_CELLS = 24_000
MAX_CHARACTERS = 700


def question_list(contents: RunContents) -> dict[str, Any] | None:
    """Collect the test questions with the log-odds of the persona's answer under every condition.

    Args:
        contents: Contents of the run's files.

    Returns:
        A dictionary, or None if the run has no answers to single questions. `items` is a list of the
        questions with kind ("test", or "true" for true statements), group and texts. `odds` has for each
        condition (a prompt or intervention) the log-odds of each question, as a mean over both orders of the
        options; None if the question was not asked. `baseline` is the name of the condition without a prompt.
    """
    comparison, answers = contents.comparison, contents.evaluation
    if (
        comparison is None
        or answers is None
        or not {"item", "group"} <= set(answers.columns)
        or answers.empty
    ):
        return None
    tables = [("test", _means(answers, "log_odds", contents, MAX_QUESTIONS))]
    if contents.off_target is not None:
        true = contents.off_target.loc[contents.off_target["part"] == "true statements"]
        tables += [("true", _means(true, "value", contents, MAX_QUESTIONS))] if len(true) else []
    texts, groups = _texts(contents), _groups(contents)
    items = [
        {
            "kind": kind,
            "group": groups.get(item, ""),
            **texts.get((kind, item), {"question": item, "matching": "", "other": ""}),
        }
        for kind, table in tables
        for item in table.index
    ]
    names = [c.name for c in comparison.conditions]
    odds = {condition_label(name): [x for _, table in tables for x in _column(table, name)] for name in names}
    asked = {name: column for name, column in odds.items() if any(x is not None for x in column)}
    return {"items": items, "odds": asked, "baseline": condition_label(comparison.baseline)}


def example_question(contents: RunContents, name: str) -> dict[str, Any] | None:
    """Return the test question whose log-odds a prompt changes by the median amount, as a typical example.

    Args:
        contents: Contents of the run's files.
        name: Name of the condition (a prompt or intervention), which is compared with no prompt.

    Returns:
        The question, its answers, and the log-odds of the persona's answer without and with the condition.
        None if the run has no texts of questions.
    """
    comparison, answers, texts = contents.comparison, contents.evaluation, _texts(contents)
    if comparison is None or answers is None or not {"item", "group"} <= set(answers.columns):
        return None
    changes = question_changes(answers, name, comparison.baseline, comparison.wanted).sort_values(
        "change", kind="stable"
    )
    if changes.empty:
        return None
    row = changes.iloc[(len(changes) - 1) // 2]
    found = texts.get(("test", str(row["item"])))
    return None if found is None else found | {"before": float(row["before"]), "after": float(row["after"])}


def _means(answers: pd.DataFrame, column: str, contents: RunContents, limit: int) -> pd.DataFrame:
    """Return the table of items by conditions, with at most `limit` evenly picked items; a cut is noted."""
    table = answers.pivot_table(index="item", columns="condition", values=column, aggfunc="mean", sort=False)
    limit = max(20, min(limit, MAX_CELLS // max(1, len(table.columns))))
    if len(table) <= limit:
        return table
    contents.missing.append(f"Of {len(table):,} single questions, {limit:,} are shown, evenly picked.")
    return table.iloc[np.linspace(0, len(table) - 1, limit).astype(int)]


def _column(table: pd.DataFrame, name: str) -> list[float | None]:
    if name not in table:
        return [None] * len(table)
    return [round(float(x), 3) if np.isfinite(x) else None for x in table[name]]


def _texts(contents: RunContents) -> dict[tuple[str, str], dict[str, str]]:
    """Return question and answers by kind ("test" or "true") and item id."""
    frame = contents.questions
    if frame is None:
        return {}
    columns = (
        frame.reindex(columns=["measure", "item", "question", "matching", "not_matching"])
        .fillna("")
        .astype(str)
    )
    shown = {}
    for measure, item, question, matching, other in columns.itertuples(index=False, name=None):
        texts = [shorten(text, MAX_CHARACTERS) for text in (question, matching, other)]
        shown["true" if measure else "test", item] = dict(
            zip(("question", "matching", "other"), texts, strict=True)
        )
    return shown


def _groups(contents: RunContents) -> dict[str, str]:
    frames = [
        frame
        for frame in (contents.off_target, contents.evaluation)
        if frame is not None and {"item", "group"} <= set(frame.columns)
    ]
    return {
        str(item): str(group)
        for frame in frames
        for item, group in frame.drop_duplicates("item")[["item", "group"]].itertuples(index=False)
    }
