"""Search for the smallest fluent edit that removes a prompt's effect and harms nothing else.

1. On *search* questions: delete each word, or exchange it for one of the words that the model finds likeliest
   after the text before it. An exchange must leave the same effect as deleting the same words, within half of
   the tolerance: a new word with the opposite effect would hide the cause, not remove it. Candidates whose
   cross-entropy exceeds the prompt's by more than `FLUENCY_RISE` nats per token are dropped. The `BEAM` sets
   of words whose edits leave the smallest effect are extended by a second word, and so on up to max_edits.
2. On *selection* questions the best edits of each size are tested, the smallest size first. The remaining
   effect must be within +-tolerance of no prompt (two one-sided tests, alpha 0.05). Agreement with true
   statements must not fall by more than `TRUTH_FALL` below that without a prompt. The effect on every other
   persona must not exceed that of the old prompt, in absolute size, by more than the tolerance.
3. The most fluent passing edit of the smallest size is the minimal edit. If none passes, the harmless edit
   with the smallest remaining effect is returned, and `suffices` is False.
4. *Test* questions are used once, for that edit alone, because an edit that is chosen from many looks
   slightly better on selection questions than it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from workbench.audit.prompt_words import PromptWords, WordPiece
from workbench.audit.word_effects import WordProblem
from workbench.conditions.prompt_cross_entropy import prompt_cross_entropies
from workbench.contexts import Contexts
from workbench.errors import UserError
from workbench.forced_choice import answer
from workbench.models import Runner, pad_right
from workbench.prompt_tokens import allowed_ids, encode_prompt
from workbench.statistics import EquivalenceTest, Interval, cluster_interval, rate_interval, tost

Edits = tuple[tuple[int, str | None], ...]
BEAM = 4
#: Number of words at which an exchange is tried (those whose deletion leaves the smallest effect), of likely
#: words tried at each, and of edits of each size that are tested on selection questions.
PLACES, SWAPS, FINALISTS = 6, 10, 6
#: A longer word is not inserted if the prompt already contains it elsewhere.
LONGEST_REPEATED = 3
TRUTH_FALL, FLUENCY_RISE = 0.1, 0.5


@dataclass(frozen=True)
class OffTargetChange:
    """A side effect of a prompt on something other than its persona, before and after an edit.

    Attributes:
        name: What is measured.
        kind: "truth": fraction of true statements that the model agrees with. "persona": effect on another
            persona, in log-odds.
        bare: Value without a prompt; 0 for "persona", because effects are relative to no prompt.
        before: Value under the old prompt.
        after: Value under the edited prompt.
        harmed: Whether the change is larger than `EditRule` allows.
    """

    name: str
    kind: str
    bare: float
    before: Interval
    after: Interval
    harmed: bool


@dataclass(frozen=True)
class MinimalEdit:
    """The smallest edit that removes a prompt's effect on a persona, with its effects on test questions.

    Attributes:
        changes: For each edited word, its index and the text that replaces it (without punctuation); None if
            it is deleted.
        text: The edited prompt.
        pieces: The text with tracked changes.
        remaining: Effect of the edited prompt on the persona against no prompt, in log-odds.
        change: Log-odds with the edited prompt minus log-odds with the old one, paired by question.
        equivalence: Equivalence test of the remaining effect on test questions.
        suffices: Whether the edit passed all criteria on the questions on which it was chosen.
        cross_entropy: Cross-entropy of the prompt before and after the edit, nats per token.
        collateral: Side effects of the edited prompt.
        tried: Number of edits that were scored.
    """

    changes: Edits
    text: str
    pieces: tuple[WordPiece, ...]
    remaining: Interval
    change: Interval
    equivalence: EquivalenceTest
    suffices: bool
    cross_entropy: tuple[float, float]
    collateral: tuple[OffTargetChange, ...]
    tried: int


@dataclass(frozen=True)
class EditGuard:
    """Questions on which an edit of a prompt should change nothing, to detect harm.

    Attributes:
        truth: True statements, with which the model should still agree; None for no check.
        others: Questions of other personas, by the persona's name, whose answers should not change.
    """

    truth: Contexts | None = None
    others: Mapping[str, Contexts] = field(default_factory=dict)


@dataclass(frozen=True)
class _Candidate:
    changes: Edits
    ids: tuple[int, ...]
    text: str
    remaining: float = 0.0
    cross_entropy: float = 0.0


def find_minimal_edit(
    search: WordProblem,
    selection: WordProblem,
    test: WordProblem,
    guards: tuple[EditGuard, EditGuard],
    max_edits: int,
    tolerance: float,
) -> MinimalEdit | None:
    """Find the smallest fluent edit of a prompt that removes its effect on a persona.

    Args:
        search: The prompt on the questions that edits are searched on.
        selection: The prompt on the questions that the edit is chosen on.
        test: The prompt on the questions that the chosen edit is measured on.
        guards: Questions that detect harm to other behaviour: for the choice and for the final measurement.
        max_edits: Largest number of edited words.
        tolerance: An effect within +-tolerance log-odds counts as none.

    Returns:
        The edit; None if there is no edit to try, such as for a one-word prompt without a fluent replacement.
    """
    cross_entropy = _cross_entropy(search, [search.plain.prompt])[0]
    rule = EditRule(selection, guards[0], tolerance)
    chosen, suffices, tried = _choose(
        rule, _sizes(search, max_edits, cross_entropy + FLUENCY_RISE, tolerance / 2)
    )
    if chosen is None:
        return None
    bare, before, after = test.of_ids([None, test.plain.prompt, chosen.ids])[:, :, 0]
    groups = test.contexts.groups
    return MinimalEdit(
        chosen.changes,
        chosen.text,
        search.words.tracked(dict(chosen.changes)),
        cluster_interval(after - bare, groups),
        cluster_interval(after - before, groups),
        tost(after - bare, groups, -tolerance, tolerance),
        suffices,
        (cross_entropy, chosen.cross_entropy),
        EditRule(test, guards[1], tolerance).collateral(chosen.ids),
        tried,
    )


def _sizes(
    search: WordProblem, max_edits: int, worst: float, slack: float
) -> Iterator[tuple[list[_Candidate], int]]:
    """Yield, for one edit, two edits and so on, the scored candidates and how many were scored.

    The candidates have a cross-entropy of at most `worst`, and their new words alone have an effect of at
    most `slack`. Those that leave the smallest effect come first. A size is only scored when the iterator is
    advanced.
    """
    bare = search.without_prompt[:, 0].mean()
    beam: list[Edits] = [()]
    for _ in range(min(max_edits, len(search.words))):
        proposed = _score(
            search, bare, {edits for start in beam for edits in _deletions(search.words, start)}
        )
        places = list(
            dict.fromkeys(_last(c, start) for c in proposed for start in beam if _extends(c.changes, start))
        )[:PLACES]
        if len(search.words) == 1:
            places = [0]
        swapped = _score(search, bare, set(_exchanges(search, beam, places)))
        scored = sorted([*proposed, *_idle(search, bare, swapped, slack)], key=_left)
        cross_entropies = _cross_entropy(search, [c.ids for c in scored])
        fluent = [
            replace(c, cross_entropy=nats)
            for c, nats in zip(scored, cross_entropies, strict=True)
            if nats <= worst
        ]
        yield fluent, len(proposed) + len(swapped)
        beam = _beam(fluent)


def _beam(candidates: Sequence[_Candidate]) -> list[Edits]:
    """Return the first BEAM candidates that change different sets of words."""
    distinct: dict[frozenset[int], Edits] = {}
    for candidate in candidates:
        distinct.setdefault(frozenset(i for i, _ in candidate.changes), candidate.changes)
    return list(distinct.values())[:BEAM]


def _left(candidate: _Candidate) -> tuple[float, Edits]:
    return abs(candidate.remaining), tuple((i, word or "") for i, word in candidate.changes)


def _extends(changes: Edits, start: Edits) -> bool:
    return len(changes) == len(start) + 1 and set(start) <= set(changes)


def _last(candidate: _Candidate, start: Edits) -> int:
    return next(i for i, _ in candidate.changes if i not in dict(start))


def _deletions(words: PromptWords, start: Edits) -> Iterator[Edits]:
    taken = dict(start)
    for i in range(len(words)):
        if i not in taken and sum(change is None for change in taken.values()) + 1 < len(words):
            yield tuple(sorted([*start, (i, None)], key=lambda change: change[0]))


def _exchanges(search: WordProblem, beam: Sequence[Edits], places: Sequence[int]) -> Iterator[Edits]:
    wanted = [(start, i) for start in beam for i in places if i not in dict(start)]
    for (start, i), cores in zip(
        wanted, likely_words(search, [(dict(start), i) for start, i in wanted]), strict=True
    ):
        others = {
            word.core.casefold()
            for j, word in enumerate(search.words.items)
            if j != i and dict(start).get(j, word.core) is not None
        }
        for core in cores:
            if len(core) > LONGEST_REPEATED and core.casefold() in others:
                continue  # "be honest and honest" is no edit that anybody would make
            yield tuple(sorted([*start, (i, core)], key=lambda change: change[0]))


@torch.no_grad()
def likely_words(search: WordProblem, wanted: Sequence[tuple[dict[int, str | None], int]]) -> list[list[str]]:
    """Find the words that could replace a word of a prompt: those that the model finds likeliest there.

    At most SWAPS words are returned for each position. A word is a single token of letters that begins a
    word, is capitalised like the old word and differs from it.

    Args:
        search: The prompt with its questions; the model reads the first question's text before the prompt,
            then the prompt up to the word.
        wanted: For each position, the changes already made to the prompt and the index of the word to
            replace.

    Returns:
        Words for each position, the likeliest first.
    """
    if not wanted:
        return []
    runner, words = search.runner, search.words
    lefts = [words.left_of(i, changes) for changes, i in wanted]
    rows = [runner.encode(search.contexts[0].prefix_text + left.rstrip()) for left in lefts]
    ids = pad_right([tuple(row) for row in rows]).to(runner.device)
    resid, _ = runner.run(runner.embed(ids), 0, runner.shape.n_layers)
    last = torch.tensor([len(row) - 1 for row in rows], device=runner.device)
    logits = runner.logits(resid[torch.arange(len(rows), device=last.device), last]).cpu()
    order = (
        logits.masked_fill(~allowed_ids(runner).cpu(), -torch.inf)
        .topk(min(20 * SWAPS, logits.shape[-1]), dim=-1)
        .indices.tolist()
    )
    return [
        _fitting(runner, row, tokens, left, words.items[i].core)
        for row, tokens, left, (_, i) in zip(rows, order, lefts, wanted, strict=True)
    ]


def _fitting(runner: Runner, row: Sequence[int], tokens: Sequence[int], left: str, old: str) -> list[str]:
    found: list[str] = []
    base = runner.decode(row[-1:])
    spaced = bool(left) and left[-1:].isspace()
    for token in tokens:
        text = runner.decode([*row[-1:], token]).removeprefix(base)
        core = text.strip()
        begins = text[:1].isspace() or not spaced
        same_case = core[:1].isupper() == old[:1].isupper() and (
            len(core) == 1 or not core[1:].isupper() or old.isupper()
        )
        if (
            begins
            and core.isalpha()
            and same_case
            and core.casefold() != old.casefold()
            and core not in found
        ):
            found.append(core)
        if len(found) == SWAPS:
            break
    return found


def _score(search: WordProblem, bare: float, edits: set[Edits]) -> list[_Candidate]:
    """Score the edits that survive in the template by their remaining effect, smallest first."""
    candidates = [c for one in sorted(edits, key=str) if (c := _candidate(search, one)) is not None]
    if not candidates:
        return []
    left = search.of_ids([c.ids for c in candidates])[:, :, 0].mean(axis=1) - bare
    scored = [
        _Candidate(c.changes, c.ids, c.text, float(value)) for c, value in zip(candidates, left, strict=True)
    ]
    return sorted(scored, key=_left)


def _candidate(search: WordProblem, edits: Edits) -> _Candidate | None:
    text = search.words.edited(dict(edits))
    try:
        return _Candidate(edits, encode_prompt(search.runner, search.contexts, text), text)
    except UserError:  # the edit's tokens would merge with the template, or no text remains
        return None


def _idle(search: WordProblem, bare: float, swapped: Sequence[_Candidate], slack: float) -> list[_Candidate]:
    """Return the exchanges that leave the same effect as deleting the same words, within +-slack."""
    kept = [tuple(i for i in search.prompt if i not in dict(c.changes)) for c in swapped]
    distinct = list(dict.fromkeys(kept))
    without = dict(zip(distinct, search.scores(distinct)[:, :, 0].mean(axis=1) - bare, strict=True))
    return [c for c, words in zip(swapped, kept, strict=True) if abs(c.remaining - without[words]) <= slack]


def _cross_entropy(search: WordProblem, prompts: Sequence[tuple[int, ...]]) -> list[float]:
    return prompt_cross_entropies(search.runner, search.contexts, prompts, n_prefixes=2)


@dataclass(frozen=True)
class EditRule:
    """Criteria that an edit of a prompt must fulfil on one set of questions.

    Attributes:
        problem: The prompt with the questions of the persona.
        guard: True statements and questions of other personas, which detect side effects.
        tolerance: Allowed remaining effect, and allowed increase of the effect on another persona, in
            log-odds.
    """

    problem: WordProblem
    guard: EditGuard
    tolerance: float

    def within(self, candidates: Sequence[_Candidate]) -> list[tuple[_Candidate, EquivalenceTest]]:
        """Test for each candidate edit whether its remaining effect is within +-tolerance of no prompt."""
        scores = self.problem.of_ids([c.ids for c in candidates])[:, :, 0] - self.problem.without_prompt[:, 0]
        groups = self.problem.contexts.groups
        return [
            (c, tost(left, groups, -self.tolerance, self.tolerance))
            for c, left in zip(candidates, scores, strict=True)
        ]

    def collateral(self, ids: tuple[int, ...]) -> tuple[OffTargetChange, ...]:
        """Measure a prompt's side effects: agreement with true statements first, then the other personas.

        Args:
            ids: Token ids of the prompt.
        """
        found = [] if self.guard.truth is None else [self._truth(self.guard.truth, ids)]
        return (*found, *(self._other(name, contexts, ids) for name, contexts in self.guard.others.items()))

    def harmless(self, ids: tuple[int, ...]) -> bool:
        """Whether a prompt harms neither the agreement with true statements nor another persona.

        Args:
            ids: Token ids of the prompt.
        """
        return not any(entry.harmed for entry in self.collateral(ids))

    def _truth(self, contexts: Contexts, ids: tuple[int, ...]) -> OffTargetChange:
        bare, before, after = (
            answer(self.problem.runner, contexts, prompt) for prompt in (None, self.problem.plain.prompt, ids)
        )
        intervals = [rate_interval(a.chose_matching, contexts.groups) for a in (before, after)]
        return OffTargetChange(
            "agreement with true statements",
            "truth",
            bare.rate,
            *intervals,
            harmed=after.rate < bare.rate - TRUTH_FALL,
        )

    def _other(self, name: str, contexts: Contexts, ids: tuple[int, ...]) -> OffTargetChange:
        bare, before, after = (
            answer(self.problem.runner, contexts, prompt).log_odds
            for prompt in (None, self.problem.plain.prompt, ids)
        )
        intervals = [
            cluster_interval(np.asarray(values - bare), contexts.groups) for values in (before, after)
        ]
        harmed = abs(intervals[1].estimate) > abs(intervals[0].estimate) + self.tolerance
        return OffTargetChange(name, "persona", 0.0, *intervals, harmed=harmed)


def _choose(
    rule: EditRule, sizes: Iterable[tuple[Sequence[_Candidate], int]]
) -> tuple[_Candidate | None, bool, int]:
    """Choose the most fluent edit of the smallest size that passes all criteria.

    If none passes, the harmless edit with the smallest remaining effect is chosen. Returns the edit, whether
    it passed, and how many edits were scored.
    """
    rest: list[tuple[_Candidate, EquivalenceTest]] = []
    tried = 0
    for candidates, scored in sizes:
        tried += scored
        near = [c for c in candidates if abs(c.remaining) < rule.tolerance]
        finalists = list(
            dict.fromkeys([*candidates[:FINALISTS], *sorted(near, key=lambda c: c.cross_entropy)[:FINALISTS]])
        )
        judged = rule.within(finalists) if finalists else []
        for candidate, _ in sorted(
            (pair for pair in judged if pair[1].equivalent), key=lambda pair: pair[0].cross_entropy
        ):
            if rule.harmless(candidate.ids):
                return candidate, True, tried
        rest += judged
    ordered = [c for c, _ in sorted(rest, key=lambda pair: abs(pair[1].interval.estimate))]
    return (
        next((c for c in ordered[:FINALISTS] if rule.harmless(c.ids)), ordered[0] if ordered else None),
        False,
        tried,
    )
