"""Changes of single questions by a condition: log-odds before and after, flipped answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from workbench.comparison.claims import chosen_condition
from workbench.comparison.compare_runs import read_comparison
from workbench.errors import UserError
from workbench.runs import read_table
from workbench.schema import EvaluationRow, QuestionRow


def question_changes(answers: pd.DataFrame, name: str, baseline: str, wanted: int) -> pd.DataFrame:
    """Compute how much a condition changes the log-odds of each question, largest change first.

    Args:
        answers: Contents of evaluation.parquet, the log-odds of the answers to all questions under all
            conditions.
        name: Name of the condition, such as a prompt.
        baseline: Name of the condition to compare with.
        wanted: Intended direction: -1 for less of the persona, +1 for more.

    Returns:
        One row per question with its id (item) and question group. `before` and `after` are the log-odds of
        the persona's answer under the baseline and under the condition, as means over option orders; `change`
        is their difference. `flipped`: whether the likelier answer changed. `worse`: whether the change is in
        the unintended direction.

    Example:
        >>> question_changes(comparison.rows, "resga", "no prompt", -1).query("flipped")  # doctest: +SKIP
    """
    means = {
        one: part.groupby("item", sort=False)["log_odds"].mean()
        for one, part in answers.groupby("condition")
        if one in (name, baseline)
    }
    table = pd.DataFrame({"before": means.get(baseline), "after": means.get(name)}, dtype=float).dropna()
    groups = answers.drop_duplicates("item").set_index("item")["group"]
    table.insert(0, "group", groups.reindex(table.index))
    table["change"] = table["after"] - table["before"]
    table["flipped"] = (table["before"] > 0) != (table["after"] > 0)
    table["worse"] = wanted * table["change"] < 0
    order = np.argsort(-table["change"].abs().to_numpy(), kind="stable")
    return table.iloc[order].rename_axis("item").reset_index()


def questions_of_run(directory: str | Path) -> pd.DataFrame:
    """Compute how much a run's chosen prompt changes the log-odds of each test question.

    Args:
        directory: The run directory.

    Returns:
        The columns of `question_changes`, the name of the prompt's condition, the text of the question, and
        the texts of the answer that shows the persona (`matching`) and of the other (`not_matching`). Texts
        of answers are empty if the run did not save them.

    Raises:
        UserError: The run has no comparison, no found prompt, or no answers to single questions.
    """
    place = Path(directory)
    comparison = read_comparison(place)
    best = chosen_condition(comparison)
    if best is None:
        raise UserError(f"{place}: no found prompt was compared in this run")
    changes = question_changes(
        read_table(place / "evaluation.parquet", EvaluationRow),
        best.name,
        comparison.baseline,
        comparison.wanted,
    )
    texts = place / "questions.parquet"
    asked = changes[["item"]].assign(question=changes["item"])
    if texts.is_file():
        asked = read_table(texts, QuestionRow).query("measure == ''")
    columns = ["item", "question", "matching", "not_matching"]
    return changes.assign(condition=best.name).merge(asked.reindex(columns=columns), on="item", how="left")
