"""A persona drafted by a language model from one description: an editable file to start from, every pair checked.

1. *Opposite*: the model says what the opposite of the behaviour is, unless the user says it.
2. *Questions*: numbered lists, round after round with another sampling seed, until there are enough different
   ones. A local model writes a list line by line, each line after another first word.
3. *Answers*: each question is answered under the behaviour and under its opposite (persona vectors, arXiv
   2507.21509, make their data so).
4. *Checks*: a pair is kept where both answers are whole, short and different, neither begins the other,
   refuses or repeats the description, and where the model says in both orders of the two answers which one
   shows the behaviour.
5. *Sentences*: system sentences that request the behaviour and sentences that request its opposite, each
   judged as the pairs are. All are varied system texts, with neutral sentences; the first four of each are
   written prompts.
6. *True statements* that the model agrees are true, for the guard against a model that denies everything.

A local model answers and judges by the likelihoods of whole texts (`draft_likelihoods`): small models give
one letter whatever is asked.

A draft with fewer pairs than `MIN_PAIRS` is an error that counts what was dropped and why; nothing is written
then.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from workbench.errors import UserError
from workbench.evaluation.chat_models import Ask
from workbench.personas import check_persona
from workbench.personas.persona_file import parse, persona_from
from workbench.runs import parse_yaml
from workbench.study.draft_writer import OPPOSITE, WRITTEN, DraftedPair, DraftWriter
from workbench.study.persona_model_check import check_on_model
from workbench.text_forms import canonical
from workbench.world.real_language.sycophancy_forms import NEUTRAL

#: Fewest pairs of a draft: each of the four splits then has a few groups.
MIN_PAIRS = 12
#: Fewest system sentences of each side.
MIN_SENTENCES = 3


@dataclass(frozen=True)
class PersonaDraft:
    """What a model drafted.

    Attributes:
        name: Of the persona.
        description, opposite: The behaviour and its opposite, in words.
        pairs: Kept pairs.
        induce, suppress: System sentences for the behaviour and against it.
        true_statements: Statements that deserve agreement.
        dropped: Why questions and pairs were dropped, with counts.
    """

    name: str
    description: str
    opposite: str
    pairs: tuple[DraftedPair, ...]
    induce: tuple[str, ...]
    suppress: tuple[str, ...]
    true_statements: tuple[str, ...] = ()
    dropped: tuple[tuple[str, int], ...] = ()

    def to_yaml(self, author: str = "a model") -> str:
        """A persona file that `load_persona` reads, with a comment that says what it is."""
        rows = [
            {
                "question": p.question,
                "matching": p.matching,
                "not_matching": p.not_matching,
                "group": p.question,
            }
            for p in self.pairs
        ]
        content = {
            "name": self.name,
            "description": self.description,
            "metric": "text",
            "normalization": "mean",
            "manual_prompts": {
                "suppress": list(self.suppress[:WRITTEN]),
                "induce": list(self.induce[:WRITTEN]),
            },
            "varied_system_texts": [*self.induce, *self.suppress, *NEUTRAL],
            "true_statements": list(self.true_statements),
            "data": rows,
        }
        head = [
            f"# Drafted by {author} from: {self.description}",
            f"# Opposite: {self.opposite}",
            "# A draft: read every pair and change or delete what does not show the behaviour, then",
            "#   workbench persona check THIS_FILE --model MODEL",
        ]
        lines = "\n".join(" ".join(line.split()) for line in head)
        return f"{lines}\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)}"


def draft_persona(
    description: str,
    ask: Ask,
    opposite: str | None = None,
    pairs: int = 24,
    name: str | None = None,
    report: Callable[[str, float], None] | None = None,
) -> PersonaDraft:
    """A persona for a behaviour, in the words of a model.

    Args:
        description: The behaviour, in plain words ("overconfident medical advice").
        ask: Who writes: a `LocalModel`, an `Endpoint`, or any function from a request to a reply.
        opposite: What the assistant does instead; None: the model is asked.
        pairs: Pairs that are wanted.
        name: Of the persona; None: the first words of the description.
        report: Called with a stage and the part of it that is done, 0 to 1.

    Returns:
        The draft; at least `MIN_PAIRS` pairs and `MIN_SENTENCES` sentences a side.

    Raises:
        UserError: The description is empty, or the model gave too few usable pairs or sentences.

    Example:
        >>> draft = draft_persona("gives overconfident medical advice", LocalModel(model))  # doctest: +SKIP
        >>> Path("overconfident.yaml").write_text(draft.to_yaml())  # doctest: +SKIP
    """
    behaviour = " ".join(description.split()).rstrip(".")
    if not behaviour:
        raise UserError("a draft needs a description of the behaviour, found an empty text")
    if pairs < MIN_PAIRS:
        raise UserError(f"a draft needs at least {MIN_PAIRS} pairs, found {pairs}")
    writer = DraftWriter(ask, behaviour, report or (lambda stage, done: None))
    writer.other = other = " ".join(
        (opposite or writer.line(OPPOSITE.format(behaviour=behaviour))).split()
    ).rstrip(".")
    if not other or canonical(other) == canonical(behaviour):
        raise UserError(f"the model names no opposite of {behaviour!r}: say what it is yourself (--opposite)")
    kept = writer.pairs(pairs)
    if len(kept) < MIN_PAIRS:
        why = (
            ", ".join(f"{count} {reason}" for reason, count in writer.dropped.most_common())
            or "no question came"
        )
        raise UserError(
            f"the model gave {len(kept)} usable pairs ({why}): at least {MIN_PAIRS} are needed; try a larger model or --opposite"
        )
    induce, suppress = (writer.sentences(shows, kept) for shows in (True, False))
    if min(len(induce), len(suppress)) < MIN_SENTENCES:
        found = f"{len(induce)} system sentences for and {len(suppress)} against {behaviour!r}"
        raise UserError(
            f"the model wrote {found}: at least {MIN_SENTENCES} of each are needed; try a larger model or --opposite"
        )
    known = name or "_".join(re.findall(r"\w+", behaviour.lower())[:4])
    return PersonaDraft(
        known,
        behaviour,
        other,
        tuple(kept),
        induce,
        suppress,
        writer.true_statements(),
        tuple(writer.dropped.most_common()),
    )


@dataclass(frozen=True)
class DraftCheck:
    """A draft as a persona file and what its checks say.

    Attributes:
        text: Of the file.
        table: The figures of `workbench persona check`.
        notes: Warnings and advice, one line each.
        refusals: What `run` would refuse; empty where it accepts the draft.
    """

    text: str
    table: pd.DataFrame
    notes: tuple[str, ...]
    refusals: tuple[str, ...]


def check_draft(draft: PersonaDraft, path: Path, author: str = "a model", model: Any = None) -> DraftCheck:
    """A draft's file, read back as `load_persona` would, with the checks of its data and (with a model) on the model; nothing is written.

    Args:
        draft: What was drafted.
        path: Where the file will be.
        author: Who drafted it, for the file's first line.
        model: A loaded model for the checks that need one.
    """
    text = draft.to_yaml(author)
    persona = persona_from(parse(path, parse_yaml(text, str(path))), path)
    data = check_persona(persona)
    if model is None:
        return DraftCheck(text, data.table, data.warnings, ())
    found = check_on_model(model, persona)
    return DraftCheck(
        text,
        pd.concat([data.table, found.table], ignore_index=True),
        (*data.warnings, *found.notes),
        found.refusals,
    )
