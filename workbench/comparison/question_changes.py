"""What a condition does to each single question: log-odds before and after, flips, and what got worse."""

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
    """One row a question, the largest change first.

    Args:
        answers: The content of evaluation.parquet.
        name: The condition.
        baseline: What it is compared with.
        wanted: -1 where less of the persona is wanted, +1 for more.

    Returns:
        item, group, before, after, change (log-odds, mean over option orders; plus = more of the persona),
        flipped (the likelier answer is another one), worse (the change is against what was wanted).

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
    """`question_changes` of a run's chosen prompt, with the texts of the questions.

    Args:
        directory: The run.

    Returns:
        The columns of `question_changes`, and condition, question, matching, not_matching (empty in runs that
        kept no texts).

    Raises:
        UserError: no comparison, no found prompt, or no answers to single questions.
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
