"""Latent stage: the SAE latents that distinguish the persona; skipped in a study without an SAE."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from typing_extensions import override

from workbench.latents import LatentRanking, LatentRankingOptions, rank_latents
from workbench.runs import read_run_file, write_run_file
from workbench.schema import LatentsFile
from workbench.study.context import StudyContext
from workbench.study.material import Material
from workbench.study.stages.stage import Stage


class LatentsStage(Stage):
    """Stage of a study that ranks SAE latents by how well they distinguish the persona.

    It uses train questions only.
    """

    name = "latents"

    @override
    def files(self, context: StudyContext) -> tuple[str, ...]:
        return ("latents.json",) if context.material.has_sae else ()

    @override
    def compute(self, context: StudyContext) -> None:
        write_run_file(context.directory.file("latents.json"), ranked_latents(context.material).to_file())

    @override
    def load(self, context: StudyContext) -> StudyContext:
        return replace(
            context,
            latents=LatentRanking.from_file(
                read_run_file(context.directory.file("latents.json"), LatentsFile)
            ),
        )


def ranked_latents(material: Material) -> LatentRanking:
    """Rank SAE latents by how well they distinguish whether the model's own answer shows the persona.

    A study that follows the published protocol takes all latents instead whose mean difference between the
    two given answers is above a percentile.

    Args:
        material: Model, persona, questions and settings of the study.
    """
    study = material.study
    assert material.sae is not None, "this stage runs only with an SAE"
    asked: dict[str, Any] = {
        "k": study.latents,
        "n": study.directions.rows,
        "slot": study.slot,
        "seed": study.seed,
    }
    if study.protocol.latents == "percentile":
        asked |= {"rule": "percentile", "labels": "answer"}
    options = LatentRankingOptions(orders=study.protocol.orders, texts=study.attribution.texts)
    return rank_latents(material.model, material.sae, material.splits.train, options=options, **asked)
