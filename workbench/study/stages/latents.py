"""The SAE latents that carry the persona; nothing in a study without an SAE."""

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
    """Latents ranked on the train split."""

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
    """Latents ranked by how well they tell the model's own choices apart; as published, all beyond a percentile at the answer."""
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
