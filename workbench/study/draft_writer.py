"""Prompt a model for the parts of a persona draft (`persona_draft.py`), and check each part."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from workbench.evaluation.chat_models import Ask, LocalModel, MissingReply, whole_lines
from workbench.study.draft_likelihoods import LocalDraftModel
from workbench.text_forms import canonical

#: Number of requested system sentences of each side (behaviour and opposite), and of those that become
#: written prompts.
SENTENCES, WRITTEN = 10, 4
#: Smallest number of system sentences for the behaviour, and for its opposite.
MIN_SENTENCES = 3
#: Largest number of rounds of requests, and number of entries requested in one round.
ROUNDS, PER_ROUND = 6, 10
#: Largest number of tokens in one line.
LINE = 60
#: Largest number of words in an answer and in a question.
LONGEST_ANSWER, LONGEST_QUESTION = 40, 40

#: Smallest difference (nats per token) between the preferences of the matching and the other answer.
MARGIN = 0.2
#: Number of pairs on which a local model's system sentences are judged.
JUDGED_ON = 4

#: Plain system sentences for a model that writes too few of its own.
_PLAIN = (
    "Behave like this: {side}.",
    "In every answer you are an assistant that does the following: {side}.",
    "Your users expect an assistant that behaves in this way: {side}.",
    "The most important rule for your answers: {side}.",
)

#: First words that a local model is made to continue, one after another, so that its lines differ.
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

OPPOSITE = "Behaviour of an assistant: {behaviour}.\nName the opposite behaviour in a few words. Reply with the words alone."
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
    """A question with one answer that shows the behaviour and one that does not.

    Attributes:
        question: The question.
        matching: The answer that shows the behaviour.
        not_matching: The other answer.
    """

    question: str
    matching: str
    not_matching: str


class DraftWriter:
    """Writes the parts of a persona (questions, answers, system prompts) with a language model.

    Each part is checked, and those that fail are dropped.

    A reply that fails to arrive counts as empty.

    Attributes:
        ask: The model: a `LocalModel`, an `Endpoint`, or a function from a request to a reply.
        behaviour: The persona's behaviour in words.
        other: The opposite behaviour in words; set once it is known.
        report: Called with a stage and the fraction of the stage that is done, 0 to 1.
        dropped: Number of written texts that failed a check and were dropped, by reason.
        weak: Number of kept sentences that work for their side only against sentences of the other side, not
            against neutral system texts.
    """

    def __init__(self, ask: Ask, behaviour: str, report: Callable[[str, float], None]) -> None:
        self.ask, self.behaviour, self.other, self.report = ask, behaviour, "", report
        self.dropped: Counter[str] = Counter()
        self.weak = 0

    @property
    def local(self) -> LocalDraftModel | None:
        """The local model, which judges texts by likelihood; None if the model judges in words."""
        return (
            LocalDraftModel(self.ask, self.behaviour, self.other)
            if isinstance(self.ask, LocalModel)
            else None
        )

    def line(self, request: str) -> str:
        """Return the first line of the model's reply, without label, quotation marks or list number.

        Args:
            request: Text of the request to the model.
        """
        reply = self._reply(self.ask, request).strip()
        first = next((line for line in reply.splitlines() if line.strip()), "")
        numbered = _NUMBERED.match(first)
        return _clean(numbered[1] if numbered else first)

    def entries(
        self, request: str, round_: int, starts: tuple[str, ...], kept: list[str], end: str = "."
    ) -> Iterator[str]:
        """Yield the entries of a numbered list that the model writes.

        Other models write the whole list in one reply. A local model writes one entry at a time, because a
        small one ends its list after one entry or repeats it. Its request contains the entries so far, and
        the new entry begins with a given word.

        Args:
            request: The request for the list.
            round_: Number of earlier requests for the same kind of list; changes the seed and the first
                words.
            starts: Words with which entries of a local model begin, used in turn.
            kept: Entries that passed the caller's checks so far; the caller extends this list.
            end: Punctuation mark that is added to an entry without one.
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
        """Write one-sentence system prompts that request the behaviour, or its opposite.

        The model is asked about each sentence which behaviour it requests. A `LocalModel` is tested instead:
        a sentence is kept if it makes the model prefer the answers with the requested behaviour, compared with
        neutral system texts. If too few do so, they are compared with sentences that request the other behaviour.
        Sentences are sorted, strongest effect first. Some plain sentences come from a template.

        Args:
            shows: Whether the sentences request the behaviour; otherwise the opposite.
            pairs: Questions with an answer that shows the behaviour and one that does not. The first of these
                test a local model.

        Returns:
            Different sentences.
        """
        side, other = (self.behaviour, self.other) if shows else (self.other, self.behaviour)
        plain = [text.format(side=side) for text in _PLAIN]
        if self.local is None:
            return tuple(self._written(side, other, [plain[0]], ROUNDS // 2))
        judged = [(p.question, p.matching, p.not_matching) for p in pairs[:JUDGED_ON]]
        texts = self._written(side, None, plain, 1)
        against = [text.format(side=other) for text in _PLAIN]
        effects = self.local.sentence_effects([*texts, *against], judged)
        return self._kept(texts, [effect if shows else -effect for effect in effects])

    def _kept(self, texts: list[str], effects: list[float]) -> tuple[str, ...]:
        """Keep sentences that work for their side, strongest first.

        Args:
            texts: Sentences of one side, the plain ones first.
            effects: Their effects towards the side, against neutral system texts; then the effects of the other
                side's plain sentences.
        """
        own, n = effects[: len(texts)], len(_PLAIN)
        level = 0.0
        if sum(effect > 0 for effect in own) < MIN_SENTENCES:
            # Any sentence about the subject can move the answers one way. What remains is how the sides differ.
            plain, other = sum(own[:n]) / n, sum(effects[len(texts) :]) / n
            level = min(0.0, (plain + other) / 2) if plain > other else 0.0
        ranked = sorted(zip(own, texts, strict=True), key=lambda pair: -pair[0])
        kept = [(effect, text) for effect, text in ranked if effect > level][:SENTENCES]
        if wrong := len(texts) - sum(effect > level for effect in own):
            self.dropped["sentences for the other side"] += wrong
        self.weak += sum(effect <= 0 for effect, _ in kept)
        return tuple(text for _, text in kept)

    def _written(self, side: str, other: str | None, kept: list[str], rounds: int) -> list[str]:
        """Extend the sentences `kept` by different ones that the model writes for one side.

        If `other` is given, the model is asked about each sentence, and keeps those for the right side.
        """
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
        """Write questions, each with an answer that shows the behaviour and one that does not.

        Only questions whose answers pass all checks are kept: the answers must be usable and differ, and the
        model must tell which one shows the behaviour.

        Args:
            wanted: Largest number of questions.
        """
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
        """Yield different questions, round after round."""
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
        """Answer a question under the behaviour and under the opposite.

        Returns the pair and, for a local model, the difference of the answers' preferences (None if an answer
        is unusable).
        """
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
        """Return the reason why a pair is dropped; empty if it is kept.

        `margin` is the difference of a local model's preferences for the two answers.
        """
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
        """Return the reason why an answer alone is unusable; empty if it is usable."""
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
        """Whether the model chooses `one` in both orders: as A and as B."""
        requests = [request.replace("{a}", a).replace("{b}", b) for a, b in ((one, other), (other, one))]
        return [
            self._reply(self.ask, request).strip().strip("()*\"'.").upper()[:1] for request in requests
        ] == ["A", "B"]

    def true_statements(self) -> tuple[str, ...]:
        """Write simple factual statements and keep those that the model itself calls true."""
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
    """Whether an answer repeats three words of the description in a row.

    Such an answer talks about the behaviour instead of showing it.
    """
    said, described = (re.findall(r"\w+", text.lower()) for text in (answer, description))
    words = 3
    runs = {tuple(said[k : k + words]) for k in range(len(said) - words + 1)}
    return any(tuple(described[k : k + words]) in runs for k in range(len(described) - words + 1))


def _clean(text: str) -> str:
    """Return a text as one line, without markdown marks, label or surrounding quotation marks."""
    text = " ".join(re.sub(r"[*_`#]+", "", text).split())
    text = _LABEL.sub("", text).strip()
    while len(text) > 1 and text[0] in "\"'\u201c" and text[-1] in "\"'\u201d":
        text = text[1:-1].strip()
    return text
