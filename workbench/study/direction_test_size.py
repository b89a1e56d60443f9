"""Whether a study has enough system texts and question groups to test if a persona has a direction at all.

The test (`directions.site_gates`) needs at least `LEAST` of both. A study with fewer runs, and its directions are
reported as not tested. A reader of the plan should know it before.
"""

from __future__ import annotations

from workbench.directions.activation_sampling import deal_texts
from workbench.directions.site_gates import LEAST
from workbench.errors import UserError
from workbench.personas import Persona
from workbench.study.study_settings import Study


def why_not_tested(study: Study, persona: Persona) -> str | None:
    """Say why a study cannot test whether its persona has a direction.

    Questions for this test are drawn from the search split. If only another question of the same group balances the
    answers of a question, they are drawn together, so few contexts can be of very few groups.

    Args:
        study: The settings; `directions.contexts` and `directions.texts` are used.
        persona: The persona of the study, with its metric.

    Returns:
        The reason in one line, with what to change, or None if there are enough texts and groups.

    Example:
        >>> study = wb.Study.load("docs/examples/qwen_feedback.yaml")
        >>> wb.study.direction_test_size.why_not_tested(study, wb.load_persona(study.persona)) is None
        True
    """
    s, orders = study.directions, 2 if persona.metric == "letters" and study.protocol.orders == "both" else 1
    search = persona.split(study.data.split_seed, study.data.fractions).search
    if study.data.search_items is not None:
        search = search.take(study.data.search_items, study.data.split_seed)
    groups = len(set(search.take(max(1, s.contexts // orders), study.seed).groups))
    try:
        texts = len(deal_texts(persona.varied_system_texts, s.texts, study.seed)[1])
    except UserError:  # its own message comes when the study runs
        return None
    found = [
        f"{n} {what} ({setting})"
        for n, what, setting in (
            (texts, "system texts", "directions.texts"),
            (groups, "question groups", f"directions.contexts: {s.contexts}"),
        )
        if n < LEAST
    ]
    if not found:
        return None
    return (
        f"it is not tested whether the persona has a direction, because that needs {LEAST} system texts and {LEAST} "
        f"question groups: here are {' and '.join(found)}"
    )
