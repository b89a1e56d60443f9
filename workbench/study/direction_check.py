"""Check whether a study of a persona would stop because no direction is shown.

The scan over layers and methods is that of a study with default settings: the same splits, seed, metric, texts and
contexts, so that the verdict is the same. It runs the model on some thousand questions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from workbench.contexts import Slot
from workbench.directions import LayerScan
from workbench.errors import UserError
from workbench.models import runner_for
from workbench.personas import Persona
from workbench.study.material import Material
from workbench.study.persona_model_check import PersonaModelCheck
from workbench.study.stages.directions import scan, stop_without_direction
from workbench.study.study_settings import Study


def scan_as_study(model: Any, persona: Persona, slot: Slot = "system") -> LayerScan:
    """Search layers and methods for a persona's direction, as a study with default settings does.

    Args:
        model: A loaded model or its runner.
        persona: The persona.
        slot: Place of the prompts in the chat template.

    Returns:
        The directions with their table and verdict.

    Raises:
        UserError: The persona's data cannot be used in a study.
    """
    study, runner = Study(slot=slot), runner_for(model)
    with runner.rendering(study.protocol.template), runner.limited(study.search.batch_tokens):
        material = Material.of(study, persona, model)
        if material.metric_is_open:
            material = material.with_metric(material.choose_metric()[0])
        return scan(material)


def add_directions(
    found: PersonaModelCheck, model: Any, persona: Persona, slot: Slot = "system"
) -> PersonaModelCheck:
    """Add to a persona's check whether a study would find a direction, and refuse the persona if it would not.

    Args:
        found: Check of the persona on the model.
        model: A loaded model or its runner.
        persona: The persona.
        slot: Place of the prompts in the chat template.

    Returns:
        The check with the scan; unchanged if the persona is refused already.

    Example:
        >>> from workbench.study.persona_model_check import check_on_model
        >>> add_directions(check_on_model(model, persona), model, persona).refusals
        ()
    """
    if found.refusals:
        return found
    try:
        scanned = scan_as_study(model, persona, slot)
    except UserError as error:
        return replace(found, refusals=(str(error),))
    try:
        stop_without_direction(Study(), scanned)
    except UserError as error:
        return replace(found, scan=scanned, refusals=(str(error),))
    return replace(found, scan=scanned)
