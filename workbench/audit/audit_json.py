"""Conversion of an audit to plain JSON values."""

from __future__ import annotations

import math
from typing import Any

from workbench.audit.added_sentence import AddedSentence
from workbench.audit.audit_result import Audit
from workbench.audit.minimal_edit import MinimalEdit, OffTargetChange
from workbench.statistics import Interval


def to_json(audit: Audit) -> dict[str, Any]:
    """Convert an audit to plain JSON values (version 1 of the format).

    An interval is {estimate, low, high}; a value that is not finite is null.
    """
    facts = (
        "prompt",
        "persona",
        "model",
        "sign",
        "slot",
        "tolerance",
        "max_edits",
        "seed",
        "questions",
        "groups",
        "need",
    )
    effects = audit.effects
    return {
        "schema": 1,
        **{name: getattr(audit, name) for name in facts},
        "estimator": effects.estimator,
        "whole": _interval(effects.whole),
        "slot_alone": None if effects.slot is None else _interval(effects.slot),
        "words": [
            {
                "word": w.word,
                **_interval(w.interval),
                "p": w.p,
                "named": w.named,
                "through": {t.name: _interval(t.interval) for t in w.through},
            }
            for w in effects.words
        ],
        "phrases": [
            {
                "first": p.first,
                **_interval(p.beyond),
                "together": _interval(p.both),
                "alone": [_interval(i) for i in p.alone],
                "p": p.p,
            }
            for p in effects.phrases
        ],
        "minimal_edit": None if audit.minimal_edit is None else _edit_json(audit.minimal_edit),
        "sentence": None if audit.sentence is None else _sentence_json(audit.sentence),
        "mediation": [result.to_entry().model_dump(mode="json") for result in audit.mediation],
        "notes": list(audit.notes),
    }


def _edit_json(edit: MinimalEdit) -> dict[str, Any]:
    return {
        "text": edit.text,
        "changes": [{"word": i, "new": new} for i, new in edit.changes],
        "remaining": _interval(edit.remaining),
        "change": _interval(edit.change),
        "suffices": edit.suffices,
        "confirmed": edit.equivalence.equivalent,
        "p": edit.equivalence.p,
        "cross_entropy": list(edit.cross_entropy),
        "tried": edit.tried,
        "collateral": _collateral_json(edit.collateral),
    }


def _sentence_json(added: AddedSentence) -> dict[str, Any]:
    return {
        "sentence": added.sentence,
        "text": added.text,
        "remaining": _interval(added.remaining),
        "change": _interval(added.change),
        "cross_entropy": list(added.cross_entropy),
        "harmless": added.harmless,
        "model_calls": added.model_calls,
        "seconds": added.seconds,
        "warnings": list(added.warnings),
        "collateral": _collateral_json(added.collateral),
    }


def _collateral_json(entries: tuple[OffTargetChange, ...]) -> list[dict[str, Any]]:
    return [
        {
            "name": c.name,
            "kind": c.kind,
            "bare": c.bare,
            "before": _interval(c.before),
            "after": _interval(c.after),
            "harmed": c.harmed,
        }
        for c in entries
    ]


def _interval(interval: Interval) -> dict[str, float | None]:
    low, high = interval.to_json()
    return {
        "estimate": interval.estimate if math.isfinite(interval.estimate) else None,
        "low": low,
        "high": high,
    }
