"""The command that checks contrast data."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cyclopts import App

from workbench.cli.app import Json, app
from workbench.cli.output_tables import print_frame, print_notes
from workbench.errors import UserError

persona_app = App(name="persona", help="Contrast data: check whether it can carry a direction.")
app.command(persona_app)


@persona_app.command(name="check")
def persona_check(
    file: str,
    *,
    data: Path | None = None,
    model: str | None = None,
    layer: int | None = None,
    slot: Literal["system", "before_question", "after_question", "answer_opening"] = "system",
    difference: float = 0.1,
    as_json: Json = False,
) -> None:
    """Can this data carry a direction? Balance, groups, what a length-only or letter-only rule scores, groups that a difference needs.

    With a model also: letter and position bias, agreement of both orders, what written prompts move, the minimum detectable effect, which
    metric can show anything, and the held-out AUC of its direction against permuted labels. A persona that `run` would refuse is an error.

    Args:
        file: persona file (YAML), or a name with --data.
        data: contrast file.
        model: name or directory.
        layer: that is read for the permutation test; the middle one when not given.
        slot: where prompts are placed: system, before_question, after_question, answer_opening.
        difference: of two rates, that the study wants to show.
    """
    from workbench.personas import check_persona, load_persona

    persona, refusals = load_persona(file, data), ()
    table, notes = check_persona(persona, difference).table, list(persona.warnings)
    if model is not None:
        import pandas as pd

        from workbench.directions import direction_permutation_test
        from workbench.models import load_model
        from workbench.study.persona_model_check import check_on_model

        loaded = load_model(model)
        found = check_on_model(loaded, persona, slot)
        table, notes = pd.concat([table, found.table], ignore_index=True), [*notes, *found.notes]
        refusals = found.refusals
        if not refusals:
            test = direction_permutation_test(loaded, persona, layer)
            table, notes = test.added_to(table), [*notes, test.verdict]
    print_frame(table, as_json)
    print_notes(notes, as_json)
    if refusals:
        raise UserError(f"{file}: run would refuse this persona on {model}: {refusals[0]}")
