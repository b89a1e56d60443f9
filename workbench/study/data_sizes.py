"""Sizes of a study's data for its cost estimate, from the data file or from the published file's known size.

The length of a question is counted with the model's own tokenizer if it is available. Otherwise, 4 characters
per token are assumed, and 40 tokens for the template.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workbench.errors import UserError
from workbench.models.chat_template import render_chat
from workbench.models.model_sizes import tokenizer_of
from workbench.personas import load_persona
from workbench.study.direction_test_size import why_not_tested
from workbench.study.study_settings import Study

#: Rows of the published files and mean number of characters of their questions, for plans without the files.
_PUBLISHED = {
    "sycophancy.json": (1000, 730),
    "hallucination.json": (1000, 420),
    "myopic-reward.jsonl": (1000, 170),
    "TruthfulQA.csv": (817, 60),
}


@dataclass(frozen=True)
class DataSizes:
    """Numbers and lengths of a study's questions, for a cost estimate. All lengths are means in tokens.

    Attributes:
        items: Number of questions in the whole file.
        tokens: Length of a question in its chat template.
        after_prompt: Number of tokens between the prompt and the answer.
        orders: Number of orders of the options in which each question is asked, 1 or 2.
        notes: Assumptions that were made.
        answers: Number of tokens whose log-probabilities score both answers; 1 if answers are letters.
        asked: Length of a question in a chat that also has a prompt, without the prompt's tokens.
        written: Number of prompts that the persona's authors wrote for the study's aim (less or more of the
            persona).
    """

    items: int
    tokens: float
    after_prompt: float
    orders: int
    notes: tuple[str, ...]
    answers: float = 1.0
    asked: float = 0.0
    written: int = 4

    @classmethod
    def of(cls, study: Study) -> DataSizes:
        """Count the questions of a study and their tokens, for a cost estimate.

        Args:
            study: Settings of the study.

        Raises:
            UserError: The data file is missing and is not a published file whose size is known.
        """
        notes, said, written = [], 20.0, 4
        path = study.data.path
        if path is not None and not Path(path).is_file():
            if Path(path).name not in _PUBLISHED:
                raise UserError(
                    f"{path}: no such data file, and no published one of that name whose size is known"
                )
            items, characters = _PUBLISHED[Path(path).name]
            notes.append(
                f"{path} is not here: {items} questions of {characters} characters assumed, as published"
            )
            tokens, metric = characters / 4 + 40, study.metric or "letters"
            after_system, asked = tokens - 8, tokens
        else:
            persona = load_persona(study.persona, path, study.data.world)
            items, metric = len(persona.items), study.metric or persona.metric
            sample = [
                i.question + (f" (A) {i.matching} (B) {i.not_matching}" if metric == "letters" else "")
                for i in persona.items[::7]
            ]
            tokens, after_system, asked = _tokens(study, sample, notes)
            untested = why_not_tested(study, replace(persona, metric=metric))
            notes += [] if untested is None else [untested]
            written = len(persona.manual_prompts.get(study.sign, ()))
            said = sum(len(item.matching) + len(item.not_matching) for item in persona.items[::7]) / len(
                sample
            )
        after_prompt = 6.0 if study.slot != "system" else after_system
        orders = 2 if metric == "letters" and study.protocol.orders == "both" else 1
        score = 1.0 if metric == "letters" else max(1.0, said / 4)
        return cls(
            items,
            tokens,
            after_prompt,
            orders,
            tuple(notes),
            score,
            asked if study.slot == "system" else tokens,
            written,
        )


def _tokens(study: Study, texts: list[str], notes: list[str]) -> tuple[float, float, float]:
    """Return three mean lengths in tokens.

    They are: a question in its template; the part of it after a system prompt; and a question with a system
    prompt, without the prompt's own tokens.
    """
    try:
        tokenizer = tokenizer_of(study.model.name)
    except UserError:
        notes.append(
            "the model's tokenizer is not here: 4 characters a token assumed, and 40 tokens for the template"
        )
        tokens = sum(map(len, texts)) / len(texts) / 4 + 40
        return tokens, tokens - 8, tokens
    rendered = [render_chat(tokenizer, [{"role": "user", "content": text}]) for text in texts]
    tokens = sum(len(ids) for ids in tokenizer(rendered, add_special_tokens=False)["input_ids"]) / len(
        rendered
    )
    before, instead = _around_system(tokenizer)
    return tokens, tokens - before, tokens - before + instead


def _around_system(tokenizer: Any) -> tuple[int, int]:
    """Return how many tokens of a bare question are replaced by a system prompt, and by how many.

    The first number counts the tokens before the end that renderings with and without a system prompt share.
    The second counts the tokens before that end if there is a system prompt, without the prompt itself; this
    is less if the template has a system text of its own.
    """
    user = [{"role": "user", "content": "x"}]
    try:
        texts = [render_chat(tokenizer, chat) for chat in (user, [{"role": "system", "content": "y"}, *user])]
    except UserError:
        return 8, 8  # a template without a system role
    bare, prompted = (ids[::-1] for ids in tokenizer(texts, add_special_tokens=False)["input_ids"])
    shared = next(
        (i for i, (a, b) in enumerate(zip(bare, prompted, strict=False)) if a != b),
        min(len(bare), len(prompted)),
    )
    return len(bare) - shared, max(0, len(prompted) - shared - 1)
