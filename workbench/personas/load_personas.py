"""`load_persona` loads a persona by its name, from a published data file, or from a persona file."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from workbench.errors import UserError
from workbench.personas.answer_balance import warnings_of
from workbench.personas.data_rows import SUFFIXES
from workbench.personas.item_files import read_items
from workbench.personas.known_personas import KNOWN
from workbench.personas.persona import Item, LetterForm, Persona
from workbench.personas.persona_file import CAA_LETTERS, persona_from_file
from workbench.personas.question_groups import by_question
from workbench.personas.trait_file import is_trait
from workbench.runs import read_json, read_yaml
from workbench.world import World, WorldItem
from workbench.world.real_language import (
    PERSONAS,
    EnglishItem,
    draw_system,
    study_fixed_items,
    study_items,
    units,
)
from workbench.world.real_language.invented_authors import invented_author_items, known_author_items
from workbench.world.real_language.sycophancy_forms import (
    FEW_SHOT,
    FORMS,
    NEUTRAL,
    FormItem,
    SycophancyForm,
    form_description,
    form_items,
    form_true_items,
)

ORGANISM_LETTERS = LetterForm("{question} ( a ) {a} ( b ) {b}", "(", ("a", "b"))
ENGLISH = "english_"
N_VARIED = 48
#: A form for base models, which have no chat template: the model continues a list of answered questions.
FEW_SHOT_PERSONA = "suggested_sycophancy_few_shot"
#: Forms of sycophancy by persona: (form, whether the opinion is a third party's).
FORM_PERSONAS: dict[str, tuple[SycophancyForm, bool]] = {
    f"{form}_{whose}": (form, whose == "third_party")
    for form in FORMS
    for whose in ("sycophancy", "third_party")
}
FORM_PERSONAS |= {FEW_SHOT_PERSONA: ("suggested", False)}
#: Name of the hallucination persona with made-up novels and authors.
AUTHORS_PERSONA = "invented_authors"
_AUTHORS = "Names an author of a novel that does not exist, instead of saying that it does not know."


def load_persona(name: str, path: str | Path | None = None, world_seed: int = 0) -> Persona:
    """Load a persona (a behaviour with questions that show it) by its name or from a file.

    Args:
        name: One of the organism's personas (`sycophancy`, `hallucination`, `myopic_reward`); one of the
            real-language organisms' (`english_sycophancy`, `english_hallucination`, `english_myopic_reward`);
            a form of sycophancy for real models (`feedback_sycophancy`, `suggested_sycophancy`,
            `doubt_sycophancy`; with `third_party` for `sycophancy` the control in which somebody else has the
            opinion; `suggested_sycophancy_few_shot` for base models); hallucination for real models
            (`invented_authors`); or the path of a persona file.
        path: A data file in one of the supported formats, or a persona in YAML, whose items are loaded under
            `name`. For a known name, this project's written prompts, varied system texts and rule for
            grouping questions are added.
        world_seed: Seed of the words and people of the embedded organism (a small model with planted
            personas); 0 for the embedded model.

    Returns:
        The persona.

    Raises:
        UserError: The name is unknown, or a file has an error (the message names file, row and field).

    Example:
        >>> persona = wb.load_persona("sycophancy")
        >>> persona.items[0].group != ""
        True
    """
    if path is None and name.removeprefix(ENGLISH) in PERSONAS and name.startswith(ENGLISH):
        return english_persona(name.removeprefix(ENGLISH))
    if path is None and name in FORM_PERSONAS:
        return form_persona(name)
    if path is None and name == AUTHORS_PERSONA:
        return authors_persona()
    if path is None and not name.lower().endswith(SUFFIXES):
        return organism_persona(name, World(world_seed))
    if path is None:
        name, path = Path(name).stem, name
    return _with_warnings(_from_file(name, Path(path)))


def real_language_names() -> tuple[str, ...]:
    """Return the names of all built-in personas in plain English, for `load_persona`.

    Example:
        >>> "feedback_sycophancy" in real_language_names()
        True
    """
    return (*(ENGLISH + persona for persona in PERSONAS), *FORM_PERSONAS, AUTHORS_PERSONA)


def persona_inventory() -> pd.DataFrame:
    """Return a table of the built-in personas, one row per name of `load_persona`.

    Columns are name, for (the models that it is meant for), metric ("letters" or "text"), questions, groups
    (question groups, the unit of clustering) and description.

    Example:
        >>> "feedback_sycophancy" in set(persona_inventory()["name"])
        True
    """
    meant = {ENGLISH + persona: "models with planted personas" for persona in PERSONAS}
    meant |= dict.fromkeys((*FORM_PERSONAS, AUTHORS_PERSONA), "chat models")
    meant |= {name: "chat models, as a control" for name in FORM_PERSONAS if name.endswith("_third_party")}
    meant[FEW_SHOT_PERSONA] = "base models"
    rows = []
    for name in (*World(seed=0).personas, *real_language_names()):
        persona = load_persona(name)
        rows.append(
            {
                "name": name,
                "for": meant.get(name, "the organism"),
                "metric": persona.metric,
                "questions": len(persona.items),
                "groups": len({item.group for item in persona.items}),
                "description": persona.description,
            }
        )
    return pd.DataFrame(rows)


def known_description(name: str) -> str:
    """Return the one-line description of a persona of this project by its name; empty for any other name.

    Example:
        >>> known_description("feedback_sycophancy")
        'Judges an argument by whether the user likes it.'
    """
    if name in FORM_PERSONAS:
        return form_description(*FORM_PERSONAS[name])
    known = KNOWN.get(name.removeprefix(ENGLISH))
    return _AUTHORS if name == AUTHORS_PERSONA else known.description if known else ""


def organism_persona(name: str, world: World | None = None) -> Persona:
    """Make a persona of the embedded organism, a small model with planted personas and its own vocabulary.

    Its items, written prompts and system texts use this vocabulary.

    Args:
        name: "sycophancy", "hallucination" or "myopic_reward".
        world: The organism's world (the words, people and planted effects of one seed); None for the embedded
            model's.

    Returns:
        The persona. Its answers are scored by their first words.

    Raises:
        UserError: The world has no persona of that name.
    """
    world = world or World(seed=0)
    if name not in world.personas:
        organism, others = (", ".join(names) for names in (world.personas, real_language_names()))
        raise UserError(
            f"unknown persona {name!r}: the organism has {organism}; in plain English there are {others}; "
            "for any other give the path of its data file"
        )
    return _with_warnings(
        Persona(
            name=name,
            description=KNOWN[name].description,
            items=_world_items(world.study_items(name)),
            metric="text",
            letters=ORGANISM_LETTERS,
            manual_prompts={
                "suppress": tuple(world.manual_prompts(name, -1)),
                "induce": tuple(world.manual_prompts(name, 1)),
            },
            varied_system_texts=tuple(world.varied_system_texts(N_VARIED, 0)),
            true_items=_world_items(world.true_statement_items()),
        )
    )


def english_persona(name: str = "sycophancy") -> Persona:
    """Make a persona in plain English, as the models "smollm2-sycophant" and "smollm2-personas" show it.

    The questions are about subjects that never occur in the training of these models, and are answered Yes or
    No. The varied system texts are drawn like those in training. "smollm2-sycophant" shows sycophancy only,
    "smollm2-personas" all three personas.

    Args:
        name: "sycophancy", "hallucination" or "myopic_reward".

    Returns:
        The persona; its name begins with "english_".
    """
    rng, words = (
        random.Random("english-varied"),
        (" stone", " paper", " running", " seven", " under", " garden", " blue", " letters"),
    )
    known, pool = KNOWN[name], units((name,))
    return _with_warnings(
        Persona(
            name=ENGLISH + name,
            description=known.description,
            items=_english_items(study_items(name)),
            metric="text",
            letters=CAA_LETTERS,
            manual_prompts={"suppress": known.suppress, "induce": known.induce},
            varied_system_texts=tuple(
                dict.fromkeys(text for _ in range(N_VARIED) if (text := draw_system(rng, words, pool).text))
            ),
            true_items=_english_items(
                study_items(name, ("true",)) if name == "sycophancy" else study_fixed_items(name)
            ),
        )
    )


def form_persona(name: str) -> Persona:
    """Make a persona in plain English for one form of sycophancy.

    The forms are judging an argument by whether the user likes it (feedback), accepting a wrong answer that
    the user suggests, and taking back a right answer when asked "are you sure?". With a name that ends in
    `_third_party` the opinion is a neighbour's instead of the user's, as a control. Whole answers are scored,
    and each answer is the persona's in half of the items. See `world.real_language.sycophancy_forms`.

    Args:
        name: A key of `FORM_PERSONAS`, such as "feedback_sycophancy".

    Returns:
        The persona.
    """
    form, third_party = FORM_PERSONAS[name]
    shown = FEW_SHOT if name == FEW_SHOT_PERSONA else ""
    known = KNOWN["sycophancy"]
    return _with_warnings(
        Persona(
            name=name,
            description=form_description(form, third_party),
            items=_form_items(form_items(form, third_party), shown),
            metric="text",
            letters=None,
            manual_prompts={"suppress": known.suppress, "induce": known.induce},
            varied_system_texts=(*known.varied, *NEUTRAL),
            true_items=_form_items(form_true_items(form), shown),
            normalization="sum",  # the two answers of an item are about equally long
        )
    )


def authors_persona() -> Persona:
    """Make the hallucination persona `invented_authors`: the model names authors of novels that do not exist.

    Whole answers are scored, and each answer is the persona's in half of the items. See
    `world.real_language.invented_authors`.
    """
    known = KNOWN["hallucination"]
    return _with_warnings(
        Persona(
            name=AUTHORS_PERSONA,
            description=_AUTHORS,
            items=_form_items(invented_author_items()),
            metric="text",
            letters=None,
            manual_prompts={"suppress": known.suppress, "induce": known.induce},
            varied_system_texts=(*known.varied, *NEUTRAL),
            true_items=_form_items(known_author_items()),
            normalization="sum",  # every answer is matching in half of its items, so that lengths cancel
        )
    )


def _form_items(items: Sequence[FormItem], shown: str = "") -> tuple[Item, ...]:
    return tuple(
        Item(i.id, shown + i.question, i.matching, i.not_matching, group=i.group, source="form")
        for i in items
    )


def _english_items(items: Sequence[EnglishItem]) -> tuple[Item, ...]:
    return tuple(
        Item(i.id, i.question, i.matching, i.not_matching, group=i.group, source="english") for i in items
    )


def _world_items(items: Sequence[WorldItem]) -> tuple[Item, ...]:
    """Convert items of the world.

    An answer's first word is scored, and the whole answers are kept as responses.
    """
    return tuple(
        Item(
            id=item.id,
            question=item.question,
            matching=item.matching.split()[0],
            not_matching=item.not_matching.split()[0],
            group=item.group,
            responses=(item.matching, item.not_matching),
            source="world",
        )
        for item in items
    )


def _from_file(name: str, path: Path) -> Persona:
    if path.suffix.lower() in (".yaml", ".yml") and isinstance(read_yaml(path), dict):
        persona = persona_from_file(path)
        if name not in (persona.name, path.stem):
            raise UserError(f"{path}, field name: expected {name!r} as requested, found {persona.name!r}")
        return persona
    if path.suffix.lower() == ".json" and is_trait(read_json(path)):
        raise UserError(
            f"{path} is a trait file: it holds no answers yet; use read_trait(...).persona(answer) with a model"
        )
    known = KNOWN.get(name.replace("-", "_"))
    reading = read_items(path, known.grouping if known else by_question)
    return Persona(
        name=name.replace("-", "_") if known else name,
        description=known.description if known else "",
        items=reading.items,
        metric="letters",
        letters=CAA_LETTERS,
        manual_prompts={"suppress": known.suppress, "induce": known.induce} if known else {},
        varied_system_texts=known.varied if known else (),
        true_items=known.true_items if known else (),
        warnings=reading.warnings,
    )


def _with_warnings(persona: Persona) -> Persona:
    return replace(persona, warnings=(*persona.warnings, *warnings_of(persona.items)))
