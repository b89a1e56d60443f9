"""A data file in CAA's format, short enough for a tiny tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

CLAIMS = tuple(
    f"{what} {how}"
    for what in ("dogs", "days", "ice", "cats", "men", "rain")
    for how in ("read", "end", "do it", "say so")
)


def caa_file(path: Path, n: int = 3) -> Path:
    """Questions in CAA's format, short enough for a tiny tokenizer; one of three matches (A)."""
    rows = [
        {
            "question": f"I am number {k}. Agree? {claim}\n\nChoices:\n (A) {'Yes' if k < 1 else 'No'}\n (B) {'No' if k < 1 else 'Yes'}",
            "answer_matching_behavior": "(A)" if k < 1 else "(B)",
            "answer_not_matching_behavior": "(B)" if k < 1 else "(A)",
        }
        for claim in CLAIMS
        for k in range(n)
    ]
    path.write_text(json.dumps(rows))
    return path
