"""The audit against what is planted in the organism: are the right words named, do one or two edits suffice, what else is harmed.

Per persona, `prompts` texts of 12 to 24 neutral words with one to three planted units hidden in them, and as
many without any:
1. Naming, for several thresholds (half the audit's `tolerance`): precision is the fraction of named words
   that belong to a unit planted for this persona; recall the fraction of planted units of which a word is
   named. Thresholds are compared on *selection* questions and texts of their own; the audit's threshold is
   then read on *test* questions.
2. Minimal edits, of the texts that the audit says need it: the fraction corrected by one edit, by at most two
   (the rule passed on selection questions, and confirmed on test questions), and of the edits the fraction
   that harms truth or another persona.
3. Neutral texts: the words named for nothing, and how often an edit is proposed.

    python -m benchmarks.audit --out benchmarks/latest/audit.json
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workbench.attribution.attribution_targets import as_targets
from workbench.audit import Audit, PromptEffects, PromptWords, audit
from workbench.audit.word_effects import WordProblem, word_effects
from workbench.contexts import make_contexts
from workbench.models import load_model, runner_for
from workbench.personas import load_persona
from workbench.world import World

THRESHOLDS = (0.15, 0.25, 0.35, 0.5)


@dataclass(frozen=True)
class Hidden:
    """A text with planted units in it."""

    text: str
    units: tuple[str, ...]

    @property
    def words(self) -> set[str]:
        """The words of its units."""
        return {word for unit in self.units for word in unit.split()}


def hidden(world: World, persona: str, sign: int, count: int, rng: random.Random) -> Hidden:
    """A long neutral text with `count` units of one persona, which together move it by at least 1 in the way of `sign`."""
    own = [effect.phrase for effect in world.effects if effect.persona == persona]
    while True:
        units = tuple(rng.sample(own, count))
        text = world.sampler.text(rng, units)
        planted = sum(world.effect_of(persona, unit) for unit in units)
        alone = math.isclose(world.effect_of(persona, text), planted, abs_tol=1e-9)
        if alone and 12 <= len(text.split()) <= 24 and (not count or planted * sign >= 1):
            return Hidden(text, units)


def naming(pairs: Sequence[tuple[Hidden, PromptEffects]], threshold: float) -> dict[str, Any]:
    """Precision and recall where a word is named if its effect is clear and at least `threshold`."""
    right = named = found = planted = 0
    for made, effects in pairs:
        words = {w.word for w in effects.words if w.named and abs(w.interval.estimate) >= threshold}
        named, right = named + len(words), right + len(words & made.words)
        planted, found = (
            planted + len(made.units),
            found + sum(bool(words & set(unit.split())) for unit in made.units),
        )
    share = lambda part, whole: round(part / whole, 3) if whole else None  # noqa: E731
    return {
        "precision": share(right, named),
        "recall": share(found, planted),
        "named": named,
        "units": planted,
    }


def thresholds(model: Any, world: World, prompts: int, questions: int) -> dict[str, Any]:
    """Naming by threshold on selection questions, over all personas, on texts that the test does not use."""
    pairs = []
    for persona in world.personas:
        contexts = make_contexts(model, load_persona(persona).split(0).selection, n=questions)
        for k in range(prompts):
            made = hidden(world, persona, +1, k % 4, random.Random(f"audit-selection-{persona}-{k}"))
            problem = WordProblem.of(runner_for(model), PromptWords.of(made.text), contexts, as_targets([]))
            pairs.append((made, word_effects(problem, least=min(THRESHOLDS))))
    return {str(threshold): naming(pairs, threshold) for threshold in THRESHOLDS}


def one_persona(model: Any, world: World, persona: str, prompts: int) -> dict[str, Any]:
    """Naming, minimal edits and false findings on texts of its own."""
    texts = [
        hidden(world, persona, +1, 1 + k % 3, random.Random(f"audit-test-{persona}-{k}"))
        for k in range(prompts)
    ]
    neutral = [
        hidden(world, persona, +1, 0, random.Random(f"audit-neutral-{persona}-{k}")) for k in range(prompts)
    ]
    started = time.process_time()
    audits = [audit(model, made.text, persona) for made in texts]
    seconds = (time.process_time() - started) / prompts
    clean = [audit(model, made.text, persona, max_edits=0) for made in neutral]
    return {
        "naming": naming([(made, found.effects) for made, found in zip(texts, audits, strict=True)], 0.0),
        "mending": minimal_edit_sentence(audits),
        "neutral": {
            "texts": prompts,
            "words": sum(len(a.words) for a in clean),
            "named": sum(len(a.named) for a in clean),
            "called_for_a_mend": sum(a.need == "edit" for a in clean),
        },
        "processor_seconds_an_audit": round(seconds, 2),
        "audits": [
            {
                "prompt": made.text,
                "planted": made.units,
                "named": found.named,
                "need": found.need,
                "effect": found.effects.whole.estimate,
                "mend": found.minimal_edit and found.minimal_edit.text,
                "suffices": found.minimal_edit and found.minimal_edit.suffices,
                "remaining": found.minimal_edit and found.minimal_edit.remaining.estimate,
            }
            for made, found in zip(texts, audits, strict=True)
        ],
    }


def minimal_edit_sentence(audits: Sequence[Audit]) -> dict[str, Any]:
    """Fractions of the audits that propose an edit; harm is judged on test questions."""
    mends = [found.minimal_edit for found in audits if found.need == "edit"]
    given = [minimal_edit for minimal_edit in mends if minimal_edit is not None]
    passed = [minimal_edit for minimal_edit in given if minimal_edit.suffices]

    def size(n):
        return (
            round(sum(len(minimal_edit.changes) <= n for minimal_edit in passed) / len(mends), 3)
            if mends
            else None
        )

    remains = [abs(minimal_edit.remaining.estimate) for minimal_edit in given]
    return {
        "needed": len(mends),
        "mended_by_1": size(1),
        "mended_by_2": size(2),
        "confirmed": round(np.mean([m.equivalence.equivalent for m in passed]), 3) if passed else None,
        "mean_remaining_log_odds": round(float(np.mean(remains)), 3) if remains else None,
        "harmed": {
            kind: sum(any(c.harmed and c.kind == kind for c in m.collateral) for m in given)
            for kind in ("truth", "persona")
        },
        "fluency_change": round(float(np.mean([m.cross_entropy[1] - m.cross_entropy[0] for m in given])), 3)
        if given
        else None,
    }


def main() -> None:
    """Runs it and writes the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/latest/audit.json"))
    parser.add_argument("--prompts", type=int, default=8)
    options = parser.parse_args()
    model, world = load_model("organism"), World()
    figures = {
        "benchmark": "audit",
        "model": runner_for(model).fingerprint,
        "prompts": options.prompts,
        "thresholds_on_selection": thresholds(model, world, options.prompts, questions=16),
        "personas": {
            persona: one_persona(model, world, persona, options.prompts) for persona in world.personas
        },
    }
    options.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
