"""Questions rendered around a slot, the place in the chat where the prompt goes; `contexts` makes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from workbench.answer_tokens import AnswerBranch, answer_branches
from workbench.html_text import ShowsFacts, ShowsTable
from workbench.personas import Item
from workbench.personas.balanced_draws import (
    balanced_sets,
    balanced_within_groups_only,
    least_tilted,
    share_answers,
    tilt,
)

Slot = Literal["system", "before_question", "after_question", "answer_opening"]
Metric = Literal["letters", "text"]
Orders = Literal["both", "original", "random"]


@dataclass(frozen=True, repr=False)
class Context(ShowsFacts):
    """One question rendered in the chat template: `prefix_ids` + prompt ids + `suffix_ids` are its token ids.

    Attributes:
        item: The question with its two answers.
        matching_first: Whether the matching option (the answer that shows the persona) is shown first.
        prefix_text: Text left of the slot, the place where the prompt goes.
        suffix_text: Text right of the slot.
        prefix_ids: Token ids left of the slot.
        suffix_ids: Token ids right of the slot; the last one is the decision token, after which the answer
            begins.
        bare_ids: Token ids of the same question rendered without the slot ("no prompt").
        answers: Token ids after the decision token, of the matching and of the not matching answer.
        weights: Weight of each token of the two answers in the answer's score (1 unless a normalization says
            otherwise).
        offsets: Numbers added to the two scores, in nats (0 unless a normalization says otherwise).
        branch: Number of one of the sequences from which long answers are scored (`answer_tokens`), if this
            context is only that sequence. None: the context as a whole.
        n_branches: Number of such sequences of the question.
        lead: White space between `prefix_text` and the prompt that belongs to the prompt's first token, as
            with most tokenizers.

    Example:
        >>> context = contexts[0]
        >>> context.ids((5, 6)) == (*context.prefix_ids, 5, 6, *context.suffix_ids)
        True
    """

    item: Item
    matching_first: bool
    prefix_text: str
    suffix_text: str
    prefix_ids: tuple[int, ...]
    suffix_ids: tuple[int, ...]
    bare_ids: tuple[int, ...]
    answers: tuple[tuple[int, ...], tuple[int, ...]]
    weights: tuple[float, float] = (1.0, 1.0)
    offsets: tuple[float, float] = (0.0, 0.0)
    branch: int | None = None
    n_branches: int = 1
    lead: str = ""

    def facts(self) -> tuple[str, dict[str, object]]:
        """Return what a notebook shows: the question, its answers and the text around the slot."""
        asked = self.item
        item: dict[str, object] = {
            "question": asked.question,
            "matching": asked.matching,
            "not matching": asked.not_matching,
            "group": asked.group,
        }
        return "Context", item | {"left of the prompt": self.prefix_text, "right of it": self.suffix_text}

    def around(self, prompt: str) -> str:
        """Return the whole text of the chat with a prompt's text in the slot."""
        return self.prefix_text + self.lead + prompt + self.suffix_text

    @property
    def one_token(self) -> bool:
        """Whether the log-odds are the difference of two logits at the last token before the answer.

        This holds if both answers are single tokens and their scores are not normalised (weight 1, offset 0).
        """
        return (
            all(len(a) == 1 for a in self.answers)
            and self.weights == (1.0, 1.0)
            and self.offsets == (0.0, 0.0)
        )

    @property
    def branches(self) -> tuple[AnswerBranch, ...]:
        """The one or two token sequences from which the scores of the two answers are read."""
        return answer_branches(self.answers, self.weights)

    @property
    def tail(self) -> tuple[int, ...]:
        """Ids of answer tokens that are run after the question, to score an answer of several tokens."""
        return self._own.tail

    @property
    def reads(self) -> tuple[tuple[int, int, float, float], ...]:
        """The answer tokens that this token sequence scores, with their weights in the two answers' scores.

        The entries are as in `AnswerBranch`. If the answers are scored from two sequences (branches), the
        weights are doubled, so that the mean over both is the log-odds.
        """
        n = self.n_branches
        return tuple((place, token, n * mine, n * other) for place, token, mine, other in self._own.reads)

    @property
    def _own(self) -> AnswerBranch:
        found = () if self.branch is None else self.branches
        return found[self.branch] if self.branch is not None and self.branch < len(found) else AnswerBranch()

    def sequence(self, prompt_ids: Sequence[int] | None) -> tuple[int, ...]:
        """Return all token ids to run: the text up to the last token before the answer, then answer tokens.

        The answer tokens are those that must be run to score an answer of several tokens. `prompt_ids` None
        means no prompt.
        """
        return (*self.ids(prompt_ids), *self.tail)

    @property
    def after_prompt(self) -> tuple[int, ...]:
        """All token ids that are run after the prompt: the text after it, then answer tokens to be scored."""
        return (*self.suffix_ids, *self.tail)

    def ids(self, prompt_ids: Sequence[int] | None) -> tuple[int, ...]:
        """Return the token ids up to the last one before the answer; prompt_ids None means no prompt."""
        return self.bare_ids if prompt_ids is None else (*self.prefix_ids, *prompt_ids, *self.suffix_ids)


@dataclass(frozen=True, repr=False)
class Contexts(ShowsTable, Sequence[Context]):
    """The questions of one split, rendered for one model, slot and metric; `make_contexts` makes them.

    Attributes:
        items: The contexts.
        slot: Where the prompt goes: "system", "before_question", "after_question" or "answer_opening".
        metric: Kind of answers: "letters" or "text".
        split_name: Name of the split that the questions come from.

    Example:
        >>> len(contexts) == len(contexts.groups)
        True
    """

    items: tuple[Context, ...]
    slot: Slot
    metric: Metric
    split_name: str

    def __len__(self) -> int:
        return len(self.items)

    @property
    def _caption(self) -> str:
        kinds = f"{len(self)} contexts in {len(set(self.groups))} groups of {self.split_name}"
        return f"{kinds}: metric {self.metric}, prompt in the slot {self.slot}"

    def shown_table(self) -> tuple[str, pd.DataFrame]:
        """Return a caption and a table of the first five questions, to show in a notebook."""
        columns = ("question", "matching", "not_matching", "group")
        rows = pd.DataFrame([{name: getattr(c.item, name) for name in columns} for c in self.items[:5]])
        return f"{self._caption}; the first {min(5, len(self))}:", rows

    def __getitem__(self, index: Any) -> Any:
        return replace(self, items=self.items[index]) if isinstance(index, slice) else self.items[index]

    def __iter__(self) -> Iterator[Context]:
        return iter(self.items)

    @property
    def groups(self) -> tuple[str, ...]:
        """The question group of each context, the unit of clustering in statistics.

        All questions of a group, and both orders of a question's options, are one cluster.
        """
        return tuple(context.item.group for context in self.items)

    @property
    def shared_prefix(self) -> bool:
        """Whether all contexts have the same text before the prompt, as with a prompt in a system message.

        The prompt can then be run once for all contexts.
        """
        return len({context.prefix_ids for context in self.items}) == 1

    @property
    def branched(self) -> Contexts:
        """The contexts, with one entry for each token sequence (branch) that is run to score their answers.

        If a context needs two branches, every context gets two, so a mean over branches is the mean over
        contexts. If all answers are single tokens, or if the contexts are branches already, they are returned
        unchanged.

        Raises:
            RuntimeError: Of some questions only one branch is among the contexts.
        """
        if all(c.one_token or c.branch is not None for c in self.items):
            counts = Counter(c.branch for c in self.items if c.branch is not None)
            complete = len(set(counts.values())) <= 1 and len(counts) in (0, self.items[0].n_branches)
            if not complete:
                raise RuntimeError(
                    "some contexts lack one of their branches: choose among `unbranched` contexts"
                )
            return self
        n = max(len(c.branches) for c in self.items)
        return replace(
            self, items=tuple(replace(c, branch=k, n_branches=n) for c in self.items for k in range(n))
        )

    @property
    def unbranched(self) -> Contexts:
        """The contexts with one entry per question, the reverse of `branched`.

        A choice among questions must be made here: a question of which only one branch is left has no score.
        """
        if all(c.branch is None for c in self.items):
            return self
        whole = tuple(replace(c, branch=None, n_branches=1) for c in self.items if not c.branch)
        return replace(self, items=whole)

    def take(self, n: int, seed: int = 0) -> Contexts:
        """Draw `n` contexts (questions in the chat template) at random and keep their order.

        All contexts are returned if there are at most `n`.

        If an answer ("Yes", or the option letter "A") shows the persona in some questions and does not in
        others, the contexts that are drawn are as balanced as possible, so that a preference for an answer
        cancels.
        """
        if n >= len(self):
            return self
        rng = np.random.default_rng(seed)
        if self._balanced_within_groups_only:
            return self._balanced_draw(n, rng)
        answered = [_Answered.of(context) for context in self.items]
        drawn = (
            least_tilted(answered, rng.permutation(len(self)).tolist())[:n]
            if share_answers(answered)
            else rng.choice(len(self), size=n, replace=False)
        )
        chosen = np.sort(drawn)
        return replace(self, items=tuple(self.items[i] for i in chosen))

    def per_group(self, n_groups: int, seed: int = 0) -> Contexts:
        """Draw one context (a question in the chat template) from each of `n_groups` question groups.

        Few contexts then cover many groups.

        If an answer ("Yes", or the option letter "A") shows the persona in some questions and does not in
        others, the contexts that are drawn are as balanced as possible. If the groups have answers of their own,
        `n_groups` contexts are drawn from fewer groups, so that they balance each other within a group.
        """
        rng = np.random.default_rng(seed)
        if self._balanced_within_groups_only:
            return self._balanced_draw(n_groups, rng)
        names = sorted(set(self.groups))
        order = rng.permutation(len(names))[:n_groups]
        members = {names[i]: [c for c in self.items if c.item.group == names[i]] for i in order}
        picks = [int(rng.integers(len(group))) for group in members.values()]
        counts, chosen = Counter[Hashable](), list[Context]()
        for group, pick in zip(members.values(), picks, strict=True):
            turned = [*group[pick:], *group[:pick]]
            chosen.append(min(turned, key=lambda context: tilt(counts, _Answered.of(context))))
            counts.update({chosen[-1].answers[0]: 1})
            counts.subtract({chosen[-1].answers[1]: 1})
        return replace(self, items=tuple(chosen))

    def _balanced_draw(self, n: int, rng: np.random.Generator) -> Contexts:
        """Draw `n` contexts at random in sets that are balanced within their group, and keep their order."""
        order = rng.permutation(len(self))
        drawn = order[balanced_sets([self.items[i].item for i in order])[:n]]
        return replace(self, items=tuple(self.items[i] for i in np.sort(drawn)))

    @property
    def _balanced_within_groups_only(self) -> bool:
        return balanced_within_groups_only([context.item for context in self.items])


class _Answered(NamedTuple):
    """A context's two answers as token ids, by which draws of contexts are balanced: texts or option letters."""

    group: str
    matching: Hashable
    not_matching: Hashable

    @classmethod
    def of(cls, context: Context) -> _Answered:
        return cls(context.item.group, *context.answers)
