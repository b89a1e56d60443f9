"""Commands for files that a user writes: start a study file, print a file's JSON schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from workbench.cli.app import Sign, app
from workbench.cli.output_tables import say
from workbench.errors import UserError


@app.command
def init(
    file: Path = Path("study.yaml"),
    *,
    persona: str | None = None,
    model: str = "organism",
    sign: Sign = "suppress",
) -> None:
    """Write a study file with a comment on every setting.

    For the package's own model it is the demo. For other models it is a small study that searches over whole
    sentences.

    Args:
        file: File to write; an existing file is not overwritten.
        persona: Name of a persona (`workbench persona list`), or a persona file (YAML). Without it: sycophancy,
            by questions that suit the model. Personas of published data need the setting `data.path`.
        model: Name or directory of the model.
        sign: Aim: less of the persona (suppress) or more (induce).
    """
    from workbench.study.study_presets import first_study
    from workbench.study.study_template import study_template

    if not file.parent.is_dir():
        raise UserError(f"cannot write {file}: {file.parent} is not a directory")
    study = first_study(persona, model, sign).model_copy(update={"name": file.stem})
    try:
        with file.open("x", encoding="utf-8") as handle:
            handle.write(study_template(study))
    except FileExistsError:
        raise UserError(f"{file} exists: give another name") from None
    say(f"study: {file} (next: workbench explain {file})")


@app.command
def schema(kind: Literal["study", "sweep", "persona"]) -> None:
    """Print the JSON schema of a study, sweep or persona file.

    Editors use it to complete and check such a file.

    Args:
        kind: Kind of file.
    """
    from workbench.cli.file_schemas import file_schemas

    print(json.dumps(file_schemas()[kind], indent=2, ensure_ascii=False))
