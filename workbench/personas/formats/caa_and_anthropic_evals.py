"""Format of CAA (github nrimsky/CAA) and Anthropic's evals (github anthropics/evals).

A row has a question, an answer that matches the behaviour, and an answer that does not.
"""

from __future__ import annotations

from workbench.personas.data_rows import DataRow
from workbench.personas.formats.data_format import DataFormat, answered_item, register_format
from workbench.personas.persona import Item
from workbench.personas.question_groups import Grouping

FIELDS = ("question", "answer_matching_behavior", "answer_not_matching_behavior")


def _read(row: DataRow, grouping: Grouping) -> Item:
    return answered_item(row, FIELDS[0], FIELDS[1:], grouping)


register_format(
    DataFormat(
        "caa_and_anthropic_evals",
        FIELDS,
        _read,
        "CAA and Anthropic's evals: the answers, or the options that they name",
        order=10,
    )
)
