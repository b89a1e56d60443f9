"""The command that checks contrast data."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from workbench.cli.app import Json, app
from workbench.cli.output_tables import print_frame, print_notes

persona_app = App(name="persona", help="Contrast data: check whether it can carry a direction.")
app.command(persona_app)


@persona_app.command(name="check")
def persona_check(
    file: str, *, data: Path | None = None, model: str | None = None, layer: int | None = None, difference: float = 0.1, as_json: Json = False
) -> None:
    """Can this data carry a direction? Balance, groups, what a length-only or letter-only rule scores, groups that a difference needs.

    With a model also the held-out AUC of its direction against permuted labels.

    Args:
        file: persona file (YAML), or a name with --data.
        data: contrast file.
        model: name or directory, for the permutation test.
        layer: that is read; the middle one when not given.
        difference: of two rates, that the study wants to show.
    """
    from workbench.personas import check_persona, load_persona

    persona = load_persona(file, data)
    table, notes = check_persona(persona, difference).table, list(persona.warnings)
    if model is not None:
        from workbench.directions import direction_permutation_test
        from workbench.models import load_model

        found = direction_permutation_test(load_model(model), persona, layer)
        table, notes = found.added_to(table), [*notes, found.verdict]
    print_frame(table, as_json)
    print_notes(notes, as_json)
