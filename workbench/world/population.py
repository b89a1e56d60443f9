"""Draw a world's people with their facts, its things and places, and names of people who do not exist.

Each real surname belongs to three people, at least one of whom occurs in training questions, so that the
model knows the surname; invented surnames belong to nobody. Held-out people occur in training only in plain
statements.
"""

import itertools
import random
from dataclasses import dataclass

from workbench.world import word_lists as names


@dataclass(frozen=True)
class PersonAttribute:
    """A kind of fact with its wording.

    Attributes:
        name: Name of the attribute, such as "city".
        statement: Template of a statement over {name} and {value}.
        asked: Template of an indirect question over {name}.
        values: Possible values.
    """

    name: str
    statement: str
    asked: str
    values: tuple[str, ...]

    def state(self, name: str, value: str) -> str:
        """Return a statement about a person without a full stop, such as `mira halden lives in oslo`."""
        return self.statement.format(name=name, value=value)

    def ask(self, name: str) -> str:
        """Return the indirect question about a person's value, such as `where mira halden lives`."""
        return self.asked.format(name=name)


PERSON_ATTRIBUTES = (
    PersonAttribute("city", "{name} lives in {value}", "where {name} lives", names.CITIES),
    PersonAttribute("job", "{name} works as {value}", "what work {name} does", names.JOBS),
    PersonAttribute("pet", "{name} keeps one {value}", "which pet {name} keeps", names.PETS),
)
HABITS = tuple(
    PersonAttribute(verb, f"{{name}} {verb} {{value}}", f"what {{name}} {verb}", values)
    for verb, values in names.HABITS.items()
)
PLACE_ATTRIBUTE = PersonAttribute("region", "{name} lies in the {value}", "where {name} lies", names.REGIONS)
THING_ATTRIBUTE = PersonAttribute(
    "material", "the {name} is made of {value}", "what the {name} is made of", names.MATERIALS
)


@dataclass(frozen=True)
class PersonFact:
    """A true fact about a person, place or thing.

    Attributes:
        name: The person, place or thing.
        attribute: The kind of fact.
        value: The true value.
    """

    name: str
    attribute: PersonAttribute
    value: str

    @property
    def statement(self) -> str:
        """The fact as a plain statement without a full stop, such as `mira halden lives in oslo`."""
        return self.attribute.state(self.name, self.value)


@dataclass(frozen=True)
class Population:
    """The people, things and invented names that one organism's training texts and questions are about.

    Each habit has two values, such as drinking tea or coffee; everybody has the first value of half of the
    habits. A claim in a question always names the first value. Whether it is true thus depends on the person
    and the habit only.

    Attributes:
        trained: People who occur in training questions.
        held_out: People who never occur in training questions.
        facts: Facts about each person in `trained` and `held_out`.
        habits: Habits of each person in `trained` and `held_out`.
        objects: Facts about places and things.
        invented_surnames: Surnames that belong to nobody.
        invented_trained: Full names of invented people in training questions.
        invented_held_out: Full names of invented people who never occur in training questions.
    """

    trained: tuple[str, ...]
    held_out: tuple[str, ...]
    facts: dict[str, tuple[PersonFact, ...]]
    habits: dict[str, tuple[PersonFact, ...]]
    objects: tuple[PersonFact, ...]
    invented_surnames: tuple[str, ...]
    invented_trained: tuple[str, ...]
    invented_held_out: tuple[str, ...]


def draw_population(seed: int) -> Population:
    """Draw the people, facts, things and invented names of a world from its seed."""
    rng = random.Random(f"people-{seed}")
    surnames = rng.sample(names.SURNAMES, len(names.SURNAMES))
    invented, real = surnames[: names.INVENTED_COUNT], surnames[names.INVENTED_COUNT :]
    trained, held_out = _draw_people(rng, real)
    combinations = [" ".join(pair) for pair in itertools.product(names.FIRST_NAMES, invented)]
    rng.shuffle(combinations)
    return Population(
        trained=trained,
        held_out=held_out,
        facts={name: _draw_facts(rng, name) for name in trained + held_out},
        habits=_draw_habits(seed, trained + held_out),
        objects=_draw_objects(rng),
        invented_surnames=tuple(sorted(invented)),
        invented_trained=tuple(combinations[names.HELD_OUT_PEOPLE :]),
        invented_held_out=tuple(combinations[: names.HELD_OUT_PEOPLE]),
    )


def _draw_people(rng: random.Random, surnames: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Draw three people per surname, of whom one or two are held out (`HELD_OUT_PEOPLE` in all)."""
    trained, held_out = [], []
    twice = names.HELD_OUT_PEOPLE - len(surnames)
    for index, surname in enumerate(surnames):
        firsts = rng.sample(names.FIRST_NAMES, names.PEOPLE_PER_SURNAME)
        cut = 2 if index < twice else 1
        held_out += [f"{first} {surname}" for first in firsts[:cut]]
        trained += [f"{first} {surname}" for first in firsts[cut:]]
    return tuple(trained), tuple(held_out)


def _draw_facts(rng: random.Random, name: str) -> tuple[PersonFact, ...]:
    return tuple(PersonFact(name, attribute, rng.choice(attribute.values)) for attribute in PERSON_ATTRIBUTES)


def _draw_habits(seed: int, people: tuple[str, ...]) -> dict[str, tuple[PersonFact, ...]]:
    rng, half = random.Random(f"habits-{seed}"), len(HABITS) // 2
    drawn = {}
    for name in people:
        first = rng.sample(HABITS, half)
        drawn[name] = tuple(PersonFact(name, habit, habit.values[habit not in first]) for habit in HABITS)
    return drawn


def _draw_objects(rng: random.Random) -> tuple[PersonFact, ...]:
    places = [PersonFact(city, PLACE_ATTRIBUTE, rng.choice(names.REGIONS)) for city in names.CITIES]
    things = [PersonFact(thing, THING_ATTRIBUTE, rng.choice(names.MATERIALS)) for thing in names.THINGS]
    return tuple(places + things)
