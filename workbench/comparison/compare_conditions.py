"""The comparison of conditions on held-out questions, each read once.

1. Contexts of the split are made once, every item in both option orders; every condition answers all of them.
2. Each condition's figures, its paired difference to the baseline, to the best manual prompt and to the mean
   of the neutral sentences (condition_results.py). Which manual prompt is best was decided on *selection*;
   without such a figure it is the first one, never the one that looks best here.
3. Holm over the primary conditions, which are named before anything is read.
4. Off-target effects (`collateral`) are measured for every condition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from workbench.comparison.comparison import Comparison
from workbench.comparison.condition_results import ConditionResult, make_entry, with_differences, with_holm
from workbench.comparison.off_target import OffTargetAnswers
from workbench.conditions import CONDITION_KINDS, Condition, MeanOfPrompts, NoPrompt, Prompt
from workbench.conditions.condition import signed
from workbench.conditions.prompt_cross_entropy import prompt_cross_entropy
from workbench.contexts import Contexts, Metric, Orders, Slot, make_contexts
from workbench.errors import UserError
from workbench.forced_choice import package
from workbench.models import runner_for
from workbench.personas import Sign, Split
from workbench.prompt_tokens import encode_prompt
from workbench.search import Candidate

#: Measured next to the effect, for each condition: a name and a function of the model and the condition. See
#: off_target.py; what gives `OffTargetAnswers` instead of a figure can be tested for (`claims`).
OffTargetMeasures = Mapping[str, Callable[[Any, Condition], float | OffTargetAnswers]]


@dataclass(frozen=True)
class ComparisonOptions:
    """How a comparison is made and what is recorded with it.

    Attributes:
        primary: Names of the conditions that the study is about (Holm's correction); None: all that are
            neither controls nor there to compare with (no prompt, constant answers, manual prompts).
        orders: Orders in which options are shown.
        seed: Of permutations and of drawn contexts.
        level: Of the intervals.
        splits: The study's splits, to be recorded next to the one read.
        collateral: Off-target effects to measure (`OffTargetMeasures`).
        model_name: As it is recorded; None: the model's own.

    Example:
        >>> wb.ComparisonOptions(level=0.9).orders
        'both'
    """

    primary: Sequence[str] | None = None
    orders: Orders = "both"
    seed: int = 0
    level: float = 0.95
    splits: Sequence[Split] = ()
    collateral: OffTargetMeasures | None = None
    model_name: str | None = None


def compare(
    model: Any,
    split: Split,
    conditions: Sequence[Any],
    slot: Slot = "system",
    baseline: str = "no prompt",
    sign: Sign = "suppress",
    metric: Metric | None = None,
    options: ComparisonOptions | None = None,
) -> Comparison:
    """Every condition on every question of the split, with paired cluster-robust statistics.

    Args:
        model: A loaded model or its runner.
        split: The questions, usually the test split.
        conditions: `Condition`s, texts, or a search's `Candidate` (counted as kind "resga": use `Found` to
            say another); NoPrompt is put first where it is missing.
        slot: Where prompts are put.
        baseline: Name of the condition that all are compared with.
        sign: What is wanted, "suppress" or "induce".
        metric: "letters" or "text"; the persona's own when None.
        options: Primary conditions, seed, level, and what is recorded.

    Returns:
        Rate and log-odds of each condition, differences to the baseline and to the best manual prompt, each
        with its interval and p-value.

    Raises:
        UserError: Two conditions of one name, a kind that is not registered, or an unknown baseline or
            primary name.

    Example:
        >>> comparison = wb.compare(model, data.test.take(6), [wb.Prompt("be honest"), wb.Steering(direction, -2.0)])
        >>> comparison["manual: be honest"].rate.estimate < comparison["no prompt"].rate.estimate
        True
    """
    signed(sign)
    options = options or ComparisonOptions()
    chosen = _conditions(conditions)
    names = [condition.name for condition in chosen]
    primary = (
        tuple(options.primary)
        if options.primary is not None
        else tuple(c.name for c in chosen if CONDITION_KINDS[c.kind].is_tested)
    )
    _check_names(names, baseline, primary)
    contexts = make_contexts(model, split, slot, metric, options.orders, seed=options.seed)
    entries = _measure_all(model, chosen, contexts, options)
    manual, neutral = (
        _best_manual(chosen),
        next((c.name for c in chosen if isinstance(c, MeanOfPrompts)), None),
    )
    others = list(dict.fromkeys(name for name in (baseline, manual, neutral) if name is not None))
    entries = with_holm(with_differences(entries, others, options.level, options.seed), primary)
    facts = {s.name: split_facts(s) for s in (*options.splits, split)}
    name = options.model_name or _model_name(model)
    return Comparison(
        tuple(entries),
        split.persona.name,
        name,
        sign,
        contexts.metric,
        slot,
        options.seed,
        split.name,
        facts,
        baseline,
        manual,
        primary,
        neutral,
        tuple(split),
        tuple(split.persona.true_items),
    )


def split_facts(split: Split) -> dict[str, Any]:
    """A split as comparison.json names it: items, groups, and the hash of its content."""
    return {"n": len(split), "groups": len(set(split.groups)), "hash": split.hash}


def _measure_all(
    model: Any, chosen: Sequence[Condition], contexts: Contexts, options: ComparisonOptions
) -> list[ConditionResult]:
    """Every condition's figures; a mean of prompts is made of its members' answers, each measured once."""
    done: dict[int, ConditionResult] = {}

    def measured(condition: Condition) -> ConditionResult:
        if id(condition) not in done:
            members = (
                [measured(member) for member in condition.members]
                if isinstance(condition, MeanOfPrompts)
                else []
            )
            done[id(condition)] = (
                _mean(condition, members, contexts, options.level)
                if members
                else _measure(model, condition, contexts, options.level, options.collateral or {})
            )
        return done[id(condition)]

    return [measured(condition) for condition in chosen]


def _mean(
    condition: Condition, members: Sequence[ConditionResult], contexts: Contexts, level: float
) -> ConditionResult:
    """The mean of the members' log-odds in every context, and of what else they move."""
    answers = package(contexts, np.mean([member.answers.log_odds for member in members], axis=0))
    off_target = {
        name: float(np.mean([member.collateral[name] for member in members]))
        for name in members[0].collateral
    }
    return replace(make_entry(condition, answers, contexts.metric == "letters", level), collateral=off_target)


def _measure(
    model: Any, condition: Condition, contexts: Contexts, level: float, collateral: OffTargetMeasures
) -> ConditionResult:
    entry = make_entry(condition, condition.answer(model, contexts), contexts.metric == "letters", level)
    measured = {name: measure(model, condition) for name, measure in collateral.items()}
    answered = {name: found for name, found in measured.items() if isinstance(found, OffTargetAnswers)}
    figures = {
        name: found.figure if isinstance(found, OffTargetAnswers) else float(found)
        for name, found in measured.items()
    }
    entry = replace(entry, collateral=figures, off_target=answered)
    if condition.prompt is None:
        return entry
    cross_entropy = (
        condition.cross_entropy
        if condition.cross_entropy is not None
        else prompt_cross_entropy(model, contexts, condition.prompt)
    )
    tokens = len(encode_prompt(model, contexts, condition.prompt))
    return replace(entry, cross_entropy=cross_entropy, prompt_tokens=tokens)


def _conditions(given: Sequence[Any]) -> list[Condition]:
    chosen = [_as_condition(one) for one in given]
    if not any(condition.kind == "none" for condition in chosen):
        chosen.insert(0, NoPrompt())
    return sorted(chosen, key=lambda condition: condition.kind != "none")


def _as_condition(given: Any) -> Condition:
    """A condition as it is; a text as a manual prompt; what a search found as a prompt with its fluency."""
    if isinstance(given, Condition):
        CONDITION_KINDS[given.kind]  # a UserError that lists the known ones
        return given
    if isinstance(given, str):
        return Prompt(given)
    if isinstance(given, Candidate):
        found: dict[str, Any] = {"cross_entropy": given.cross_entropy, "selection_rate": given.selection_rate}
        return Prompt(given.text, "found prompt", "resga", "found by search", **found)
    raise UserError(f"expected a condition, a prompt or a text, found {type(given).__name__}")


def _best_manual(conditions: Sequence[Condition]) -> str | None:
    manual = [c for c in conditions if c.kind == "manual"]
    chosen = [c for c in manual if c.selection_rate is not None]
    return (chosen or manual)[0].name if manual else None


def _check_names(names: Sequence[str], baseline: str, primary: Sequence[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"two conditions are named {repeated[0]!r}: give each a name of its own")
    for role, name in [("baseline", baseline), *(("primary condition", name) for name in primary)]:
        if name not in names:
            raise UserError(f"the {role} {name!r} is none of the conditions: {', '.join(names)}")


def _model_name(model: Any) -> str:
    runner = runner_for(model)
    return str(getattr(runner.model.cfg, "model_name", None) or type(runner.model).__name__)
