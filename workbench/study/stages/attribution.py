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
    """Stage of a study that attributes the effect of its best found prompt to tokens, heads and latents.

    It is skipped if the study has no search.
    """

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
    """Return the quantities whose change by the prompt is attributed to its tokens.

    These are the answer's log-odds, the projection on the persona's direction and the latents that the search
    optimized.

    Args:
        context: State of the study.
    """
    assert context.directions is not None
    found: dict[str, Any] = {
        "answer log-odds": answer_log_odds(),
        "direction": projection(context.directions.best, "raw"),
    }
    if context.material.sae is not None:
        found |= {f"latent {i}": latent_activation(context.material.sae, [i]) for i in aimed_latents(context)}
    return found


def aimed_latents(context: StudyContext) -> list[int]:
    """Return the indices of the SAE latents that a search over latents optimizes; empty without an SAE.

    Args:
        context: State of the study.
    """
    return context.latents.ids[: context.study.latents] if context.latents is not None else []


def moved_latents(context: StudyContext, ids: tuple[int, ...], contexts: Contexts) -> SideEffects | None:
    """Measure how a found prompt changes all SAE latents, compared with a prompt that a person wrote.

    The compared prompt is the first one in the persona's file.

    Args:
        context: State of the study.
        ids: Token ids of the found prompt.
        contexts: Questions in their chat template.

    Returns:
        The changes of the latents; None without an SAE.
    """
    if context.material.sae is None:
        return None
    manual = next(iter(context.material.persona.manual_prompts.get(context.study.sign, ())), None)
    return side_effects(context.model, context.material.sae, ids, contexts, aimed_latents(context), manual)


def write_cards(context: StudyContext, latents: list[int]) -> None:
    """Write a description of each given SAE latent, with texts that activate it, to cards.json.

    The texts are from a file that the study names, or else from the train questions.

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
    """Return the name of the search whose prompt is the study's main result.

    It is the search whose chosen prompt has the best rate of the persona's answer on selection questions.
    Only the searches in the setting `primary` are considered, if there are any. Ties go to the earlier
    search.

    Args:
        study: The settings.
        chosen: Prompts that each search found, with the chosen one marked, by the search's name.
    """
    wanted = 1 if study.sign == "induce" else -1

    def rate(name: str) -> float:
        best = next((c for c in chosen[name].candidates if c.chosen), None)
        return (
            wanted * best.selection_rate if best is not None and best.selection_rate is not None else -np.inf
        )

    return max([name for name in study.primary if name in chosen] or list(chosen), key=rate, default=None)
