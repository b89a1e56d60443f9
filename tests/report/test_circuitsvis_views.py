"""What a notebook's circuitsvis views show of tokens."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from workbench.report.circuitsvis_views import ledger_view


@pytest.mark.parametrize(
    ("tokens", "text", "shown"),
    [
        (
            ("be", "honest", "."),
            "be honest .",
            "be honest .",
        ),  # words without spaces of their own: they were glued together
        (("be", " honest", "."), "be honest.", "be honest."),
        ((" Be", " hon", "est"), "Be honest", " Be honest"),
        (
            ("\N{REPLACEMENT CHARACTER}", "b"),
            "\N{GRINNING FACE}b",
            "\N{REPLACEMENT CHARACTER}b",
        ),  # half a character: as they are
    ],
)
def test_a_ledgers_words_are_apart(
    monkeypatch: pytest.MonkeyPatch, tokens: tuple[str, ...], text: str, shown: str
) -> None:
    from circuitsvis import tokens as circuitsvis_tokens

    given: list[list[str]] = []
    real = circuitsvis_tokens.colored_tokens_multi

    def noted(words, values, labels):
        given.append(list(words))
        return real(words, values, labels)

    monkeypatch.setattr(circuitsvis_tokens, "colored_tokens_multi", noted)
    ledger_view(
        SimpleNamespace(
            tokens=tokens,
            text=text,
            means=lambda estimator: np.zeros((len(tokens), 1)),
            shown_names=["answer"],
        )
    )
    assert "".join(given[0]).replace("\N{MIDDLE DOT}", " ") == shown
