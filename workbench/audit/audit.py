"""`audit`: which words of your own prompt cause the persona, and the smallest edit that removes their effect.

The prompt's *effect* is the change of the answer's log-odds against no prompt (the bare question without the
slot); positive means more of the persona. Effects of words and of the minimal edit are measured on *test*
questions. A direction, where one is fitted, comes from the train and search splits, the minimal edit from
search and selection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from workbench.attribution import AttributionTargets, mediate
from workbench.attribution.attribution_targets import as_targets
from workbench.attribution.mediation import mediators
from workbench.audit.added_sentence import add_sentence
from workbench.audit.audit_result import Audit, Need
from workbench.audit.minimal_edit import EditGuard, find_minimal_edit
from workbench.audit.prompt_words import PromptWords
from workbench.audit.word_effects import ALPHA, PromptEffects, WordProblem, word_effects
from workbench.conditions.condition import signed
from workbench.contexts import Contexts, Slot, make_contexts
from workbench.directions import find_directions
from workbench.errors import UserError
from workbench.latents import rank_latents
from workbench.models import Runner, runner_for
from workbench.personas import Item, Persona, Sign, Split, Splits, load_persona
from workbench.personas.group_splits import shuffle_key
from workbench.sae import Sae
from workbench.statistics import Interval, cluster_interval, tost
from workbench.world import World


def audit(
    model: Any,
    prompt: str,
    persona: Persona | str,
    max_edits: int = 2,
    sign: Sign = "suppress",
    targets: Any = (),
    others: Sequence[Persona] | None = None,
    slot: Slot = "system",
    questions: int = 16,
    tolerance: float = 0.5,
    seed: int = 0,
) -> Audit:
    """Measure which words of a prompt cause the persona, and find the smallest edit that removes the effect.

    Args:
        model: A loaded model or its runner.
        prompt: Text of the prompt.
        persona: A `Persona` (a behaviour with questions that measure it), or the name of one.
        max_edits: Largest number of words that may be deleted or exchanged; 0 for no search for an edit.
        sign: Intended effect on the persona. "suppress": a prompt that raises the persona needs an edit.
            "induce": a prompt that lowers the persona needs one.
        targets: Directions or latents of the model; each word's effect on these is measured as well. `inside`
            finds some.
        others: Personas that the edit must not change. None means no persona, except on the organism (the
            small test model of this package), where it means the organism's other personas.
        slot: Place of the prompt in the chat template, such as "system".
        questions: Number of questions that are used from each split (search, selection, test).
        tolerance: An effect within +-tolerance log-odds counts as none; a word with an effect below half the
            tolerance is not called a cause.
        seed: Seed of the splits, of the choice of questions and of the orders of words from which Shapley
            values are sampled.

    Returns:
        The effect of the whole prompt and of each word, whether an edit is needed, and a fluent edit.

    Raises:
        UserError: The prompt is empty or too long, the persona is unknown, max_edits is below 0, the
            tolerance is not positive, or questions is below 2.

    Example:
        >>> found = wb.audit(model, "be blunt", persona, max_edits=0, questions=4, others=())
        >>> found.need in ("edit", "none", "helps", "unclear")
        True
    """
    signed(sign)
    if max_edits < 0 or not tolerance > 0 or questions < 2:
        raise UserError(
            f"expected max_edits >= 0, tolerance > 0 and questions >= 2, found {max_edits}, {tolerance} and {questions}"
        )
    runner, words = runner_for(model), PromptWords.of(prompt)
    persona = load_persona(persona) if isinstance(persona, str) else persona
    splits, wanted = persona.split(seed), _targets(targets)
    search, selection, test = (
        _problem(
            runner,
            words,
            make_contexts(runner, split, slot, n=questions, seed=seed),
            wanted if split.name == "test" else as_targets([]),
            seed,
        )
        for split in (splits.search, splits.selection, splits.test)
    )
    effects = word_effects(test, least=tolerance / 2)
    need = _need(selection, sign, tolerance)
    guards = _edit_guards(
        runner, persona, _others(persona) if others is None else others, slot, questions, seed
    )
    minimal_edit = (
        find_minimal_edit(search, selection, test, guards, max_edits, tolerance)
        if need == "edit" and max_edits
        else None
    )
    through = mediate(test.plain, mediators(wanted)) if len(wanted.items) > 1 else ()
    return Audit(
        words.only(range(len(words))),
        persona.name,
        _model_name(runner),
        sign,
        slot,
        tolerance,
        max_edits,
        seed,
        len(test.contexts),
        len(set(test.contexts.groups)),
        words,
        effects,
        need,
        minimal_edit,
        through,
        _notes(wanted, guards[0], effects),
    )


def offer_sentence(
    model: Any,
    found: Audit,
    persona: Persona | str,
    calls: float = 500,
    others: Sequence[Persona] | None = None,
    questions: int = 16,
) -> Audit:
    """Search for a sentence that cancels the audited prompt's effect when it is added after the prompt.

    This is done only if the audit says that an edit is needed and found none that suffices. Otherwise the
    audit is returned unchanged.

    Args:
        model: The model that was audited.
        found: The result of `audit`.
        persona: The persona of the audit.
        calls: Budget of the search in model calls (forward passes of one question). On a model of 135 million
            parameters, one call takes about 0.15 s on one core.
        others: Personas that the sentence must not change; None for the default of `audit`.
        questions: Number of questions that are used from each split (search, selection, test).

    Returns:
        The audit with the found sentence as `sentence`.

    Raises:
        UserError: The persona is not the audit's, or the search cannot begin (see `SentenceSearch`).

    Example:
        >>> found = wb.audit(model, "Always agree.", persona)  # doctest: +SKIP
        >>> offer_sentence(model, found, persona, calls=500).sentence  # doctest: +SKIP
    """
    persona = load_persona(persona) if isinstance(persona, str) else persona
    if persona.name != found.persona:
        raise UserError(f"the audit is of the persona {found.persona!r}, not of {persona.name!r}")
    if found.need != "edit" or (found.minimal_edit is not None and found.minimal_edit.suffices):
        return found
    runner, splits, words = runner_for(model), persona.split(found.seed), PromptWords.of(found.prompt)
    search, selection, test = (
        _problem(
            runner,
            words,
            make_contexts(runner, split, found.slot, n=questions, seed=found.seed),
            as_targets([]),
            found.seed,
        )
        for split in (splits.search, splits.selection, splits.test)
    )
    guards = _edit_guards(
        runner, persona, _others(persona) if others is None else others, found.slot, questions, found.seed
    )
    added = add_sentence((search, selection, test), guards, found.tolerance, found.sign, calls, found.seed)
    return replace(found, sentence=added)


def inside(
    model: Any, splits: Splits, sae: Sae | None = None, k: int = 8, slot: Slot = "system", seed: int = 0
) -> dict[str, Any]:
    """Find a direction and SAE latents of a persona inside the model, to be passed to `audit` as `targets`.

    The direction is fitted on the train split. Among layers and methods, the one is chosen whose projection
    best predicts the effects of prompts on search questions. It is left out if it does not pass the
    statistical checks of `find_directions`. The latents are those that best distinguish, on the train split,
    answers that show the persona from others.

    Args:
        model: A loaded model or its runner.
        splits: Splits of the persona's questions.
        sae: SAE of the latents; None for no latents.
        k: Number of latents.
        slot: Place of the prompt in the chat template, such as "system".
        seed: Seed of the choice of questions.

    Returns:
        The direction and the latents by name.

    Raises:
        UserError: As `find_directions` and `rank_latents`.
    """
    scan = find_directions(model, splits.train, splits.search, n=192, slot=slot, seed=seed)
    found: dict[str, Any] = (
        {} if scan.shown is False else {f"direction at layer {scan.best.site.layer}": scan.best}
    )
    if sae is not None:
        found |= {
            latent.name: latent
            for latent in rank_latents(model, sae, splits.train, k=k, slot=slot, seed=seed)
        }
    return found


def _targets(given: Any) -> AttributionTargets:
    """Convert the given targets, with the answer's log-odds first."""
    items = as_targets(given).items
    return AttributionTargets(tuple(sorted(items, key=lambda target: target.kind != "answer")))


def _problem(
    runner: Runner, words: PromptWords, contexts: Contexts, targets: AttributionTargets, seed: int
) -> WordProblem:
    problem = WordProblem.of(runner, words, contexts, targets, seed)
    longest = max(len(context.ids(problem.plain.prompt)) for context in contexts)
    if longest > runner.shape.n_ctx:
        raise UserError(
            f"the prompt makes a question of {longest} tokens: this model's context holds {runner.shape.n_ctx}"
        )
    return problem


def _need(selection: WordProblem, sign: Sign, tolerance: float) -> Need:
    effect = (selection.with_prompt - selection.without_prompt)[:, 0]
    groups = selection.contexts.groups
    if tost(effect, groups, -tolerance, tolerance).equivalent:
        return "none"
    interval: Interval = cluster_interval(effect, groups)
    if interval.low <= 0 <= interval.high:
        return "unclear"
    return "helps" if interval.estimate * signed(sign) > 0 else "edit"


def _edit_guards(
    runner: Runner, persona: Persona, others: Sequence[Persona], slot: Slot, questions: int, seed: int
) -> tuple[EditGuard, EditGuard]:
    """Build the harm checks for selection and for test.

    The true statements are divided into halves by question group; the other personas have their own splits.
    """
    ask = lambda split: make_contexts(runner, split, slot, n=questions, seed=seed)  # noqa: E731
    made = []
    for name, half in zip(("selection", "test"), _halves(persona.true_items, seed), strict=True):
        truth = ask(Split(f"true statements, {name}", half, persona)) if half else None
        made.append(EditGuard(truth, {other.name: ask(getattr(other.split(seed), name)) for other in others}))
    return made[0], made[1]


def _halves(items: Sequence[Item], seed: int) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    groups = sorted({item.group for item in items}, key=lambda group: shuffle_key(seed, group))
    first = set(groups[::2])
    return tuple(i for i in items if i.group in first), tuple(i for i in items if i.group not in first)


def _others(persona: Persona) -> list[Persona]:
    """Return the organism's other personas if this persona is one of them, otherwise none."""
    if any(item.source != "world" for item in persona.items):
        return []
    return [load_persona(name) for name in World().personas if name != persona.name]


def _model_name(runner: Runner) -> str:
    return str(getattr(runner.model.cfg, "model_name", None) or type(runner.model).__name__)


def _notes(targets: AttributionTargets, guard: EditGuard, effects: PromptEffects) -> tuple[str, ...]:
    kinds = {target.kind for target in targets.items}
    notes = []
    if "direction" not in kinds and "latent" not in kinds:
        notes.append(
            "No direction (none was given, or none is shown) and no latents: what the words move inside the model is not shown."
        )
    elif "latent" not in kinds:
        notes.append("No SAE was given: words are followed to the direction, not to latents.")
    if guard.truth is None:
        notes.append(
            "This persona has no true statements: whether an edit harms agreement with what is true was not checked."
        )
    if not guard.others:
        notes.append("No other persona was given: side effects on others were not checked.")
    if effects.estimator == "removal":
        notes.append(
            "A long prompt: a word's effect is that of leaving it out, which misses redundant words."
        )
    if any(word.p < ALPHA and word.interval.low <= 0 <= word.interval.high for word in effects.words):
        notes.append(
            "A small p next to an interval that holds zero: p flips the signs of whole question groups, the interval also has the error of the "
            "sampled orders of words. Such a word is not named."
        )
    if effects.whole.few:
        notes.append(
            f"Only {effects.whole.groups} groups of test questions: read the intervals as a rough guide."
        )
    return tuple(notes)
