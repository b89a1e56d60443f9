"""The attribution stage: ledger, circuit and side effects of the study's main prompt on selection contexts, and cards of its latents."""

from __future__ import annotations

from typing import Any

from workbench.attribution import attribute, side_effects
from workbench.contexts import encode_prompt
from workbench.directions import Direction
from workbench.latents import LatentRanking, describe_latents
from workbench.objectives import answer_log_odds, latent_activation, projection
from workbench.runs import RunDirectory, write_run_file, write_table
from workbench.sae import Sae, context_texts, read_corpus
from workbench.schema import AttributionRow
from workbench.study.stages import ChosenDirections, Material


def explain(
    directory: RunDirectory, material: Material, directions: ChosenDirections, sae: Sae | None, latents: LatentRanking | None, search: str, text: str
) -> None:
    """Writes attribution.parquet, attribution.json and, where there is an autoencoder, cards.json and cards.parquet. search, text: the prompt
    and where it came from."""
    study, settings = material.study, material.study.attribution
    contexts = material.selection_contexts.take(settings.contexts, study.seed)
    targets: dict[str, Any] = {"answer log-odds": answer_log_odds(), "direction": projection(directions.best, "raw")}
    aimed = latents.ids[: study.latents] if latents is not None else []
    if sae is not None:
        targets |= {f"latent {i}": latent_activation(sae, [i]) for i in aimed}
    ids = encode_prompt(material.model, contexts, text)
    ledger = attribute(
        material.model, ids, targets, contexts, settings.estimators, seed=study.seed, circuit=settings.circuit, controls=directions.randoms
    )
    effects = None
    if sae is not None:
        manual = next(iter(material.persona.manual_prompts.get(study.sign, ())), None)
        effects = side_effects(material.model, sae, ids, contexts, aimed, manual)
        if settings.cards:
            moved = [m.latent for m in effects.beside]
            _cards(directory, material, sae, [*aimed, *moved][: settings.cards], directions.best)
    write_table(directory.file("attribution.parquet"), ledger.table, AttributionRow)
    write_run_file(directory.file("attribution.json"), ledger.to_file(search, effects))


def _cards(directory: RunDirectory, material: Material, sae: Sae, latents: list[int], direction: Direction) -> None:
    """Cards of the objective's latents and of the most moved others, from a corpus file or the train questions as the model sees them."""
    study, settings = material.study, material.study.attribution
    if settings.corpus is not None:
        corpus, about = read_corpus(settings.corpus, settings.texts), f"the first texts (at most {settings.texts}) of {settings.corpus}"
    else:
        corpus = context_texts(material.model, material.splits.train, settings.texts, study.slot, study.seed)
        about = f"{len(corpus)} of the train questions, bare or under a varied system text, with one of their answers"
    cache = directory.file("cards.parquet")
    found = describe_latents(material.model, sae, latents, corpus, {"direction": direction}, cache=cache, about=about)
    write_run_file(directory.file("cards.json"), found.to_file())
