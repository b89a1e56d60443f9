"""Check a persona's data without a model: balance, groups, and the minimum detectable effect.

1. Balance: the fraction of items with the matching option first and with the longer matching answer, and the
   scores of a constant letter and of a length rule (`answer_balance`).
2. Groups: their number, the largest one, and the sizes of the four splits of seed 0.
3. Power: the smallest paired difference of two rates on the test split that a two-sided test at 5 % detects
   in 80 % of studies. The hardest case is assumed: two conditions with unrelated answers at a rate of one
   half (variance 1/2 of a question's difference). With g groups of m questions, the variance of a group's
   mean is 1/(2m) if the questions of a group are unrelated (best case) and 1/2 if they all answer alike
   (worst case).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from workbench.errors import UserError
from workbench.html_text import html_table, plain_table
from workbench.personas.answer_balance import first_share, length_rule, letter_rule, longer_share, warnings_of
from workbench.personas.duplicate_questions import duplicates
from workbench.personas.persona import Persona, Split
from workbench.personas.varied_texts import distinct_texts
from workbench.statistics import minimum_detectable_effect_from_spread


@dataclass(frozen=True, repr=False)
class PersonaCheck:
    """Figures about a persona's data, computed without a model.

    Attributes:
        persona: Name of the persona.
        n_items: Number of items.
        n_groups: Number of groups.
        largest_group: Number of items in the largest group of related questions.
        first_share: Fraction of items, 0 to 1, whose first published option is the answer that shows the
            persona; None if no order was published.
        longer_share: Fraction of items, 0 to 1, in which the answer that shows the persona is the longer one.
        letter_rule: Accuracy, 0.5 to 1, of guessing the persona's answer by its letter alone; None if no
            order was published.
        length_rule: Accuracy, 0.5 to 1, of guessing the persona's answer by its length alone.
        repeated: Number of pairs of items with the same question and an answer in common.
        splits: Numbers of items and of groups in each split, by the split's name, with seed 0.
        smallest_difference: Smallest difference of two rates that the test split can detect, in the best and
            in the worst case (see `smallest_difference`); None if the groups cannot be split.
        difference: Difference of two rates that the user wants to detect.
        groups_for_it: Number of groups in the test split that would detect `difference` in the worst case.
        warnings: Warnings of the reader and of the checks, one line each.
        refusals: Reasons in the data for which `workbench run` would refuse the persona; empty if there are none.
    """

    persona: str
    n_items: int
    n_groups: int
    largest_group: int
    first_share: float | None
    longer_share: float
    letter_rule: float | None
    length_rule: float
    repeated: int
    splits: dict[str, tuple[int, int]]
    smallest_difference: tuple[float, float] | None
    difference: float
    groups_for_it: int
    warnings: tuple[str, ...]
    refusals: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """The warnings, followed by reasons for which a run would be refused."""
        warnings = (line for line in self.warnings if line not in self.refusals)
        return (*warnings, *(f"run would refuse: {refusal}" for refusal in self.refusals))

    @property
    def table(self) -> pd.DataFrame:
        """All figures about the persona's data, one row each: what it is, its value and its meaning."""
        return pd.DataFrame(_rows(self), columns=["what", "value", "meaning"])

    def __repr__(self) -> str:
        return "\n".join([plain_table(self.table, f"Data of the persona {self.persona}"), *self.notes])

    def _repr_html_(self) -> str:
        notes = pd.DataFrame({"warning": list(self.notes)})
        title = f"Data of the persona {self.persona}"
        return html_table(self.table, title) + (html_table(notes) if self.notes else "")


def check_persona(persona: Persona, difference: float = 0.1) -> PersonaCheck:
    """Check a persona's data without a model, for biases, repeated questions and too few question groups.

    Args:
        persona: The persona whose data are checked.
        difference: Difference of two rates (fractions of questions answered as the persona) that you want to
            detect, above 0 and at most 1.

    Returns:
        Counts, biases, the minimum detectable difference, warnings, and reasons for which `workbench run` would
        refuse the data: groups that cannot be split, or too few varied system texts.

    Example:
        >>> wb.check_persona(persona).n_items == len(persona.items)
        True
    """
    items, sizes = persona.items, persona.group_sizes
    warnings = [*persona.warnings, *(line for line in warnings_of(items) if line not in persona.warnings)]
    splits, smallest, refusals = {}, None, []
    try:
        parts = persona.split()
        splits = {part.name: (len(part), part.n_groups) for part in parts}
        smallest = smallest_difference(parts.test)
    except UserError as error:
        warnings.append(str(error))
        refusals.append(str(error))
    try:
        distinct_texts(persona.varied_system_texts)
    except UserError as error:
        refusals.append(str(error))
    found = duplicates(persona, persona)  # each pair is found twice
    repeated, opposite = len(found) // 2, sum(pair.opposite for pair in found) // 2
    if repeated:
        warnings.append(f"{repeated} pairs of items ask the same question with an answer in common")
    if opposite:
        warnings.append(
            f"{opposite} pairs of items call opposite answers to one question matching: a label is wrong"
        )
    return PersonaCheck(
        persona=persona.name,
        n_items=len(items),
        n_groups=len(sizes),
        largest_group=max(sizes.values()),
        first_share=first_share(items),
        longer_share=longer_share(items),
        letter_rule=letter_rule(items),
        length_rule=length_rule(items),
        repeated=repeated,
        splits=splits,
        smallest_difference=smallest,
        difference=difference,
        groups_for_it=groups_needed_for(difference),
        warnings=tuple(warnings),
        refusals=tuple(refusals),
    )


def smallest_difference(split: Split) -> tuple[float, float] | None:
    """Return the smallest difference of two rates that a split can detect, in the best and the worst case.

    A rate is the fraction of questions answered as the persona under one condition, such as a prompt. The
    test is paired and two-sided at 5 % with 80 % power, and answers under the two conditions are assumed to
    be unrelated. In the best case the questions of a group are unrelated too; in the worst case they all have
    the same answer. The result is None for fewer than 2 groups.
    """
    if split.n_groups < 2:
        return None
    best = minimum_detectable_effect_from_spread(math.sqrt(0.5 * split.n_groups / len(split)), split.n_groups)
    return min(best, 1.0), min(minimum_detectable_effect_from_spread(math.sqrt(0.5), split.n_groups), 1.0)


def groups_needed_for(difference: float) -> int:
    """Return the number of question groups needed to detect a difference of two rates (80 % power at 5 %).

    The worst case is assumed: all questions of a group have the same answer.

    Args:
        difference: Difference of two rates (fractions of questions answered as the persona), above 0 and at
            most 1.

    Returns:
        The smallest number of groups.

    Raises:
        UserError: The difference is not in that range.
    """
    if not 0 < difference <= 1:
        raise UserError(f"a difference of two rates is above 0 and is at most 1, found {difference}")
    low, high = 2, 4
    while minimum_detectable_effect_from_spread(math.sqrt(0.5), high) > difference:
        low, high = high, 2 * high
    while low < high:
        middle = (low + high) // 2
        low, high = (
            (low, middle)
            if minimum_detectable_effect_from_spread(math.sqrt(0.5), middle) <= difference
            else (middle + 1, high)
        )
    return high


def _rows(check: PersonaCheck) -> list[tuple[str, str, str]]:
    smallest = (
        "none"
        if check.smallest_difference is None
        else "{:.0f} to {:.0f} %".format(*(100 * x for x in check.smallest_difference))
    )
    rows = [
        ("items", str(check.n_items), "questions with a matching and a not matching answer"),
        (
            "groups",
            str(check.n_groups),
            f"kept together in one split; the largest holds {check.largest_group} items",
        ),
        (
            "matching option first",
            _percent(check.first_share),
            "in the published order; both orders of every item cancel it",
        ),
        (
            "matching answer longer",
            _percent(check.longer_share),
            "far from 50 %: length tells the answers apart",
        ),
        ("constant letter scores", _percent(check.letter_rule), "in the published order"),
        (
            "length rule scores",
            _percent(check.length_rule),
            "the longer or the shorter answer, whichever is right more often",
        ),
        ("repeated questions", str(check.repeated), "pairs of items"),
    ]
    rows += [
        (f"{name} split", f"{n} items, {groups} groups", "seed 0")
        for name, (n, groups) in check.splits.items()
    ]
    needed = f"test groups that show a difference of {100 * check.difference:.0f} % (80 % power), if each answers as one"
    shown = (
        "smallest difference",
        smallest,
        "of two rates on the test split (80 % power): best to worst case",
    )
    return [*rows, shown, ("groups needed", str(check.groups_for_it), needed)]


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.1f} %"
