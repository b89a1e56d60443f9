"""Attribution stage: ledger, circuit and side effects of the study's main prompt, and cards of its latents.

It uses selection questions; the test split is not read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from typing_extensions import override

from workbench.attribution import AttributionOptions, SideEffects, attribute, side_effects
from workbench.contexts import Contexts
from workbench.latents import LatentCardOptions, describe_latents
from workbench.objectives import answer_log_odds, latent_activation, projection
from workbench.prompt_tokens import encode_prompt
from workbench.runs import write_run_file, write_table
from workbench.sae import context_texts, read_corpus
from workbench.schema import AttributionRow, TimingsFile
from workbench.search import Frontier
from workbench.study.context import StudyContext
from workbench.study.stages.stage import Stage
from workbench.study.study_settings import Study


class AttributionStage(Stage):
    """Stage that attributes the effect of the report's main prompt; skipped in a study without a search."""

    name = "attribution"

    @override
    def files(self, context: StudyContext) -> tuple[str, ...]:
        if best_search(context.study, context.chosen) is None:
            return ()
        has_cards = context.material.has_sae and context.study.attribution.cards
        return (
            "attribution.parquet",
            "attribution.json",
            *(("cards.json", "cards.parquet") if has_cards else ()),
        )

    @override
    def compute(self, context: StudyContext) -> None:
        study, settings, directory = context.study, context.study.attribution, context.directory
        name = best_search(study, context.chosen)
        assert name is not None and context.directions is not None
        text = next(c.text for c in context.chosen[name].candidates if c.chosen)
        contexts = context.material.selection_contexts.take(settings.contexts, study.seed)
        ids = encode_prompt(context.model, contexts, text)
        controls = context.directions.randoms
        options = AttributionOptions(controls=controls)
        ledger = attribute(
            context.model,
            ids,
            targets(context),
            contexts,
            settings.estimators,
            study.seed,
            settings.circuit,
            options,
        )
        effects = moved_latents(context, ids, contexts)
        if effects is not None and settings.cards:
            write_cards(
                context,
                [*aimed_latents(context), *(moved.latent for moved in effects.beside)][: settings.cards],
            )
        write_table(directory.file("attribution.parquet"), ledger.table, AttributionRow)
        write_run_file(directory.file("attribution.json"), ledger.to_file(name, effects))
        directory.note_times(TimingsFile(estimators=dict(ledger.seconds)))


def targets(context: StudyContext) -> dict[str, Any]:
    """Return the quantities that effects are measured on: answer, direction, latents of the objective."""
    assert context.directions is not None
    found: dict[str, Any] = {
        "answer log-odds": answer_log_odds(),
        "direction": projection(context.directions.best, "raw"),
    }
    if context.material.sae is not None:
        found |= {f"latent {i}": latent_activation(context.material.sae, [i]) for i in aimed_latents(context)}
    return found


def aimed_latents(context: StudyContext) -> list[int]:
    """Return the indices of the latents in the objective; empty without latents."""
    return context.latents.ids[: context.study.latents] if context.latents is not None else []


def moved_latents(context: StudyContext, ids: tuple[int, ...], contexts: Contexts) -> SideEffects | None:
    """Measure how the prompt changes all latents, compared with the persona's first manual prompt.

    Args:
        context: State of the study.
        ids: Token ids of the prompt.
        contexts: Questions in their chat template.

    Returns:
        The side effects; None without an SAE.
    """
    if context.material.sae is None:
        return None
    manual = next(iter(context.material.persona.manual_prompts.get(context.study.sign, ())), None)
    return side_effects(context.model, context.material.sae, ids, contexts, aimed_latents(context), manual)


def write_cards(context: StudyContext, latents: list[int]) -> None:
    """Write the cards of the given latents from texts of a corpus file or from the train questions.

    Args:
        context: State of the study.
        latents: Indices of the latents.
    """
    study, settings = context.study, context.study.attribution
    if settings.corpus is not None:
        corpus, about = (
            read_corpus(settings.corpus, settings.texts),
            f"the first texts (at most {settings.texts}) of {settings.corpus}",
        )
    else:
        corpus = context_texts(
            context.model, context.material.splits.train, settings.texts, study.slot, study.seed
        )
        about = f"{len(corpus)} of the train questions, bare or under a varied system text, with one of their answers"
    assert context.material.sae is not None and context.directions is not None
    cache, known = context.directory.file("cards.parquet"), {"direction": context.directions.best}
    found = describe_latents(
        context.model,
        context.material.sae,
        latents,
        corpus,
        known,
        cache=cache,
        options=LatentCardOptions(about=about),
    )
    write_run_file(context.directory.file("cards.json"), found.to_file())


def best_search(study: Study, chosen: Mapping[str, Frontier]) -> str | None:
    """Return the name of the search whose prompt is attributed, as in the report's headline.

    It is the search with the best rate on selection questions among the study's primary ones (among all if
    none is primary); ties go by order.

    Args:
        study: The settings.
        chosen: Frontiers with the chosen prompt marked, by the search's name.
    """
    wanted = 1 if study.sign == "induce" else -1

    def rate(name: str) -> float:
        best = next((c for c in chosen[name].candidates if c.chosen), None)
        return (
            wanted * best.selection_rate if best is not None and best.selection_rate is not None else -np.inf
        )

    return max([name for name in study.primary if name in chosen] or list(chosen), key=rate, default=None)
