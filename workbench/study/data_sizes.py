"""Sizes of a study's data for its plan: questions and their tokens, counted in the data file or taken from the published one's size.

Tokens of a question: its characters through the model's own tokenizer where that is here, else by 4 a token,
and 40 for the template.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.errors import UserError
from workbench.models.chat_template import render_chat
from workbench.models.model_sizes import tokenizer_of
from workbench.personas import load_persona
from workbench.study.study_settings import Study

#: Rows of published files and mean characters of their questions, for plans made where the files are not.
_PUBLISHED = {
    "sycophancy.json": (1000, 730),
    "hallucination.json": (1000, 420),
    "myopic-reward.jsonl": (1000, 170),
    "TruthfulQA.csv": (817, 60),
}


@dataclass(frozen=True)
class DataSizes:
    """Sizes of a study's data.

    items: of the whole file. tokens: of a rendered question. after_prompt: tokens between prompt and answer.
    orders: option orders asked. answers: tokens whose log-probabilities score both answers (a letter: the one
    decision token). asked: tokens of a question with a prompt, the prompt left out. written: prompts that the
    persona's authors wrote for the study's sign.
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
        """Counted where the file and the tokenizer are here; UserError for a file that is neither here nor a published one."""
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
    """Mean numbers of tokens of questions and templates.

    Of a question with its template, of what the template puts after a system prompt, and of a question with
    one, the prompt left out.
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
    """Tokens before and after the prompt in the system slot.

    Tokens of a bare question that do not follow a system prompt (all but the end that both renderings share),
    and those that are before the question where there is one, the prompt itself left out: less where the
    template has a system text of its own.
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
