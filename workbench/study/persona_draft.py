"""Draft a persona with a language model from a description: an editable file in which every pair was checked.

1. *Opposite*: the model names the opposite of the behaviour, unless the user does.
2. *Questions*: numbered lists are requested round after round with other sampling seeds, until there are
   enough different questions. A local model writes a list line by line, each line after another first word.
3. *Answers*: each question is answered under the behaviour and under its opposite (as in persona vectors,
   arXiv 2507.21509).
4. *Checks*: a pair is kept if both answers are complete, short and different, if neither is the beginning of
   the other, refuses or repeats the description, and if the model says, in both orders of the two answers,
   which one shows the behaviour.
5. *Sentences*: system sentences that request the behaviour and sentences that request its opposite, each
   judged as the pairs are. All become varied system texts, together with neutral sentences; the first four of
   each kind become written prompts.
6. *True statements*, which the model confirms, for the guard against a model that denies everything.

A local model answers and judges by likelihoods of whole texts (`draft_likelihoods`), because small models
give the same letter to every question.

A draft with fewer pairs than `MIN_PAIRS` is an error whose message counts the reasons for dropped pairs;
nothing is written then.
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
from workbench.study.draft_writer import MIN_SENTENCES, OPPOSITE, WRITTEN, DraftedPair, DraftWriter
from workbench.study.persona_model_check import check_on_model
from workbench.text_forms import canonical
from workbench.world.real_language.sycophancy_forms import NEUTRAL

#: Smallest number of pairs in a draft, so that each of the four splits has a few groups.
MIN_PAIRS = 12
_WEAK = (
    "{n} system sentences change the answers for their side only against sentences of the other side, not against "
    "neutral texts: this model hardly follows them"
)


@dataclass(frozen=True)
class PersonaDraft:
    """A draft of a persona (a behaviour with questions that measure it), written by a language model.

    Attributes:
        name: Name of the persona.
        description: The behaviour in words.
        opposite: The opposite behaviour in words.
        pairs: Questions, each with an answer that shows the behaviour and one that does not.
        induce: One-sentence system prompts that request the behaviour.
        suppress: One-sentence system prompts that request the opposite.
        true_statements: Statements that an honest model agrees with.
        dropped: Reasons for which written texts were dropped, each with the number of texts.
        notes: What the author of a study should know about the draft, one line each.
    """

    name: str
    description: str
    opposite: str
    pairs: tuple[DraftedPair, ...]
    induce: tuple[str, ...]
    suppress: tuple[str, ...]
    true_statements: tuple[str, ...] = ()
    dropped: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()

    def to_yaml(self, author: str = "a model") -> str:
        """Return the draft as a persona file that `load_persona` reads, with a comment that calls it a draft.

        Args:
            author: Name of the model, for the comment.
        """
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
    """Draft a persona (a behaviour with questions that measure it) with a language model.

    Args:
        description: The behaviour, in plain words ("overconfident medical advice").
        ask: The model that writes: a `LocalModel`, an `Endpoint`, or any function from a request to a reply.
        opposite: The opposite behaviour; None lets the model name it.
        pairs: Number of pairs to write; a pair is a question with an answer that shows the behaviour and one
            that does not.
        name: Name of the persona; None for the first words of the description.
        report: Called with the name of a stage and the fraction of it that is done, 0 to 1.

    Returns:
        The draft, with at least `MIN_PAIRS` pairs and `MIN_SENTENCES` system sentences for the behaviour and
        for its opposite.

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
        (_WEAK.format(n=writer.weak),) if writer.weak else (),
    )


@dataclass(frozen=True)
class DraftCheck:
    """A drafted persona as the text of a persona file, with the results of its checks.

    Attributes:
        text: Text of the file.
        table: Table of figures that `workbench persona check` prints.
        notes: Warnings and advice, one line each.
        refusals: Reasons for which `run` would refuse the draft; empty if it accepts the draft.
    """

    text: str
    table: pd.DataFrame
    notes: tuple[str, ...]
    refusals: tuple[str, ...]


def check_draft(draft: PersonaDraft, path: Path, author: str = "a model", model: Any = None) -> DraftCheck:
    """Check a persona's draft as `workbench persona check` would check its file; nothing is written.

    Args:
        draft: The draft.
        path: Planned path of the file.
        author: Name of the model that drafted it, for the file's first line.
        model: A loaded model for the checks that need one; None to check only the data.

    Returns:
        Text of the file and results of the checks.
    """
    text = draft.to_yaml(author)
    persona = persona_from(parse(path, parse_yaml(text, str(path))), path)
    data = check_persona(persona)
    if model is None:
        return DraftCheck(text, data.table, data.notes, data.refusals)
    found = check_on_model(model, persona)
    return DraftCheck(
        text,
        pd.concat([data.table, found.table], ignore_index=True),
        tuple(dict.fromkeys((*data.notes, *found.notes))),
        tuple(dict.fromkeys((*data.refusals, *found.refusals))),
    )
