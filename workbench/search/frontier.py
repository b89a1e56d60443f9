"""Results of a search: the prompts that no other one beats on both objective and fluency."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from jaxtyping import Float

from workbench.budget import Cost
from workbench.contexts import Contexts, Metric, Slot, make_contexts
from workbench.errors import UserError
from workbench.forced_choice import Answers, answer, answer_prompts
from workbench.html_text import ShowsFacts, ShowsTable
from workbench.personas import Split
from workbench.runs import write_run_file, write_table
from workbench.schema import CandidateEntry, CostEntry, FrontierFile, HistoryRow, SearchFile, SearchTimes
from workbench.statistics import cluster_interval

#: Fraction of the best prompt's effect that a shorter version of it may lack in the choice of a short prompt.
_NEGLIGIBLE = 0.05


@dataclass(frozen=True, repr=False)
class Candidate(ShowsFacts):
    """A found prompt with its scores, computed from its final text.

    Attributes:
        ids: Token ids.
        text: Decoded text of the ids.
        objective: The search's objective, mean over its questions (higher is better).
        cross_entropy: Mean cross-entropy of the prompt's tokens, nats per token (lower is more fluent).
        selection_rate: Fraction of the selection split's questions (questions that the search did not use) to
            which the model gives the matching answer, the one that shows the persona; None before
            `Frontier.choose`.
        selection_log_odds: Mean log-odds (nats) of the matching answer on the selection split; None before
            `Frontier.choose`.
        chosen: Whether `Frontier.choose` marked this candidate as the best.

    Example:
        >>> wb.Candidate(ids=(5, 6), text="be honest", objective=1.2, cross_entropy=3.4).chosen
        False
    """

    ids: tuple[int, ...]
    text: str
    objective: float
    cross_entropy: float
    selection_rate: float | None = None
    selection_log_odds: float | None = None
    chosen: bool = False

    def facts(self) -> tuple[str, dict[str, object]]:
        """Return a title and the measured scores as a dictionary, for display."""
        scores = {
            "objective": self.objective,
            "cross-entropy": self.cross_entropy,
            "selection rate": self.selection_rate,
        }
        measured = {name: value for name, value in scores.items() if value is not None}
        return f"Candidate {self.text!r}{', chosen' if self.chosen else ''}", measured


@dataclass(frozen=True, repr=False)
class Frontier(ShowsTable):
    """The result of a search: prompts that no other one beats on both objective and cross-entropy.

    Attributes:
        candidates: The found prompts, most fluent first.
        history: Table with one row per step: step, seconds, model_calls, best_objective, best_cross_entropy,
            candidates (prompts scored so far), population (different prompts kept for the next step),
            frontier (prompts on the frontier).
        cost: Token-layers, FLOPs, model calls and seconds of the search.
        method: Name of the search method.
        seed: Seed of the search.
        sign: -1 if the objective suppresses the persona, else 1.
        slot: Place in the chat where the prompts are inserted, such as the system message.
        metric: How the model answers a question: with an option letter (`letters`) or with the answer's text
            (`text`).
        interrupted: Whether the user ended the search (Ctrl-C).
        objective: The objective as plain data (kinds, weights, sites, scales; a vector is replaced by its
            hash).
        warnings: Warnings of the search itself, one line each.

    Example:
        >>> method = wb.RandomSearch(length=4, population=2, children=4)
        >>> found = wb.search(model, -wb.answer_log_odds(), contexts, method, wb.Budget(steps=2))
        >>> found.select(model, data.selection.take(4)).chosen
        True
    """

    candidates: tuple[Candidate, ...]
    history: pd.DataFrame
    cost: Cost
    method: str
    seed: int
    sign: int
    slot: Slot
    metric: Metric
    interrupted: bool = False
    objective: Any = None
    warnings: tuple[str, ...] = ()

    @property
    def best(self) -> Candidate:
        """The prompt with the highest objective."""
        return max(self.candidates, key=lambda c: c.objective)

    @property
    def table(self) -> pd.DataFrame:
        """Table with one row per found prompt: its text and its scores.

        The selection split has questions that the search did not use; the prompts' results on it
        (`selection_rate`, `selection_log_odds`) are missing until `choose` is called.
        """
        columns = {
            "prompt": "text",
            "objective": "objective",
            "cross_entropy": "cross_entropy",
            "selection_rate": "selection_rate",
            "selection_log_odds": "selection_log_odds",
            "chosen": "chosen",
        }
        return pd.DataFrame([{new: getattr(c, old) for new, old in columns.items()} for c in self.candidates])

    def choose(
        self,
        model: Any,
        split: Split | Contexts,
        max_cross_entropy: float | None = None,
        truth: Contexts | None = None,
        truth_fall: float = 0.03,
        shortest: bool = False,
    ) -> Frontier:
        """Measure every found prompt on the selection split and mark the best one.

        The selection split has questions that the search did not use. The best prompt increases the mean
        log-odds of the matching answer (the one that shows the persona) most, or decreases them most if the
        search suppresses the persona.

        Args:
            model: The model of the search, or its runner.
            split: The selection split, or its questions as contexts (`make_contexts`).
            max_cross_entropy: Only prompts of at most this cross-entropy (nats per token) can be the best;
                None for all.
            truth: Questions on true statements (`true_contexts`). If given, prompts are tried from the best
                on, and the first is taken that is not shown to lose more than `truth_fall` of the statements that
                the model affirms (`shown_above`). If there is none, it is the prompt that loses least. Only prompts
                with at least half of the best one's effect are tried, as one without effect loses nothing.
            truth_fall: Largest accepted loss of affirmed true statements, as a fraction of all of them.
            shortest: Take the prompt with the fewest tokens among those that are about as good as the best
                one. These are the prompts within one standard error of it (paired differences, standard error
                over question groups; the one-standard-error rule of Breiman et al. 1984), and those that are
                the best prompt with a part left out, if the part has at most a twentieth of its effect.

        Returns:
            A copy of this frontier with the results on the selection split and one candidate marked as
            `chosen`.

        Raises:
            UserError: No candidate has a cross-entropy of at most `max_cross_entropy`.
        """
        contexts = (
            split
            if isinstance(split, Contexts)
            else make_contexts(model, split, slot=self.slot, metric=self.metric)
        )
        answers = answer_prompts(model, contexts, [c.ids for c in self.candidates])
        measured = [
            replace(c, selection_rate=found.rate, selection_log_odds=float(np.mean(found.log_odds)))
            for c, found in zip(self.candidates, answers, strict=True)
        ]
        admitted = [
            i
            for i, c in enumerate(measured)
            if max_cross_entropy is None or c.cross_entropy <= max_cross_entropy
        ]
        if not admitted:
            raise UserError(
                f"no candidate has a cross-entropy of at most {max_cross_entropy} nats: the lowest has {measured[0].cross_entropy:.2f}"
            )
        ranked = sorted(admitted, key=lambda i: -self.sign * (measured[i].selection_log_odds or 0.0))
        if shortest or truth is not None:
            bare = float(np.mean(answer(model, contexts).log_odds))
            strong = _strong(ranked, measured, self.sign, bare)
            if shortest:
                ranked = _shortest_first(ranked, measured, answers, self.sign, bare)
            ranked = [i for i in ranked if i in strong]
        best = ranked[0] if truth is None else _truthful(model, truth, ranked, measured, truth_fall)
        return replace(self, candidates=tuple(replace(c, chosen=i == best) for i, c in enumerate(measured)))

    def select(
        self,
        model: Any,
        split: Split | Contexts,
        max_cross_entropy: float | None = None,
        truth: Contexts | None = None,
        truth_fall: float = 0.03,
        shortest: bool = False,
    ) -> Candidate:
        """Measure every found prompt on the selection split and return the best one.

        The selection split has questions that the search did not use. The rules for the best prompt are those
        of `choose`.

        Args:
            model: The model of the search, or its runner.
            split: The selection split, or its questions as contexts (`make_contexts`).
            max_cross_entropy: Only prompts of at most this cross-entropy (nats per token) can be the best;
                None for all.
            truth: Questions on true statements, which the best prompt must not make the model deny; None for
                no such rule.
            truth_fall: Largest accepted loss of affirmed true statements, as a fraction of all of them.
            shortest: Take the shortest prompt among those that are about as good as the best one.
        """
        return next(
            c
            for c in self.choose(model, split, max_cross_entropy, truth, truth_fall, shortest).candidates
            if c.chosen
        )

    def to_file(self) -> SearchFile:
        """Return the search as the contents of its file in a run directory, search/NAME.json.

        NAME is the search's name; search/frontier.json has the same entry. Times are left out (see `times`),
        so that equal runs write equal files.
        """
        return SearchFile(
            method=self.method,
            slot=self.slot,
            metric=self.metric,
            seed=self.seed,
            sign=self.sign,
            interrupted=self.interrupted,
            objective=self.objective,
            warnings=list(self.warnings),
            candidates=[_candidate_entry(c) for c in self.candidates],
            cost=CostEntry(**self.cost.to_json() | {"seconds": None}),
        )

    @property
    def times(self) -> SearchTimes:
        """The search's entry in timings.json: total seconds, and seconds until the end of each step."""
        return SearchTimes(
            seconds=self.cost.seconds,
            steps=self.history["seconds"].tolist() if "seconds" in self.history else [],
        )

    @classmethod
    def from_file(cls, file: SearchFile, history: pd.DataFrame, times: SearchTimes | None = None) -> Frontier:
        """Rebuild the result of a search from the files of a run.

        Args:
            file: The result of `to_file`.
            history: The rows of this search in search/history.parquet.
            times: The search's entry in timings.json; None if unknown.
        """
        cost, times = file.cost or CostEntry(), times or SearchTimes()
        if "seconds" not in history and len(times.steps) == len(history):
            history = history.assign(seconds=times.steps)
        backward = cost.token_layers_backward or 0.0
        spent = Cost(
            forward=(cost.token_layers or 0.0) - backward,
            backward=backward,
            flops=cost.flops or 0.0,
            model_calls=cost.model_calls or 0.0,
            seconds=times.seconds or cost.seconds or 0.0,
            repeated=cost.token_layers_repeated or 0.0,
        )
        candidates = tuple(_candidate(c) for c in file.candidates)
        asked = {
            "slot": cast(Slot, file.slot),
            "metric": cast(Metric, file.metric),
            "seed": file.seed or 0,
            "sign": file.sign,
        }
        more = {
            "interrupted": file.interrupted,
            "objective": file.objective,
            "warnings": tuple(file.warnings),
        }
        return cls(candidates, history, spent, file.method, **asked, **more)

    @property
    def _caption(self) -> str:
        return f"{self.method}, seed {self.seed}: objective against cross-entropy (nats per token; lower is more fluent)"

    def shown_table(self) -> tuple[str, pd.DataFrame]:
        """Return a caption and the table of found prompts for display.

        The most fluent prompt comes first. Empty columns are left out.
        """
        return self._caption, self.table.dropna(axis=1, how="all")


def write_frontiers(directory: Path, searches: Mapping[str, Frontier]) -> None:
    """Write the results of all searches of a run to search/frontier.json and search/history.parquet.

    Args:
        directory: The run directory.
        searches: The results by the searches' names; their histories follow one another in one table.
    """
    (directory / "search").mkdir(exist_ok=True)  # a study without a search has not made it
    parts = [
        frontier.history.drop(columns="seconds", errors="ignore").assign(search=name)
        for name, frontier in searches.items()
    ]
    history = (
        pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(HistoryRow.model_fields))
    )
    write_run_file(
        directory / "search/frontier.json",
        FrontierFile(searches={name: found.to_file() for name, found in searches.items()}),
    )
    write_table(directory / "search/history.parquet", history, HistoryRow)


def _candidate_entry(candidate: Candidate) -> CandidateEntry:
    """Entry of a candidate in a file; the cross-entropy keeps the key `fluency` for external readers."""
    fields: dict[str, Any] = {
        ("fluency" if name == "cross_entropy" else name): value for name, value in vars(candidate).items()
    }
    fields["ids"] = list(candidate.ids)
    return CandidateEntry(**fields)


def _candidate(entry: CandidateEntry) -> Candidate:
    fields: dict[str, Any] = {
        ("cross_entropy" if name == "fluency" else name): value for name, value in entry
    }
    fields["ids"] = tuple(entry.ids)
    return Candidate(**fields)


def _strong(ranked: Sequence[int], candidates: Sequence[Candidate], sign: int, bare: float) -> set[int]:
    """Return the candidates with at least half of the first one's effect on the selection split, and the first."""
    effects = {i: sign * ((candidates[i].selection_log_odds or 0.0) - bare) for i in ranked}
    return {ranked[0], *(i for i in ranked if effects[i] >= effects[ranked[0]] / 2)}


def _shortest_first(
    ranked: Sequence[int], candidates: Sequence[Candidate], answers: Sequence[Answers], sign: int, bare: float
) -> list[int]:
    """Reorder ranked candidates: those that are about as good as the first by length, then the others."""
    best = ranked[0]
    first, negligible = answers[best], _NEGLIGIBLE * abs(float(np.mean(answers[best].log_odds)) - bare)

    def level(i: int) -> bool:
        less, groups = sign * (first.log_odds - answers[i].log_odds), np.array(first.group)
        means = np.array([less[groups == group].mean() for group in sorted(set(first.group))])
        within = len(means) > 1 and float(means.mean()) <= float(means.std(ddof=1)) / len(means) ** 0.5
        part = _has_part_left_out(candidates[i].text, candidates[best].text)
        return i == best or within or (part and float(less.mean()) <= negligible)

    return sorted(ranked, key=lambda i: len(candidates[i].ids) if level(i) else np.inf)


def _has_part_left_out(short: str, long: str) -> bool:
    """Whether one text is the other with one part left out: at the beginning, in the middle or at the end."""
    ahead = next((i for i, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    return 0 < len(short) < len(long) and long.endswith(short[ahead:])


def _truthful(
    model: Any, truth: Contexts, ranked: Sequence[int], candidates: Sequence[Candidate], fall: float
) -> int:
    """Return the first ranked candidate that is not shown to lose more agreement with true statements than `fall`.

    If all are, return the one that loses least.
    """
    bare = answer(model, truth)
    losses: dict[int, float] = {}
    for i in ranked:
        found = answer(model, truth, candidates[i].ids)
        lost = (bare.log_odds > 0).astype(float) - (found.log_odds > 0)
        losses[i] = float(lost.mean())
        if not shown_above(lost, bare.group, fall):
            return i
    return min(losses, key=lambda i: losses[i])


def shown_above(lost: Float[np.ndarray, " statement"], groups: Sequence[Hashable], fall: float) -> bool:
    """Whether statements show that a loss exceeds an accepted one.

    The loss is shown if the lower end of its one-sided 95 % interval, clustered by group, is above the accepted
    loss. A rule on the loss itself would refuse prompts almost at random: with 36 statements, one more or less is
    three percentage points. With statements of a single group, the loss itself is compared.

    Args:
        lost: For each true statement, 1 if the model affirms it only without the prompt, -1 if only with it, else
            0.
        groups: Question group of each statement.
        fall: The accepted loss, as a fraction of all statements.

    Example:
        >>> wb.search.frontier.shown_above(np.array([1.0, 0.0, 0.0, 0.0]), ["a", "a", "b", "b"], 0.03)
        False
    """
    interval = cluster_interval(lost, list(groups), level=0.9)
    return (interval.low if interval.groups > 1 else interval.estimate) > fall + 1e-9
