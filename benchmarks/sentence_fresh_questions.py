"""Do found sentences keep their lead on questions that no version of the search has seen?

All versions of the search were reported on the same test questions, so a version may be kept because it does well on
just these. Here the found sentences and the best written one (chosen on selection questions) answer fresh questions
about the subjects of the test split: drawn with another seed, those that the persona already has left out. The
interval of the difference is a two-level bootstrap over seeds and subjects, as in `benchmarks.sentences`.

    python -m benchmarks.sentence_fresh_questions --found benchmarks/latest/sentences_1201
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.sentences import CELLS, loaded, two_level
from workbench.contexts import make_contexts
from workbench.forced_choice import answer
from workbench.personas import Item, Split, load_persona
from workbench.runs import read_json, write_json
from workbench.world.real_language.persona_questions import study_items

SEED = 7
PER_SUBJECT = 6


def fresh_questions(persona: str) -> Split:
    """Questions about the subjects of the test split that are not among the persona's own."""
    own = load_persona(f"english_{persona}")
    test, known = own.split(seed=0).test, {item.question for item in own.items}
    drawn = [
        Item(i.id, i.question, i.matching, i.not_matching, group=i.group, source="english")
        for i in study_items(persona, per_subject=PER_SUBJECT, seed=SEED)
    ]
    subjects = set(test.groups)
    items = tuple(item for item in drawn if item.group in subjects and item.question not in known)
    return replace(test, items=items)


def measured_cell(found: Path, model_name: str, persona: str) -> dict[str, Any]:
    """Effects of the found sentences and of the best written one on fresh questions."""
    model, split = loaded(model_name), fresh_questions(persona)
    contexts = make_contexts(model, split)
    bare = answer(model, contexts).log_odds
    written = read_json(found / f"{model_name}-{persona}-written.json", schema=1)["written"]["prompt"]
    paths = sorted(found.glob(f"{model_name}-{persona}-sentences-*.json"))
    prompts = [read_json(path, schema=1)["prompt"] for path in paths]
    effects = [(answer(model, contexts, text).log_odds - bare).tolist() for text in (written, *prompts)]
    groups, matching = list(contexts.groups), [item.matching for item in split.items]
    rounded = lambda values: [round(float(value), 4) for value in values]  # noqa: E731
    return {
        "model": model_name,
        "persona": persona,
        "questions": len(split),
        "subjects": len(set(groups)),
        "log_odds": round(float(np.mean(bare)), 4),
        "written": {"prompt": written, "effect": rounded(two_level(effects[:1], groups))},
        "effect": rounded(two_level(effects[1:], groups)),
        "over_written": rounded(two_level(effects[1:], groups, effects[0])),
        "balanced_over_written": rounded(two_level(effects[1:], groups, effects[0], matching=matching)),
        "each": [
            {"prompt": text, "effect": round(float(np.mean(row)), 4)}
            for text, row in zip(prompts, effects[1:], strict=True)
        ],
    }


def main() -> None:
    """Measure every cell and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--found", type=Path, default=Path("benchmarks/latest/sentences_1201"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/latest/sentence_fresh_questions.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measured_cell(arguments.found, *cell) for cell in CELLS]
    for row in rows:
        print(
            row["model"],
            row["persona"],
            row["questions"],
            row["subjects"],
            row["effect"],
            row["over_written"],
        )
    write_json(arguments.out, {"schema": 1, "found": arguments.found.name, "rows": rows})


if __name__ == "__main__":
    main()
