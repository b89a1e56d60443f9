"""Direction stages: the persona's direction with random controls, and the directions of other personas."""

from __future__ import annotations

from dataclasses import replace

from typing_extensions import override

from workbench.directions import (
    Direction,
    LayerScan,
    LayerScanOptions,
    find_directions,
    load_directions,
    random_directions,
    save_directions,
)
from workbench.errors import UserError
from workbench.runs import write_run_file
from workbench.study.context import ChosenDirections, StudyContext
from workbench.study.material import Material
from workbench.study.stages.stage import Stage
from workbench.study.study_settings import Study


class DirectionsStage(Stage):
    """Stage of a study that finds the persona's direction in the residual stream.

    It also draws random directions as controls.
    """

    name = "directions"

    @override
    def files(self, context: StudyContext) -> tuple[str, ...]:
        return "direction.safetensors", "direction.json"

    @override
    def compute(self, context: StudyContext) -> None:
        found = scan(context.material)
        stop_without_direction(context.study, found)
        save_directions(
            [found.best, *controls(context.study, found)], context.directory.file("direction.safetensors")
        )
        write_run_file(context.directory.file("direction.json"), found.to_file())

    @override
    def load(self, context: StudyContext) -> StudyContext:
        best, *randoms = load_directions(context.directory.file("direction.safetensors"))
        return replace(context, directions=ChosenDirections(best, tuple(randoms)))


class OtherDirectionsStage(Stage):
    """Stage of a study that finds the directions of the other personas that its settings name."""

    name = "directions beside"

    @override
    def files(self, context: StudyContext) -> tuple[str, ...]:
        return ("direction_beside.safetensors",) if context.study.beside else ()

    @override
    def compute(self, context: StudyContext) -> None:
        scans = [scan(other) for other in context.material.others()]
        for found in scans:
            stop_without_direction(context.study, found)
        save_directions(
            [found.best for found in scans], context.directory.file("direction_beside.safetensors")
        )

    @override
    def load(self, context: StudyContext) -> StudyContext:
        return replace(
            context,
            other_directions=tuple(load_directions(context.directory.file("direction_beside.safetensors"))),
        )


def stop_without_direction(study: Study, found: LayerScan) -> None:
    """Raise an error if no direction passed the statistical checks, unless the study says to go on.

    Args:
        study: The settings.
        found: Result of `find_directions` over layers and methods.

    Raises:
        UserError: No direction passed the checks, and the setting `directions.unshown` is "stop".
    """
    if found.shown is False and study.directions.unshown == "stop":
        raise UserError(
            f"{found.verdict}. To search along the best one all the same, set directions.unshown to go_on"
        )


def scan(material: Material) -> LayerScan:
    """Fit directions of the persona at several layers by several methods, and choose the best one.

    They are fitted on train questions and chosen on search questions.

    Args:
        material: Model, persona, questions and settings of the study.
    """
    study, s = material.study, material.study.directions
    return find_directions(
        material.model,
        material.splits.train,
        material.splits.search,
        s.layers,
        s.methods,
        n=s.rows,
        n_texts=s.texts,
        n_contexts=s.contexts,
        slot=study.slot,
        seed=study.seed,
        options=LayerScanOptions(orders=study.protocol.orders),
    )


def controls(study: Study, found: LayerScan) -> tuple[Direction, ...]:
    """Draw random directions with the covariance of the residual stream, as controls of the study.

    Args:
        study: The settings, with the number of random directions.
        found: Scan over layers and methods, with the best direction and activations at its layer.
    """
    if study.random_directions == 0:
        return ()
    return random_directions(
        found.best, found.activations, study.random_directions, study.seed, both_signs=False
    )
