"""Compare conditions on held-out questions; each question is read once per condition.

1. The contexts of the split are made once, every item in both option orders. Every condition answers all of
   them.
2. Each condition has its own figures and its paired differences to the baseline, to the best manual prompt
   and to the mean of the neutral sentences (condition_results.py). The best manual prompt was chosen on
   *selection* questions. Without such rates it is the first one, never the best on these questions.
3. Holm's method corrects over the primary conditions, which are named in advance.
4. Off-target effects (`collateral`) are measured for every condition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from workbench.comparison.comparison import Comparison
from workbench.comparison.condition_results import (
    ConditionResult,
    make_entry,
    with_answer_bias,
    with_differences,
    with_holm,
)
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

#: Off-target measures by name: functions of the model and the condition (see off_target.py). A measure that
#: returns `OffTargetAnswers` instead of one figure can be tested in `claims`.
OffTargetMeasures = Mapping[str, Callable[[Any, Condition], float | OffTargetAnswers]]


@dataclass(frozen=True)
class ComparisonOptions:
    """Options of a comparison of conditions (prompts, steering and controls), and facts to record with it.

    Attributes:
        primary: Names of the conditions whose p-values Holm's method corrects together. None: all except no
            prompt, manual prompts, constant answers and other controls.
        orders: Orders in which the options are shown.
        seed: Seed of permutation tests and of random option orders.
        level: Coverage of the intervals.
        splits: Other splits of the study, whose sizes and hashes are recorded.
        collateral: Functions that measure side effects, by name (`OffTargetMeasures`).
        model_name: Recorded name of the model; None for the model's own name.

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
    """Measure every condition on every question of the split, with paired, cluster-robust statistics.

    Args:
        model: A loaded model or its runner.
        split: The questions, usually the test split.
        conditions: What is compared: `Condition`s (such as `Prompt`), texts of prompts, or prompts found by a
            search (`Candidate`, recorded as found by RESGA; use `Found` for another method). NoPrompt is
            added as the first condition if it is missing.
        slot: Place of the prompts in the chat template.
        baseline: Name of the condition that all are compared with.
        sign: Intended effect: "suppress" or "induce".
        metric: How answers are scored: "letters" or "text"; None for the persona's own metric.
        options: Conditions whose p-values are corrected together, seed, confidence level, and facts to
            record.

    Returns:
        Rate and log-odds of each condition, and differences to the baseline and to the best manual prompt,
        each with its interval and p-value.

    Raises:
        UserError: Two conditions have one name, a kind is not registered, or the baseline or a primary name
            is unknown.

    Example:
        >>> conditions = [wb.Prompt("be honest"), wb.Steering(direction, -2.0)]
        >>> comparison = wb.compare(model, data.test.take(6), conditions)
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
    matching = {item.id: item.matching for item in split}
    # With letters, both orders of the options cancel a preference.
    if contexts.metric == "text" and set(matching.values()) == {item.not_matching for item in split}:
        entries = with_answer_bias(entries, baseline, matching, options.level)
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
    """Return what comparison.json records of a split: number of items, number of groups, content hash."""
    return {"n": len(split), "groups": len(set(split.groups)), "hash": split.hash}


def _measure_all(
    model: Any, chosen: Sequence[Condition], contexts: Contexts, options: ComparisonOptions
) -> list[ConditionResult]:
    """Measure every condition once; a mean of prompts is computed from its members' answers."""
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
    """Compute the mean over the members of the log-odds in every context and of all off-target measures."""
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
    """Convert a text to a manual prompt and a search's candidate to a prompt; conditions stay as they are."""
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
