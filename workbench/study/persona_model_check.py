"""Check a persona on a model before any search: biases, metrics that can show an effect, refusals.

Search and selection questions are used; the test split is never read.

1. *Letters*: the preference for the option shown first (log-odds), and how often both orders of a question
   choose the same answer. A model that follows only the letter has an agreement near 0, and no prompt can
   show the persona by letters.
2. *Text*: how many answers begin with the same token (they are scored on all tokens), and how much the
   log-odds depend on the answers' lengths.
3. *Can show*: the written prompts (or some varied system texts) are put into the slot. A metric can show an
   effect if one of them changes the mean log-odds significantly (intervals over question groups exclude zero,
   corrected for the number of prompts).
4. *Minimum detectable effect*: from the spread of these changes and the test split's number of groups, the
   mean change of log-odds that a two-sided test at 5 % finds in 80 % of studies.
5. *Metric of a run*: if a study names no metric, the persona's own is used if it can show an effect, else the
   other one if that can.
6. *Refusals*: all checks of the data that `run` makes. `run` also stops if its scan of layers and methods shows
   no direction; the scan is slow on a large model, and made only on request (direction_check.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from workbench.contexts import Contexts, Metric, Slot, make_contexts
from workbench.directions import LayerScan
from workbench.directions.activation_sampling import deal_texts
from workbench.errors import UserError
from workbench.forced_choice import Answers, answer
from workbench.html_text import ShowsTable
from workbench.models import Runner, runner_for
from workbench.personas import Persona, Split, Splits
from workbench.prompt_tokens import encode_prompt
from workbench.statistics import Interval, cluster_interval, spearman
from workbench.statistics.cluster_moments import moments
from workbench.statistics.power import minimum_detectable_effect_from_spread
from workbench.study.study_settings import DataSettings, DirectionSettings

#: Note of a check without a scan.
NOT_SCANNED = (
    "a study also stops if no direction is shown: not tested here, `workbench persona check FILE --model NAME "
    "--directions` tests it"
)
#: Number of prompts of each sign under which each metric is tried.
PROMPTS = 2


@dataclass(frozen=True)
class MetricCheck:
    """Check whether one way to score answers ("letters" or "text") can show a persona on a model.

    Attributes:
        metric: "letters" (the letters of two options) or "text" (the answers' full texts).
        log_odds: Mean log-odds of the answer that shows the persona, without a prompt.
        position_bias: Mean log-odds of the option shown first, which is a bias; None for "text".
        agreement: Fraction of questions with the same answer in both orders of the options; None for "text".
        alike: Fraction of questions whose two answers begin with the same token.
        length: Rank correlation of the log-odds with the answers' difference in length (tokens); None if all
            answers are equally long.
        changes: Change of the mean log-odds under each of a few system prompts that should show or suppress
            the persona.
        smallest: Minimum detectable effect on the test split in log-odds; None with fewer than 2 question
            groups.
    """

    metric: Metric
    log_odds: Interval
    position_bias: float | None
    agreement: float | None
    alike: float
    length: float | None
    changes: dict[str, Interval]
    smallest: float | None

    @property
    def shows(self) -> bool:
        """Whether one of the tried prompts changes the log-odds by an interval that excludes zero."""
        return any(not change.low <= 0 <= change.high for change in self.changes.values())

    @property
    def strength(self) -> float:
        """How clearly the tried prompts change the log-odds.

        It is the largest ratio of a change to the half-width of its 95 % interval.
        """
        return max(
            (abs(c.estimate) / max((c.high - c.low) / 2, 1e-12) for c in self.changes.values()), default=0.0
        )

    def rows(self) -> list[tuple[str, str, str]]:
        """Return the rows of a table about this metric, each as (name of the figure, value, explanation)."""
        name, found = (
            self.metric,
            [(f"{self.metric}: log-odds", f"{self.log_odds}", "of the persona's answer without a prompt")],
        )
        if self.position_bias is not None and self.agreement is not None:
            found.append(
                (
                    f"{name}: first option",
                    f"{self.position_bias:+.2f}",
                    "log-odds of the option shown first: the bias of letter and place",
                )
            )
            found.append(
                (
                    f"{name}: both orders agree",
                    f"{100 * self.agreement:.0f} %",
                    "near 0 %: the letter alone decides; chance is 50 %",
                )
            )
        else:
            length = "equally long" if self.length is None else f"{self.length:+.2f}"
            found.append(
                (
                    f"{name}: begin alike",
                    f"{100 * self.alike:.0f} %",
                    "answers that begin with the same token; they are scored whole",
                )
            )
            found.append(
                (
                    f"{name}: length",
                    length,
                    "rank correlation of the log-odds with the answers' difference in tokens",
                )
            )
        for prompt, change in self.changes.items():
            found.append((f"{name}: change", f"{change}", f"under {prompt[:60]!r}"))
        smallest = "none" if self.smallest is None else f"{self.smallest:.2f}"
        found.append(
            (
                f"{name}: minimum detectable effect",
                smallest,
                "mean change of log-odds on the test split (80 % power)",
            )
        )
        return [
            *found,
            (f"{name}: can show something", "yes" if self.shows else "no", "a prompt moves it clear of zero"),
        ]


@dataclass(frozen=True, repr=False)
class PersonaModelCheck(ShowsTable):
    """Result of a check whether a persona can be measured on a model.

    Attributes:
        persona: Name of the persona.
        metrics: Checks of each way to score answers: letters of options, full texts.
        refusals: Reasons for which `workbench run` would refuse the persona; empty if it accepts the persona.
        default: The metric that the persona's file names.
        scan: Scan over layers and methods that a study with default settings makes; None if it was not made
            (`direction_check.add_directions` makes it).
    """

    persona: str
    metrics: tuple[MetricCheck, ...]
    refusals: tuple[str, ...]
    default: Metric
    scan: LayerScan | None = None

    @property
    def recommended(self) -> Metric:
        """The metric that a study should use.

        It is the persona's own metric, unless only the other one can show an effect of a prompt on this
        model.
        """
        shown: dict[Metric, float] = {m.metric: m.strength for m in self.metrics if m.shows}
        return self.default if self.default in shown or not shown else max(shown, key=shown.__getitem__)

    @property
    def notes(self) -> tuple[str, ...]:
        """The recommended metric and the scan's verdict in words, then reasons for which a run would be refused."""
        shown = [m.metric for m in self.metrics if m.shows]
        if not self.metrics:
            advice: tuple[str, ...] = ()
        elif not shown:
            advice = (
                "no metric shows anything on this model: no written prompt moves an answer clear of zero",
            )
        else:
            other = (
                ""
                if self.recommended == self.default
                else f" (the file's own is {self.default}: set metric: {self.recommended})"
            )
            advice = (f"use the metric {self.recommended}{other}",)
        return (*advice, *self._on_directions, *(f"run would refuse: {refusal}" for refusal in self.refusals))

    @property
    def _on_directions(self) -> tuple[str, ...]:
        """The verdict of the scan, unless it is a refusal; without a scan how it can be made."""
        if self.scan is not None:
            return () if self.scan.shown is False else (self.scan.verdict,)
        return () if self.refusals else (NOT_SCANNED,)

    @property
    def table(self) -> pd.DataFrame:
        """Table of all figures of the check, one row each, with the columns what, value and meaning."""
        rows = [row for metric in self.metrics for row in metric.rows()]
        if self.scan is not None:
            shown = {True: "yes", False: "no", None: "not tested"}[self.scan.shown]
            meaning = (
                f"{len(self.scan.table)} layers and methods, as a study with default settings scans them"
            )
            rows.append(("direction shown", shown, meaning))
        return pd.DataFrame(rows, columns=["what", "value", "meaning"])

    def shown_table(self) -> tuple[str, pd.DataFrame]:
        """Return the table of the check with a caption that gives its recommendation."""
        return f"{self.persona} on this model: {'; '.join(self.notes)}", self.table


def choose_metric(model: Any, persona: Persona, asked: Split, slot: Slot = "system") -> tuple[Metric, str]:
    """Choose how a study scores answers: by the letters of two options or by the answers' full texts.

    The persona's own metric is kept if one of its prompts changes the log-odds significantly by that metric.
    Otherwise the other metric is taken, if a prompt changes the log-odds by that one.

    Args:
        model: A loaded model or its runner.
        persona: The persona; if its questions have no lettered options, only texts are possible.
        asked: Questions for these measurements, which must not be test questions.
        slot: Place of the prompts in the chat template.

    Returns:
        The metric, and the reason in one line.
    """
    own, prompts = persona.metric, _prompts(persona)
    if persona.letters is None or not prompts or asked.n_groups < 2:
        return own, f"{own}: the persona's own"
    if (found := _metric(runner_for(model), asked, asked, own, slot)).shows:
        return own, f"{own}: the persona's own, and a written prompt moves it ({_clearest(found)})"
    other: Metric = "text" if own == "letters" else "letters"
    tried = _tried([], lambda: _metric(runner_for(model), asked, asked, other, slot))
    if tried is not None and tried.shows:
        return (
            other,
            f"{other}: no written prompt moves the persona's own metric ({own}) clear of zero, and one moves this ({_clearest(tried)})",
        )
    return own, f"{own}: the persona's own; no written prompt moves an answer clear of zero by either metric"


def _clearest(found: MetricCheck) -> str:
    """Format the clearest change of a metric in log-odds with its interval."""
    change = max(found.changes.values(), key=lambda c: abs(c.estimate) / max(c.high - c.low, 1e-12))
    return f"{change.estimate:+.2f} log-odds, {change.low:+.2f} to {change.high:+.2f}"


def check_on_model(
    model: Any, persona: Persona, slot: Slot = "system", n: int = 24, seed: int = 0
) -> PersonaModelCheck:
    """Check whether a persona can be measured on a model, with the default settings of a study.

    Args:
        model: A loaded model or its runner.
        persona: The persona.
        slot: Place of the prompts in the chat template, such as "system".
        n: Largest number of questions, from the search and the selection split together.
        seed: Seed of the choice of questions.
    """
    runner, refusals = runner_for(model), []
    splits = _tried(refusals, lambda: persona.split(DataSettings().split_seed, DataSettings().fractions))
    if splits is None:
        return PersonaModelCheck(persona.name, (), tuple(refusals), persona.metric)
    refusals += _refused(runner, persona, splits, slot)
    asked = replace(
        splits.search, name="search and selection", items=(*splits.search.items, *splits.selection.items)
    ).take(n, seed)
    metrics: list[Metric] = ["text"] if persona.letters is None else ["letters", "text"]
    found = [
        _tried([], lambda metric=metric: _metric(runner, asked, splits.test, metric, slot))
        for metric in metrics
    ]
    return PersonaModelCheck(
        persona.name, tuple(m for m in found if m is not None), tuple(dict.fromkeys(refusals)), persona.metric
    )


def _tried(refusals: list[str], made: Callable[[], Any]) -> Any:
    """Call a function; if it raises UserError, add the message to the refusals and return None."""
    try:
        return made()
    except UserError as error:
        refusals.append(str(error))
        return None


def _refused(runner: Runner, persona: Persona, splits: Splits, slot: Slot) -> list[str]:
    """List the reasons for which a run would stop, such as prompts that do not fit the slot."""
    refusals: list[str] = []
    every = (splits.train, splits.search, splits.selection, splits.test)
    made = [_tried(refusals, lambda split=split: make_contexts(runner, split, slot)) for split in every]
    _tried(refusals, lambda: deal_texts(persona.varied_system_texts, DirectionSettings().texts, 0))
    written = [text for side in persona.manual_prompts.values() for text in side]
    for contexts in (c for c in made if c is not None):
        for text in dict.fromkeys((*persona.varied_system_texts, *written)):
            _tried(refusals, lambda contexts=contexts, text=text: _fits(runner, contexts, text))
    return refusals


def _fits(runner: Runner, contexts: Contexts, text: str) -> None:
    ids = encode_prompt(runner, contexts, text)
    longest = max(len(c.sequence(ids)) for c in contexts.branched)
    if longest > runner.shape.n_ctx:
        raise UserError(
            f"the text {text[:40]!r} makes a question of {longest} tokens: this model's context holds {runner.shape.n_ctx}"
        )


def _metric(runner: Runner, split: Split, test: Split, metric: Metric, slot: Slot) -> MetricCheck:
    contexts = make_contexts(runner, split, slot, metric)
    bare = answer(runner, contexts)
    prompts = _prompts(split.persona)
    level = 1 - 0.05 / max(1, len(prompts))
    under = {prompt: answer(runner, contexts, prompt).log_odds - bare.log_odds for prompt in prompts}
    spread = max(
        (moments(change, bare.group).standard_error for change in under.values()), default=0.0
    ) * np.sqrt(len(set(bare.group)))
    both = metric == "letters"
    return MetricCheck(
        metric,
        cluster_interval(bare.log_odds, bare.group),
        float(np.where(bare.matching_first, bare.log_odds, -bare.log_odds).mean()) if both else None,
        _agreement(bare) if both else None,
        float(np.mean([c.answers[0][0] == c.answers[1][0] for c in contexts])),
        _length(contexts, bare),
        {prompt: cluster_interval(change, bare.group, level) for prompt, change in under.items()},
        minimum_detectable_effect_from_spread(float(spread), test.n_groups)
        if under and test.n_groups > 1
        else None,
    )


def _prompts(persona: Persona) -> Sequence[str]:
    written = [text for side in persona.manual_prompts.values() for text in side[:PROMPTS]]
    return tuple(dict.fromkeys(written or persona.varied_system_texts[: 2 * PROMPTS]))


def _agreement(answers: Answers) -> float:
    """Return the fraction of items whose two orders choose the same answer."""
    chosen: dict[str, set[bool]] = {}
    for item, matching in zip(answers.item_id, answers.chose_matching, strict=True):
        chosen.setdefault(item, set()).add(bool(matching))
    return float(np.mean([len(choices) == 1 for choices in chosen.values()]))


def _length(contexts: Contexts, answers: Answers) -> float | None:
    difference = np.array([len(c.answers[0]) - len(c.answers[1]) for c in contexts], dtype=float)
    return None if np.ptp(difference) == 0 else spearman(difference, answers.log_odds)
