"""An objective as plain data and in words.

The plain data are stored with the result of a search, to record what it maximised, and identify the objective
when a checkpoint is resumed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch

Fields = Mapping[str, Any]


def describe(value: Any) -> Any:
    """Convert a value to plain data: numbers, texts, lists and dictionaries.

    A dataclass becomes {"type": its class name, **fields}. A tensor becomes its shape, its dtype and sixteen
    hex digits of the SHA-256 of its content. Any other object becomes the name of its class.
    """
    if isinstance(value, torch.Tensor):
        content = value.detach().cpu().contiguous()
        digest = hashlib.sha256(content.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
        return {
            "type": "tensor",
            "shape": list(value.shape),
            "dtype": str(value.dtype),
            "sha256": digest[:16],
        }
    if isinstance(value, (list, tuple)):
        return [describe(v) for v in value]
    if isinstance(value, dict):
        return {str(k): describe(v) for k, v in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {
            "type": type(value).__name__,
            **{f.name: describe(getattr(value, f.name)) for f in fields(value)},
        }
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return str(value)
    return value if isinstance(value, (int, float, str, bool, type(None))) else type(value).__name__


def objective_words(value: Any) -> str:
    """Describe a search's objective in words.

    Args:
        value: The entry `objective` of search/NAME.json: {"type": the objective's class, **its fields}. A
            text (as in older files) is returned as it is, and None gives an empty text.

    Example:
        >>> objective_words({"type": "CombinedObjective", "terms": [[-1.0, {"type": "AnswerLogOddsObjective"}]]})
        "minus the answer's log-odds"
    """
    if value is None or isinstance(value, str):
        return value or ""
    if not isinstance(value, Mapping) or not isinstance(value.get("type"), str):
        raise ValueError(f"expected an objective with its type, found {value!r}")
    kind = value["type"].removesuffix("Objective")
    return _WORDS[kind](value) if kind in _WORDS else _spelled(kind)


def _sum(fields: Fields) -> str:
    terms = [(float(weight), objective_words(term)) for weight, term in fields["terms"]]
    parts = []
    for number, (weight, words) in enumerate(terms):
        sign = "minus " if weight < 0 else "plus " if number else ""
        size = "" if abs(weight) == 1 else f"{abs(weight):.3g} times "
        parts.append(f"{sign}{size}{words}")
    return " ".join(parts)


def _projection(fields: Fields) -> str:
    units = {
        "z": "in standard deviations over neutral prompts",
        "cosine": "as a cosine",
        "raw": "in units of the residual stream",
    }
    return f"the projection on the direction at layer {fields['site']['layer']}, {units.get(fields['kind'], fields['kind'])}"


def _latents(fields: Fields) -> str:
    latents = fields["latents"]
    named = ", ".join(map(str, latents[:8])) + (f" and {len(latents) - 8} more" if len(latents) > 8 else "")
    return f"the weighted activation of {'latent' if len(latents) == 1 else 'latents'} {named}"


def _answer(fields: Fields) -> str:
    return f"the log-probability of the {'not ' if fields.get('side') else ''}matching answer"


def _held(fields: Fields) -> str:
    return f"the squared distance, negated, of {objective_words(fields['inner'])} from {fields['value']:.3g}"


def _spelled(kind: str) -> str:
    """Split a class name into words: `RepetitionPenalty` becomes `repetition penalty`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind).lower()


_WORDS: dict[str, Callable[[Fields], str]] = {
    "Combined": _sum,
    "Projection": _projection,
    "LatentActivation": _latents,
    "AnswerLogOdds": lambda _: "the answer's log-odds",
    "AnswerLogProb": _answer,
    "Hold": _held,
    "Target": _held,
}
