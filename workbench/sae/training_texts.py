"""Text to train and check an SAE on: a corpus file, or the contexts of a persona's questions."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from workbench.contexts import Slot, make_contexts
from workbench.errors import UserError
from workbench.models import runner_for
from workbench.personas import Split
from workbench.prompt_tokens import encode_prompt
from workbench.runs import parse_json_lines, read_json, read_text
from workbench.text_forms import join_surrogates, require_whole_text, unify_line_ends


def read_corpus(path: str | Path, limit: int | None = None) -> list[str]:
    """Read the texts of a file, in order.

    A .jsonl, .json (a list) or .csv file gives one text per row, any other file one per line. Of a row that
    is an object, the field `text` is the text; without that field, all its text fields are joined.

    Args:
        path: The file.
        limit: Most texts to return. None: all.

    Raises:
        UserError: A row cannot be read (the message names file and line), or the file has no text.
    """
    path = Path(path)
    rows = {".jsonl": _json_lines, ".json": _json_list, ".csv": _csv_rows}.get(path.suffix.lower(), _lines)(
        path
    )
    texts = [_whole(text, f"{path}, text {n}") for n, text in enumerate(map(_text_of, rows), start=1) if text]
    if not texts:
        raise UserError(f"{path}: no text in this file")
    return texts if limit is None else texts[:limit]


def context_texts(
    model: Any, split: Split, n: int = 2000, slot: Slot = "system", seed: int = 0
) -> list[tuple[int, ...]]:
    """Make token sequences like those that the model reads in a study.

    Each sequence is a question in the chat template, followed by one of its two answers. It has no system
    text or one that is drawn at random from the persona's.

    Args:
        model: A loaded model or its runner.
        split: The questions.
        n: Number of sequences.
        slot: Place in the chat where the system text goes.
        seed: Seed of the drawing.
    """
    runner = runner_for(model)
    contexts = make_contexts(runner, split, slot=slot, seed=seed)
    prompts = [None, *(encode_prompt(runner, contexts, text) for text in split.persona.varied_system_texts)]
    rng = np.random.default_rng(seed)
    made: list[tuple[int, ...]] = []
    while len(made) < n:
        for i in rng.permutation(len(contexts)):
            prompt, side = prompts[rng.integers(len(prompts))], rng.integers(2)
            made.append((*contexts[int(i)].ids(prompt), *contexts[int(i)].answers[int(side)]))
    return made[:n]


def _whole(text: str, where: str) -> str:
    return require_whole_text(unify_line_ends(join_surrogates(text)), where)


def _lines(path: Path) -> Iterable[Any]:
    return read_text(path).splitlines()


def _json_list(path: Path) -> Iterable[Any]:
    rows = read_json(path)
    if not isinstance(rows, list):
        raise UserError(f"{path}: expected a JSON list of texts or objects, found {type(rows).__name__}")
    return rows


def _json_lines(path: Path) -> Iterable[Any]:
    return [value for _, value in parse_json_lines(read_text(path), str(path))]


def _csv_rows(path: Path) -> Iterable[Any]:
    return csv.DictReader(io.StringIO(read_text(path)))


def _text_of(row: Any) -> str:
    if isinstance(row, str):
        return row.strip()
    if not isinstance(row, dict):
        return ""
    if isinstance(row.get("text"), str):
        return row["text"].strip()
    return "\n".join(value.strip() for value in row.values() if isinstance(value, str) and value.strip())
