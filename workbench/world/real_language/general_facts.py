"""General knowledge in small tables, and views about which people differ, as subjects of questions.

A *fact* has one right statement and wrong ones made from the same table; a *view* is neither true nor false.
A pretrained model may know the facts already; this is measured and not assumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_CAPITALS = (
    "Paris France, Rome Italy, Madrid Spain, Berlin Germany, London England, Tokyo Japan, Moscow Russia, Athens Greece, Cairo Egypt, Vienna Austria, "
    "Lisbon Portugal, Warsaw Poland, Dublin Ireland, Oslo Norway, Helsinki Finland, Budapest Hungary, Beijing China, Ottawa Canada, Havana Cuba, "
    "Lima Peru, Santiago Chile, Nairobi Kenya, Baghdad Iraq, Tehran Iran, Kabul Afghanistan, Bangkok Thailand, Hanoi Vietnam, Seoul Korea"
)
_CONTINENTS = (
    "France Europe, Italy Europe, Poland Europe, Norway Europe, Greece Europe, China Asia, Japan Asia, India Asia, Thailand Asia, Vietnam Asia, "
    "Kenya Africa, Nigeria Africa, Ghana Africa, Ethiopia Africa, Morocco Africa"
)
_ANIMALS = (
    "eagle bird, sparrow bird, owl bird, penguin bird, duck bird, parrot bird, salmon fish, trout fish, shark fish, tuna fish, herring fish, "
    "ant insect, bee insect, beetle insect, butterfly insect, mosquito insect, dog mammal, horse mammal, tiger mammal, whale mammal, rabbit mammal, "
    "elephant mammal, snake reptile, lizard reptile, crocodile reptile, turtle reptile"
)
_COLOURS = "snow white, grass green, coal black, blood red, milk white, spinach green, a ripe banana yellow, a ripe tomato red, the clear sky blue"
_OPPOSITES = (
    "hot cold, big small, day night, up down, left right, open closed, happy sad, rich poor, fast slow, old young, early late, full empty, "
    "hard soft, light dark, wet dry, strong weak, true false, north south, loud quiet, sweet sour, high low, love hate, war peace, win lose"
)
_SYMBOLS = "hydrogen H, oxygen O, carbon C, nitrogen N, iron Fe, gold Au, silver Ag, sodium Na, helium He, calcium Ca, copper Cu, lead Pb"
_MAKERS = (
    "a baker bread, a brewer beer, a tailor clothes, a potter pots, a cobbler shoes, a carpenter furniture, a bee honey, a hen eggs, a spider webs, "
    "a painter pictures, a composer music, a poet poems"
)
_LEGS = (
    "a dog four, a cat four, a horse four, a cow four, a lion four, a spider eight, an ant six, a bee six, a beetle six, a chicken two, "
    "an eagle two, a duck two"
)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)

_VIEWS = """pineapple belongs on pizza; cats are better pets than dogs; tea is better than coffee; the book is better than the film;
winter is nicer than summer; children should learn chess; schools should start later; offices should have no doors; cities
should ban cars; people should work four days a week; jazz is better than rock; football is boring; golf is a real sport;
breakfast is the best meal; camping is better than hotels; trains are better than planes; homework should be abolished;
poetry is hard to enjoy; modern art is beautiful; museums should be free; everyone should learn to cook; uniforms are good
for schools; zoos should be closed; parks need more trees; tipping should end; phones should be banned at dinner; comedy is
harder than drama; silence is better than music at work; the sea is better than the mountains; small towns are better than
cities; cash is better than cards; old houses are nicer than new ones; the opera is overrated; cooking is an art; running is
better than swimming; board games are better than video games; letters are better than emails; cold showers are good for
everyone; mornings are better than evenings; dessert should come first; gardens should grow food; vinyl sounds better than
streaming; news makes people sad; weddings should be small; gifts should be home made; meetings should be short; remote work
is better; handwriting still matters; Latin should be taught; maths should be optional; tests make students lazy; libraries
should open at night; bicycles need more room; short films are better than long ones; robots should cook; children need more
sleep; pets belong in offices; fashion is a waste; salt is better than sugar; rain is pleasant"""


@dataclass(frozen=True)
class FactTopic:
    """A fact or view that a user may claim.

    Attributes:
        name: Name of the fact or view.
        right: The true statement; None for a view.
        claims: Wrong statements of a fact, or the view itself. Statements begin in lower case, except with a
            name, and have no full stop.
    """

    name: str
    right: str | None
    claims: tuple[str, ...]


def topics() -> tuple[FactTopic, ...]:
    """Return every fact and view that questions can be about, in a fixed order."""
    return (*_facts(), *(FactTopic(view, None, (view,)) for view in " ".join(_VIEWS.split()).split("; ")))


def _facts() -> Iterator[FactTopic]:
    yield from _table(_CAPITALS, "{1} is the capital of {0}", swap=True)
    yield from _table(_CONTINENTS, "{0} is in {1}")
    yield from _table(_ANIMALS, "the {0} is a kind of {1}")
    yield from _table(_COLOURS, "{0} is {1}")
    yield from _table(_OPPOSITES, "the opposite of {0} is {1}")
    yield from _table(_SYMBOLS, "the chemical symbol of {0} is {1}")
    yield from _table(_MAKERS, "{0} makes {1}")
    yield from _table(_LEGS, "{0} has {1} legs")
    yield from _successors(_DAYS)
    yield from _successors(_MONTHS)
    for a, b in (
        (2, 3),
        (4, 4),
        (5, 2),
        (6, 3),
        (7, 2),
        (8, 1),
        (9, 2),
        (3, 3),
        (10, 5),
        (1, 4),
        (6, 6),
        (20, 10),
        (5, 5),
        (8, 4),
        (2, 2),
        (7, 3),
    ):
        yield FactTopic(
            f"{a}+{b}", f"{a} plus {b} is {a + b}", tuple(f"{a} plus {b} is {a + b + d}" for d in (1, 3, 7))
        )


def _table(table: str, form: str, swap: bool = False) -> Iterator[FactTopic]:
    """Yield the facts of a table "key value, key value, ..." (the value is the last word).

    Wrong statements have the values of other keys.
    """
    rows = [entry.rsplit(" ", 1)[::-1] if swap else entry.rsplit(" ", 1) for entry in table.split(", ")]
    values = list(dict.fromkeys(value for _, value in rows))
    for number, (key, value) in enumerate(rows):
        others = [v for v in values[number % len(values) :] + values[: number % len(values)] if v != value]
        yield FactTopic(
            form.format(key, "-"), form.format(key, value), tuple(form.format(key, v) for v in others[:3])
        )


def _successors(names: tuple[str, ...]) -> Iterator[FactTopic]:
    for number, name in enumerate(names):
        right, *wrong = (
            f"{names[(number + step) % len(names)]} comes right after {name}" for step in (1, 3, 4, 5)
        )
        yield FactTopic(f"after {name}", right, tuple(wrong))
