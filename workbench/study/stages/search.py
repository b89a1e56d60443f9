"""The stages of a study: each a function of values, and each with its files. run.py puts them in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool
from pydantic import ValidationError
from torch import Tensor

from workbench.conditions import BuildContext, CapabilityGuard, Condition, SearchContext, build_conditions, search_objectives, true_contexts
from workbench.conditions.prompt_cross_entropy import prompt_cross_entropy
from workbench.contexts import Contexts, encode_prompt, lexicon, make_contexts
from workbench.directions import Direction, LayerScan, find_directions, random_directions
from workbench.errors import UserError
from workbench.latents import LatentRanking, rank_latents
from workbench.models import load_model, runner_for
from workbench.objectives import Objective, hold_direction, projection
from workbench.personas import Persona, Split, Splits, load_persona
from workbench.sae import Sae, load_sae
from workbench.search import SEARCH_METHODS, Checkpoint, Frontier, Optimizations, SearchMethod, SearchProgress, search
from workbench.study.study_settings import Study
from workbench.world import World


@dataclass(frozen=True)
class Material:
    """What a study works on: model, persona, limited splits, and (made on first use) its contexts."""

    study: Study
    model: Any
    persona: Persona
    splits: Splits

    @classmethod
    def load(cls, study: Study, model: Any = None) -> Material:
        """Loads everything that the study names. A loaded model can be given (sweeps load it once)."""
        persona = study.protocol.persona(load_persona(study.persona, study.data.path, study.data.world))
        if study.metric is not None:
            persona = replace(persona, metric=study.metric)
        splits = persona.split(study.data.split_seed, study.data.fractions)
        limited = {s.name: _limited(s, getattr(study.data, f"{s.name}_items"), study.data.split_seed) for s in splits_of(splits)}
        options = study.model
        if model is None:
            model = load_model(options.name, options.device, options.dtype, options.backend, options.revision)
        return cls(study, model, persona, study.protocol.splits(Splits(**limited)))

    @cached_property
    def search_contexts(self) -> Contexts:
        """What every prompt of a search along directions or latents is scored on: the search questions, or nothing at all."""
        return self.search_questions if self.study.protocol.search_behind == "questions" else _alone(self.model, self.search_questions)

    @cached_property
    def search_questions(self) -> Contexts:
        """One search question a group, as many as the study asks for."""
        every = self._contexts(self.splits.search)
        n = self.study.search.contexts
        chosen = every.per_group(n, self.study.seed)
        return chosen if len(chosen) >= min(n, len(every)) else every.take(n, self.study.seed)

    @cached_property
    def selection_contexts(self) -> Contexts:
        """All contexts of the selection split."""
        return self._contexts(self.splits.selection)

    @cached_property
    def guard(self) -> CapabilityGuard:
        """What steering may cost on selection data; agreement with true statements counts where the persona has any."""
        split = self.splits.selection
        if not self.persona.true_items:
            return CapabilityGuard()
        return CapabilityGuard(truth=true_contexts(self.model, split, self.study.slot, self.study.data.selection_items or 60))

    def _contexts(self, split: Split) -> Contexts:
        return make_contexts(self.model, split, self.study.slot, self.study.metric, self.study.protocol.orders, seed=self.study.seed)


def _alone(model: Any, contexts: Contexts) -> Contexts:
    """One context in which a prompt stands behind the first token of a text and before nothing; its last token is read."""
    tokenizer = runner_for(model).tokenizer
    start = tokenizer.bos_token or tokenizer.eos_token
    ids = (tokenizer.convert_tokens_to_ids(start),)
    return replace(contexts, items=(replace(contexts[0], prefix_text=start, suffix_text="", prefix_ids=ids, suffix_ids=()),))


def splits_of(splits: Splits) -> tuple[Split, Split, Split, Split]:
    """train, search, selection, test."""
    return splits.train, splits.search, splits.selection, splits.test


def _limited(split: Split, n: int | None, seed: int) -> Split:
    return split if n is None else split.take(n, seed)


@dataclass(frozen=True)
class ChosenDirections:
    """The chosen direction, and the random ones as controls."""

    best: Direction
    randoms: tuple[Direction, ...]


def scan(material: Material) -> LayerScan:
    """Sweep of layers and methods on train and search data."""
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
        orders=study.protocol.orders,
    )


def controls(study: Study, found: LayerScan) -> tuple[Direction, ...]:
    """Random directions with the residuals' covariance, one sign each."""
    if study.random_directions == 0:
        return ()
    return random_directions(found.best, found.activations, study.random_directions, study.seed, both_signs=False)


def sae_of(material: Material) -> Sae | None:
    """The study's sparse autoencoder, or None where it has none."""
    name = material.study.sae
    if name == "none" or (name == "auto" and material.study.model.name != "organism"):
        return None
    return load_sae("organism" if name == "auto" else name, material.model)


def latents(material: Material, sae: Sae) -> LatentRanking:
    """Latents ranked by how well they tell the model's own choices apart; as published, all beyond a percentile at the answer."""
    study = material.study
    options: dict[str, Any] = {"k": study.latents, "slot": study.slot, "seed": study.seed, "orders": study.protocol.orders}
    if study.protocol.latents == "percentile":
        options |= {"rule": "percentile", "labels": "answer"}
    return rank_latents(material.model, sae, material.splits.train, n=study.directions.rows, texts=study.attribution.texts, **options)


def objectives(study: Study, directions: ChosenDirections, sae: Sae | None, ranked: LatentRanking | None) -> dict[str, tuple[Objective, str]]:
    """Searches by name: the objective (plus = more of the persona, not yet calibrated) and the method's name."""
    return search_objectives(study.conditions, SearchContext(study, directions.best, directions.randoms, sae, ranked))


def make_method(study: Study, name: str) -> SearchMethod:
    """The registered method with the study's options (those that it has)."""
    kind, options = SEARCH_METHODS[name], study.search.options
    if name != study.search.method:
        options = {k: v for k, v in options.items() if k in kind.model_fields and k not in ("population", "children")} | _shared(kind, options)
    try:
        return kind(**options)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"search.options.{'.'.join(map(str, first['loc']))}: {first['msg']} (found {first.get('input')!r})") from error


def _shared(kind: type[SearchMethod], options: Mapping[str, Any]) -> dict[str, Any]:
    """Population and children for a control method: the same, unless the method keeps one prompt (then all children are its own)."""
    if kind.keeps_one_prompt:
        return {"children": options.get("population", 8) * options.get("children", 32)}
    return {k: options[k] for k in ("population", "children") if k in options and not kind.any_length}


def run_search(
    material: Material, objective: Objective, method: str, checkpoint: Checkpoint | None, on_step: Callable[[SearchProgress], None] | None
) -> Frontier:
    """One search in the study's sign, its objective calibrated on neutral prompts."""
    study, s = material.study, material.study.search
    contexts = material.search_contexts if objective.sites else material.search_questions  # an objective on the answer needs a question
    scaled = objective.calibrate(material.model, contexts, n=s.neutral, length=make_method(study, method).length, seed=study.seed)
    goal = scaled if study.sign == "induce" else -scaled
    return search(
        material.model,
        goal,
        contexts,
        with_limit(material, contexts, started(material, contexts, make_method(study, method))),
        s.budget,
        study.seed,
        optimizations=Optimizations(halving=s.halving),
        batch_tokens=s.batch_tokens,
        lexicon=lexicon_of(material),
        on_step=on_step,
        checkpoint=checkpoint,
    )


def started(material: Material, contexts: Contexts, method: SearchMethod) -> SearchMethod:
    """The method, begun from the persona's first manual prompt where the study asks for it, repeated or cut to the method's length."""
    if material.study.search.start == "random":
        return method
    prompts = material.persona.manual_prompts.get(material.study.sign, ())
    if not prompts:
        raise UserError(f"persona {material.persona.name!r} has no manual prompt to {material.study.sign} that a search could start from")
    if method.any_length:
        return method.model_copy(update={"start_text": prompts[0]})
    ids = encode_prompt(material.model, contexts, prompts[0])
    filled = (ids * -(-method.length // len(ids)))[: method.length]
    return method.model_copy(update={"start_text": runner_for(material.model).decode(filled)})


def with_limit(material: Material, contexts: Contexts, method: SearchMethod) -> SearchMethod:
    """A search over sentences with its limit: the study's `max_fluency`, or the mean cross-entropy of the persona's manual prompts."""
    if "max_cross_entropy" not in type(method).model_fields or "max_cross_entropy" in material.study.search.options:
        return method
    limit, prompts = material.study.search.max_fluency, material.persona.manual_prompts.get(material.study.sign, ())
    if limit is None and prompts:
        limit = float(np.mean([prompt_cross_entropy(material.model, contexts, prompt) for prompt in prompts]))
    return method if limit is None else method.model_copy(update={"max_cross_entropy": limit})


def beside_directions(material: Material) -> tuple[Direction, ...]:
    """The direction of every persona that the study names beside its own, found on that persona's data as the study's own was."""
    return tuple(scan(other).best for other in besides(material))


def besides(material: Material) -> list[Material]:
    """The material of the personas beside the study's own (the organism's by name, others by their files): same model, same settings."""
    data = material.study.data.model_copy(update={"path": None})
    studies = [material.study.model_copy(update={"persona": name, "data": data, "beside": {}}) for name in material.study.beside]
    return [Material.load(study, material.model) for study in studies]


def with_besides(study: Study, objective: Objective, others: Sequence[Direction]) -> Objective:
    """The objective and, for each other persona, what is wanted of its direction's z-scored reading; `run_search` turns the whole by
    the study's sign, so the others' terms are turned against it here."""
    turn = study.beside_weight if study.sign == "induce" else -study.beside_weight
    for wanted, direction in zip(study.beside.values(), others, strict=True):
        term = hold_direction(direction) if wanted == "hold" else projection(direction) * (1.0 if wanted == "induce" else -1.0)
        objective = objective + turn * term
    return objective


def lexicon_of(material: Material) -> Bool[Tensor, " d_vocab"] | None:
    """Tokens of the organism's ordinary words where the study asks for them ("auto" on the organism); None for all tokens."""
    wanted = material.study.search.lexicon
    if wanted == "all" or (wanted == "auto" and material.study.model.name != "organism"):
        return None
    return lexicon(material.model, World(material.study.data.world).lexicon.ordinary_words)


def choose(material: Material, found: Mapping[str, Frontier]) -> dict[str, Frontier]:
    """Every frontier measured on the selection split, its best prompt marked (as published: its five most fluent ones on test)."""
    limit = material.study.search.max_fluency
    if material.study.protocol.choose_on == "test":
        found = {name: replace(frontier, candidates=frontier.candidates[:5]) for name, frontier in found.items()}
    return {name: frontier.choose(material.model, material.selection_contexts, limit) for name, frontier in found.items()}


def make_conditions(
    material: Material, directions: ChosenDirections, sae: Sae | None, ranked: LatentRanking | None, chosen: Mapping[str, Frontier]
) -> list[Condition]:
    """All conditions of the study, fitted on train and search data and chosen on selection; nothing here sees the test split."""
    context = BuildContext(
        material.study,
        directions.best,
        directions.randoms,
        sae,
        ranked,
        model=material.model,
        persona=material.persona,
        splits=material.splits,
        search_questions=material.search_questions,
        selection_contexts=material.selection_contexts,
        guard=material.guard,
        chosen=chosen,
    )
    return build_conditions(material.study.conditions, context)


def best_search(study: Study, chosen: Mapping[str, Frontier]) -> str | None:
    """The search whose prompt is attributed: of the study's primary ones (of all, where none is primary) the best on selection, as in the
    report's headline; ties go by order."""
    wanted = 1 if study.sign == "induce" else -1

    def rate(name: str) -> float:
        best = next((c for c in chosen[name].candidates if c.chosen), None)
        return wanted * best.selection_rate if best is not None and best.selection_rate is not None else -np.inf

    return max([name for name in study.primary if name in chosen] or list(chosen), key=rate, default=None)
