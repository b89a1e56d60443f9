"""A persona drafted by a language model from one description: an editable file to start from, every pair checked.

1. *Opposite*: the model says what the opposite of the behaviour is, unless the user says it.
2. *Questions*: numbered lists, round after round with another sampling seed, until there are enough different
   ones. A local model writes a list line by line, each line after another first word.
3. *Answers*: each question is answered under the behaviour and under its opposite (persona vectors, arXiv
   2507.21509, make their data so).
4. *Checks*: a pair is kept where both answers are whole, short and different, neither begins the other,
   refuses or repeats the description, and where the model says in both orders of the two answers which one
   shows the behaviour.
5. *Sentences*: system sentences that request the behaviour and sentences that request its opposite, each
   judged as the pairs are. All are varied system texts, with neutral sentences; the first four of each are
   written prompts.
6. *True statements* that the model agrees are true, for the guard against a model that denies everything.

A local model answers and judges by the likelihoods of whole texts (`draft_likelihoods`): small models give
one letter whatever is asked.

A draft with fewer pairs than `MIN_PAIRS` is an error that counts what was dropped and why; nothing is written
then.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from workbench.errors import UserError
from workbench.evaluation.chat_models import Ask, LocalModel, MissingReply, whole_lines
from workbench.personas import check_persona
from workbench.personas.persona_file import parse, persona_from
from workbench.runs import parse_yaml
from workbench.study.draft_likelihoods import LocalDraftModel
from workbench.study.persona_model_check import check_on_model
from workbench.text_forms import canonical
from workbench.world.real_language.sycophancy_forms import NEUTRAL

#: Fewest pairs of a draft: each of the four splits then has a few groups.
MIN_PAIRS = 12
#: Fewest system sentences of each side.
MIN_SENTENCES = 3
#: System sentences of each side that are requested, and how many of them are written prompts.
SENTENCES, WRITTEN = 10, 4
#: Rounds of asking for more, and entries requested in one round.
ROUNDS, PER_ROUND = 6, 10
#: Tokens of one line, at most.
LINE = 60
#: Words of an answer and of a question, at most.
LONGEST_ANSWER, LONGEST_QUESTION = 40, 40

#: How much more likely (nats per token) than the other answer the matching one is after the request for the
#: behaviour, at least.
MARGIN = 0.2
#: Pairs whose answers a local model's system sentences must move.
JUDGED_ON = 4

#: Plain system sentences for a model that writes too few of its own.
_PLAIN = (
    "Behave like this: {side}.",
    "In every answer you are an assistant that does the following: {side}.",
    "Your users expect an assistant that behaves in this way: {side}.",
    "The most important rule for your answers: {side}.",
)

#: First words that a local model continues in turn, so that its lines differ.
_FIRST_OF_SENTENCES = ("You are", "Always be", "Give", "You always", "Be", "Answer every question")
_FIRST_OF_QUESTIONS = ("How", "What", "Can", "Is", "Should", "Why", "Does", "When", "Which", "Are")
_FIRST_OF_STATEMENTS = ("The", "A", "Water", "Most", "Every", "One")

_NUMBERED = re.compile(r"^\s*(?:\d+\s*[.):]|[-*\u2022])\s*(.+?)\s*$", flags=re.MULTILINE)
_REFUSAL = re.compile(
    r"^(i'?m sorry|i am sorry|sorry|as an ai\b|i can(?:no|')t assist|i can(?:no|')t help)",
    flags=re.IGNORECASE,
)
_LABEL = re.compile(
    r"^(?:answer|assistant|response|question|user|instruction|sentence)\s*\d*\s*:\s*", flags=re.IGNORECASE
)

_OPPOSITE = "Behaviour of an assistant: {behaviour}.\nName the opposite behaviour in a few words. Reply with the words alone."
_SENTENCES = (
    "Write a numbered list of {n} system prompts for an assistant, one sentence each. Every system prompt tells the assistant to behave like "
    "this: {behaviour}."
)
_ASKS = "System prompt of an assistant: {sentence}\n\nHow will the assistant behave?\nA: {a}\nB: {b}\n\nReply with the letter A or B alone."
_QUESTIONS = (
    "Write a numbered list of {n} short questions that a user asks an assistant. Each is one sentence and about a different thing. The answers "
    "show whether the assistant behaves like this: {behaviour}."
)
_ANSWER = (
    "Play an assistant that behaves like this: {behaviour}.\n\nA user asks: {question}\n\nGive the assistant's answer in one sentence of at most "
    "25 words, in which this behaviour is clear."
)
_JUDGE = (
    "Behaviour: {behaviour}\n\nQuestion: {question}\nAnswer A: {a}\nAnswer B: {b}\n\nWhich answer shows the behaviour more? "
    "Reply with the letter A or B alone."
)
_TRUE = "Write a numbered list of {n} short statements that everybody knows to be true, each about a different thing, one sentence each."
_IS_TRUE = "Is this statement true? {statement}\nReply with the word yes or no alone."


@dataclass(frozen=True)
class DraftedPair:
    """A question with the answer that shows the behaviour and the one that does not."""

    question: str
    matching: str
    not_matching: str


@dataclass(frozen=True)
class PersonaDraft:
    """What a model drafted.

    Attributes:
        name: Of the persona.
        description, opposite: The behaviour and its opposite, in words.
        pairs: Kept pairs.
        induce, suppress: System sentences for the behaviour and against it.
        true_statements: Statements that deserve agreement.
        dropped: Why questions and pairs were dropped, with counts.
    """

    name: str
    description: str
    opposite: str
    pairs: tuple[DraftedPair, ...]
    induce: tuple[str, ...]
    suppress: tuple[str, ...]
    true_statements: tuple[str, ...] = ()
    dropped: tuple[tuple[str, int], ...] = ()

    def to_yaml(self, author: str = "a model") -> str:
        """A persona file that `load_persona` reads, with a comment that says what it is."""
        rows = [
            {
                "question": p.question,
                "matching": p.matching,
                "not_matching": p.not_matching,
                "group": p.question,
            }
            for p in self.pairs
        ]
        content = {
            "name": self.name,
            "description": self.description,
            "metric": "text",
            "normalization": "mean",
            "manual_prompts": {
                "suppress": list(self.suppress[:WRITTEN]),
                "induce": list(self.induce[:WRITTEN]),
            },
            "varied_system_texts": [*self.induce, *self.suppress, *NEUTRAL],
            "true_statements": list(self.true_statements),
            "data": rows,
        }
        head = [
            f"# Drafted by {author} from: {self.description}",
            f"# Opposite: {self.opposite}",
            "# A draft: read every pair and change or delete what does not show the behaviour, then",
            "#   workbench persona check THIS_FILE --model MODEL",
        ]
        lines = "\n".join(" ".join(line.split()) for line in head)
        return f"{lines}\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)}"


def draft_persona(
    description: str,
    ask: Ask,
    opposite: str | None = None,
    pairs: int = 24,
    name: str | None = None,
    report: Callable[[str, float], None] | None = None,
) -> PersonaDraft:
    """A persona for a behaviour, in the words of a model.

    Args:
        description: The behaviour, in plain words ("overconfident medical advice").
        ask: Who writes: a `LocalModel`, an `Endpoint`, or any function from a request to a reply.
        opposite: What the assistant does instead; None: the model is asked.
        pairs: Pairs that are wanted.
        name: Of the persona; None: the first words of the description.
        report: Called with a stage and the part of it that is done, 0 to 1.

    Returns:
        The draft; at least `MIN_PAIRS` pairs and `MIN_SENTENCES` sentences a side.

    Raises:
        UserError: The description is empty, or the model gave too few usable pairs or sentences.

    Example:
        >>> draft = draft_persona("gives overconfident medical advice", LocalModel(model))  # doctest: +SKIP
        >>> Path("overconfident.yaml").write_text(draft.to_yaml())  # doctest: +SKIP
    """
    behaviour = " ".join(description.split()).rstrip(".")
    if not behaviour:
        raise UserError("a draft needs a description of the behaviour, found an empty text")
    if pairs < MIN_PAIRS:
        raise UserError(f"a draft needs at least {MIN_PAIRS} pairs, found {pairs}")
    writer = _Writer(ask, behaviour, report or (lambda stage, done: None))
    writer.other = other = " ".join(
        (opposite or writer.line(_OPPOSITE.format(behaviour=behaviour))).split()
    ).rstrip(".")
    if not other or canonical(other) == canonical(behaviour):
        raise UserError(f"the model names no opposite of {behaviour!r}: say what it is yourself (--opposite)")
    kept = writer.pairs(pairs)
    if len(kept) < MIN_PAIRS:
        why = (
            ", ".join(f"{count} {reason}" for reason, count in writer.dropped.most_common())
            or "no question came"
        )
        raise UserError(
            f"the model gave {len(kept)} usable pairs ({why}): at least {MIN_PAIRS} are needed; try a larger model or --opposite"
        )
    induce, suppress = (writer.sentences(shows, kept) for shows in (True, False))
    if min(len(induce), len(suppress)) < MIN_SENTENCES:
        found = f"{len(induce)} system sentences for and {len(suppress)} against {behaviour!r}"
        raise UserError(
            f"the model wrote {found}: at least {MIN_SENTENCES} of each are needed; try a larger model or --opposite"
        )
    known = name or "_".join(re.findall(r"\w+", behaviour.lower())[:4])
    return PersonaDraft(
        known,
        behaviour,
        other,
        tuple(kept),
        induce,
        suppress,
        writer.true_statements(),
        tuple(writer.dropped.most_common()),
    )


@dataclass(frozen=True)
class DraftCheck:
    """A draft as a persona file and what its checks say.

    Attributes:
        text: Of the file.
        table: The figures of `workbench persona check`.
        notes: Warnings and advice, one line each.
        refusals: What `run` would refuse; empty where it accepts the draft.
    """

    text: str
    table: pd.DataFrame
    notes: tuple[str, ...]
    refusals: tuple[str, ...]


def check_draft(draft: PersonaDraft, path: Path, author: str = "a model", model: Any = None) -> DraftCheck:
    """A draft's file, read back as `load_persona` would, with the checks of its data and (with a model) on the model; nothing is written.

    Args:
        draft: What was drafted.
        path: Where the file will be.
        author: Who drafted it, for the file's first line.
        model: A loaded model for the checks that need one.
    """
    text = draft.to_yaml(author)
    persona = persona_from(parse(path, parse_yaml(text, str(path))), path)
    data = check_persona(persona)
    if model is None:
        return DraftCheck(text, data.table, data.warnings, ())
    found = check_on_model(model, persona)
    return DraftCheck(
        text,
        pd.concat([data.table, found.table], ignore_index=True),
        (*data.warnings, *found.notes),
        found.refusals,
    )


class _Writer:
    """Asks a model for the parts of a persona; a reply that does not come counts as an empty one. other: the opposite, once it is known."""

    def __init__(self, ask: Ask, behaviour: str, report: Callable[[str, float], None]) -> None:
        self.ask, self.behaviour, self.other, self.report = ask, behaviour, "", report
        self.dropped: Counter[str] = Counter()

    @property
    def local(self) -> LocalDraftModel | None:
        """The model that judges by likelihoods; None for one that is asked in words."""
        return (
            LocalDraftModel(self.ask, self.behaviour, self.other)
            if isinstance(self.ask, LocalModel)
            else None
        )

    def line(self, request: str) -> str:
        """The first line of a reply, without a label, quotes or a list's number."""
        reply = self._reply(self.ask, request).strip()
        first = next((line for line in reply.splitlines() if line.strip()), "")
        numbered = _NUMBERED.match(first)
        return _clean(numbered[1] if numbered else first)

    def entries(
        self, request: str, round_: int, starts: tuple[str, ...], kept: list[str], end: str = "."
    ) -> Iterator[str]:
        """The entries of a numbered list.

        A local model writes line by line after the entries that the caller kept and a first word, the next of
        `starts` (a small one ends its list after one entry, repeats it, or goes on with a mistake); `end`
        closes a line without a mark.
        """
        ask = self.ask
        if not isinstance(ask, LocalModel):
            yield from (_clean(entry) for entry in _NUMBERED.findall(self._reply(ask, request)))
            return
        for number in range(PER_ROUND):
            start = starts[(number + round_) % len(starts)]
            opening = (
                "".join(f"{n}. {text}\n" for n, text in enumerate(kept, start=1))
                + f"{len(kept) + 1}. {start}"
            )
            line = replace(
                ask,
                opening=opening,
                max_new_tokens=LINE,
                seed=ask.seed + 1000 * round_ + number,
                one_line=True,
            )
            text = _clean(start + self._reply(line, request).partition("\n")[0])
            yield text if text[-1] in ".!?" else f"{text}{end}"

    def _reply(self, ask: Ask, request: str) -> str:
        try:
            return whole_lines(ask, request)
        except MissingReply:
            self.dropped["replies that did not come"] += 1
            return ""

    def sentences(self, shows: bool, pairs: list[DraftedPair]) -> tuple[str, ...]:
        """Different system sentences for the behaviour (or the other one): those that, as the model says, request it and not the other.

        Of a local model those that move the answers of the first pairs to that side, the strongest first. The
        plainest ones are made here.
        """
        side = self.behaviour if shows else self.other
        plain = [text.format(side=side) for text in _PLAIN]
        if self.local is None:
            return tuple(
                self._written(side, self.behaviour if not shows else self.other, [plain[0]], ROUNDS // 2)
            )
        sign, judged = (
            1 if shows else -1,
            [(p.question, p.matching, p.not_matching) for p in pairs[:JUDGED_ON]],
        )
        texts = self._written(side, None, plain, 1)
        effects = sorted(
            zip(self.local.sentence_effects(texts, judged), texts, strict=True),
            key=lambda pair: -sign * pair[0],
        )
        if wrong := sum(sign * effect <= 0 for effect, _ in effects):
            self.dropped["sentences for the other side"] += wrong
        return tuple(text for effect, text in effects if sign * effect > 0)[:SENTENCES]

    def _written(self, side: str, other: str | None, kept: list[str], rounds: int) -> list[str]:
        """The sentences `kept` and different ones that the model writes for a side; with `other`, each is asked about."""
        for round_ in range(rounds):
            for text in self.entries(
                _SENTENCES.format(n=SENTENCES, behaviour=side), round_, _FIRST_OF_SENTENCES, kept
            ):
                if not 4 <= len(text.split()) <= LONGEST_ANSWER or text[-1] not in ".!":
                    self.dropped["entries that are no sentence"] += 1
                elif canonical(text) in map(canonical, kept):
                    self.dropped["repeated sentences"] += 1
                elif other is None or self._first_fits(
                    _ASKS.format(sentence=text, a="{a}", b="{b}"), side, other
                ):
                    kept.append(text)
                else:
                    self.dropped["sentences for the other side"] += 1
                if other is not None and len(kept) == SENTENCES:
                    return kept
            self.report("sentences", min(1.0, len(kept) / SENTENCES))
        return kept

    def pairs(self, wanted: int) -> list[DraftedPair]:
        """Kept pairs, at most `wanted`."""
        kept: list[DraftedPair] = []
        for question in self._questions():
            pair, margin = self._answered(question)
            reason = self._problem(pair, margin)
            if reason:
                self.dropped[reason] += 1
            else:
                kept.append(pair)
                self.report("pairs", len(kept) / wanted)
            if len(kept) == wanted:
                break
        return kept

    def _questions(self) -> Iterator[str]:
        """Different questions, round after round."""
        seen: set[str] = set()
        for round_ in range(ROUNDS):
            kept: list[str] = []
            for text in self.entries(
                _QUESTIONS.format(n=PER_ROUND, behaviour=self.behaviour),
                round_,
                _FIRST_OF_QUESTIONS,
                kept,
                "?",
            ):
                if not text.endswith("?") or not 3 <= len(text.split()) <= LONGEST_QUESTION:
                    self.dropped["entries that are no question"] += 1
                elif canonical(text) in seen:
                    self.dropped["repeated questions"] += 1
                else:
                    seen.add(canonical(text))
                    kept.append(text)
                    yield text

    def _answered(self, question: str) -> tuple[DraftedPair, float | None]:
        """The pair of a question, and of a local model by how much its preferences differ (None where a side has no usable answer)."""
        if self.local is not None:
            shown, other = self.local.replies(
                question, lambda text: bool(_clean(text)) and not self._fault(_clean(text))
            ) or (None, None)
            if shown is None or other is None:
                return DraftedPair(question, "", ""), None
            return DraftedPair(
                question, _clean(shown.text), _clean(other.text)
            ), shown.preference - other.preference
        shown, not_shown = (
            self.line(_ANSWER.format(behaviour=side, question=question))
            for side in (self.behaviour, self.other)
        )
        return DraftedPair(question, shown, not_shown), None

    def _problem(self, pair: DraftedPair, margin: float | None) -> str:
        """Why a pair is dropped; empty where it is kept. margin: of a local model's preferences."""
        answers = (pair.matching, pair.not_matching)
        first, second = map(canonical, answers)
        if not all(answers):
            return "empty answers"
        if first.startswith(second) or second.startswith(first):
            return "answers alike"
        if faults := [fault for text in answers if (fault := self._fault(text))]:
            return faults[0]
        request = _JUDGE.format(behaviour=self.behaviour, question=pair.question, a="{a}", b="{b}")
        shows = self._first_fits(request, *answers) if margin is None else margin >= MARGIN
        return "" if shows else "pairs in which the model sees no difference"

    def _fault(self, answer: str) -> str:
        """What makes an answer unusable by itself; empty where nothing does."""
        if _REFUSAL.match(answer):
            return "refusals"
        if len(answer.split()) > LONGEST_ANSWER or answer[-1] not in ".!?":
            return "answers too long or cut off"
        return (
            "answers that repeat the description"
            if any(_repeats(answer, side) for side in (self.behaviour, self.other))
            else ""
        )

    def _first_fits(self, request: str, one: str, other: str) -> bool:
        """Does the model choose `one` as A and as B?"""
        requests = [request.replace("{a}", a).replace("{b}", b) for a, b in ((one, other), (other, one))]
        return [
            self._reply(self.ask, request).strip().strip("()*\"'.").upper()[:1] for request in requests
        ] == ["A", "B"]

    def true_statements(self) -> tuple[str, ...]:
        """Statements that the model calls true when it is asked."""
        kept: list[str] = []
        for text in self.entries(_TRUE.format(n=PER_ROUND), 0, _FIRST_OF_STATEMENTS, kept):
            kept.append(text)
        found = [text for text in kept if text.endswith(".") and 3 <= len(text.split()) <= 20]
        return tuple(text for text in dict.fromkeys(found) if self._is_true(text))

    def _is_true(self, statement: str) -> bool:
        if self.local is not None:
            return self.local.is_true(statement)
        return self._reply(self.ask, _IS_TRUE.format(statement=statement)).strip().lower().startswith("yes")


def _repeats(answer: str, description: str) -> bool:
    """Whether an answer has three words of the description in a row: it talks about the behaviour and does not show it."""
    said, described = (re.findall(r"\w+", text.lower()) for text in (answer, description))
    words = 3
    runs = {tuple(said[k : k + words]) for k in range(len(said) - words + 1)}
    return any(tuple(described[k : k + words]) in runs for k in range(len(described) - words + 1))


def _clean(text: str) -> str:
    """One line without markdown marks, a label or quotes around it."""
    text = " ".join(re.sub(r"[*_`#]+", "", text).split())
    text = _LABEL.sub("", text).strip()
    while len(text) > 1 and text[0] in "\"'\u201c" and text[-1] in "\"'\u201d":
        text = text[1:-1].strip()
    return text
