"""Trait files of persona_vectors: opposite system instructions and questions, to make a persona with a model.

A file (github safety-research/persona_vectors, data_generation) is one JSON object: "instruction", a list of
{"pos", "neg"}; "questions", a list; "eval_prompt", a judge's prompt with {question} and {answer} (other
fields are ignored).

1. A model answers each question under the positive and the negative instruction of each pair (`answer`).
2. A pair of answers is kept if `keep` accepts both (it may be a judge, a rule or the user).
3. The kept pairs become items; each question is one group. The question must make sense without the
   instruction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.errors import UserError
from workbench.personas.persona import Item, Persona
from workbench.runs import read_json
from workbench.text_forms import canonical, join_surrogates, require_whole_text, unify_line_ends

Answer = Callable[[str, str], str]  # (system text, question) -> answer
Keep = Callable[[str, str, bool], bool]  # (question, answer, should show the trait) -> kept


@dataclass(frozen=True)
class TraitFile:
    """A trait with opposite system instructions and questions, as in the trait files of persona_vectors.

    Attributes:
        name: Name of the trait.
        instruction_pairs: Pairs of instructions: one requests the trait, the other its opposite.
        questions: Questions to answer under each instruction.
        eval_prompt: A judge's prompt with {question} and {answer}; empty if the file has none.
    """

    name: str
    instruction_pairs: tuple[tuple[str, str], ...]
    questions: tuple[str, ...]
    eval_prompt: str = ""

    @property
    def system_texts(self) -> tuple[str, ...]:
        """All system instructions of the trait file, alternately for and against the trait."""
        return tuple(text for pair in self.instruction_pairs for text in pair)

    def persona(self, answer: Answer, keep: Keep | None = None, description: str = "") -> Persona:
        """Make a persona from a model's answers under opposite instructions; whole answers are scored.

        Args:
            answer: Function from (system text, question) to the model's answer.
            keep: Function from (question, answer, whether it should show the trait) to whether the answer is
                kept; None keeps all.
            description: One line about the behaviour.

        Returns:
            The persona, with one item for each question and pair of instructions of which both answers are
            kept.

        Raises:
            UserError: Fewer than two pairs of answers are kept.
        """
        items = []
        for question_number, question in enumerate(self.questions, start=1):
            for pair_number, (induce, suppress) in enumerate(self.instruction_pairs, start=1):
                shown, not_shown = answer(induce, question), answer(suppress, question)
                if _kept(keep, question, shown, not_shown):
                    name = f"{self.name}-q{question_number:02d}-i{pair_number}"
                    items.append(
                        Item(
                            name, question, shown.strip(), not_shown.strip(), group=question, source=self.name
                        )
                    )
        if len(items) < 2:
            total = len(self.questions) * len(self.instruction_pairs)
            raise UserError(
                f"trait {self.name!r}: {len(items)} of {total} pairs of answers were kept, at least 2 are needed"
            )
        prompts = {
            "induce": tuple(p for p, _ in self.instruction_pairs),
            "suppress": tuple(n for _, n in self.instruction_pairs),
        }
        return Persona(self.name, description, tuple(items), "text", None, prompts, self.system_texts)


def is_trait(value: Any) -> bool:
    """Whether a JSON value is a trait file of persona_vectors, judged by its fields."""
    return isinstance(value, dict) and "instruction" in value and "questions" in value


def read_trait(path: str | Path, name: str | None = None) -> TraitFile:
    """Read a trait file of persona_vectors.

    Args:
        path: The JSON file.
        name: Name of the trait; None for the file's name without suffix.

    Returns:
        The trait.

    Raises:
        UserError: The file is wrong; the message names the field.
    """
    path, value = Path(path), read_json(path, limit=64 << 20)
    if not is_trait(value):
        raise UserError(f"{path}: expected a trait file with the fields 'instruction' and 'questions'")
    pairs = [
        _pair(path, number, entry) for number, entry in enumerate(_list(path, value, "instruction"), start=1)
    ]
    questions = [
        _text(f"{path}, questions, row {n}", q)
        for n, q in enumerate(_list(path, value, "questions"), start=1)
    ]
    names = [canonical(question) for question in questions]
    repeated = [question for question, name in zip(questions, names, strict=True) if names.count(name) > 1]
    if repeated:
        raise UserError(f"{path}, field questions: {repeated[0][:60]!r} appears twice")
    prompt = value.get("eval_prompt", "")
    if prompt and not (isinstance(prompt, str) and "{question}" in prompt and "{answer}" in prompt):
        raise UserError(f"{path}, field eval_prompt: expected text with {{question}} and {{answer}}")
    return TraitFile(name or path.stem, tuple(pairs), tuple(questions), prompt)


def _kept(keep: Keep | None, question: str, shown: str, not_shown: str) -> bool:
    if not shown.strip() or not not_shown.strip() or shown.strip() == not_shown.strip():
        return False
    return keep is None or (keep(question, shown, True) and keep(question, not_shown, False))


def _pair(path: Path, number: int, entry: Any) -> tuple[str, str]:
    where = f"{path}, instruction, row {number}"
    if not isinstance(entry, dict) or not {"pos", "neg"} <= set(entry):
        raise UserError(f"{where}: expected the fields 'pos' and 'neg'")
    return _text(f"{where}, field pos", entry["pos"]), _text(f"{where}, field neg", entry["neg"])


def _list(path: Path, value: dict[str, Any], name: str) -> list[Any]:
    if not isinstance(value[name], list) or not value[name]:
        raise UserError(f"{path}, field {name}: expected a list with at least one entry")
    return value[name]


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: expected text, found {type(value).__name__} {str(value)[:40]!r}")
    return require_whole_text(unify_line_ends(join_surrogates(value)), where).strip()
