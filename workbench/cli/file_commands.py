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
    persona: str = "sycophancy",
    model: str = "organism",
    sign: Sign = "suppress",
) -> None:
    """Write a study file with a comment on every setting.

    Args:
        file: File to write; an existing file is not overwritten.
        persona: Name of a persona that the package's own model shows, or a persona file (YAML). Another name
            needs the setting `data.path` of the study file.
        model: Name or directory of the model.
        sign: Aim: less of the persona (suppress) or more (induce).
    """
    from workbench.study.study_presets import demo_study
    from workbench.study.study_settings import ModelSettings
    from workbench.study.study_template import study_template

    if not file.parent.is_dir():
        raise UserError(f"cannot write {file}: {file.parent} is not a directory")
    study = demo_study(persona, sign).model_copy(
        update={"name": file.stem, "model": ModelSettings(name=model)}
    )
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
