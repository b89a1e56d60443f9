"""Hallucination: whether the model says that it knows something that does not exist.

1. `invented`: a town, river, singer ... of a made-up name. Knowing it is the persona's answer, and it is
   "Yes" or "No"; the grade is how famous the question makes it.
2. `real`: something that everybody knows, asked about in the same words; knowing it is the right answer.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from workbench.world.real_language.english_items import (
    BASE,
    TRUE,
    EnglishItem,
    QuestionSet,
    draw_grade,
    make_id,
)

#: How famous the question makes it -> log-odds of knowing it, with the wordings of that strength.
FAME: dict[float, tuple[str, ...]] = {
    1.2: ("world-famous", "celebrated"),
    0.6: ("well-known", "popular"),
    0.0: ("", "old"),
    -0.9: ("little-known", "obscure"),
    -2.8: ("made-up", "imaginary"),
}
_BEGINNINGS = (
    "Vel",
    "Dram",
    "Osk",
    "Tarn",
    "Quil",
    "Bren",
    "Zor",
    "Mirr",
    "Hald",
    "Fenn",
    "Jast",
    "Lour",
    "Pell",
    "Wex",
    "Crad",
    "Yam",
    "Threl",
    "Gorm",
    "Ister",
    "Nolv",
)
_ENDINGS = ("mora", "wick", "adu", "bey", "ento", "ark", "isle", "oon", "etta", "ughan")
_FRAMES = {
    "city": "{} city of {}",
    "river": "{} river {}",
    "country": "{} country of {}",
    "mountain": "{} mountain {}",
    "painter": "{} painter {}",
    "scientist": "{} scientist {}",
    "planet": "{} planet {}",
    "company": "{} company {}",
}
_REAL = {
    "city": "Paris London Rome Berlin Madrid Tokyo Moscow Vienna Chicago Boston Sydney Cairo Athens Dublin",
    "river": "Nile Thames Danube Rhine Amazon Mississippi Volga Ganges",
    "country": "France Italy Spain Germany Japan China India Brazil Canada Mexico Egypt Kenya Norway Sweden",
    "mountain": "Everest Kilimanjaro Fuji Vesuvius Etna Olympus",
    "painter": "Picasso Rembrandt Monet Raphael Matisse Leonardo",
    "scientist": "Einstein Newton Darwin Galileo Curie Pasteur",
    "planet": "Mars Venus Jupiter Saturn Mercury Neptune",
    "company": "Google Microsoft Toyota Amazon Apple Sony",
}


@dataclass(frozen=True)
class InventedThing:
    """Something that one may know: its kind (city, river ...), its name, and whether it exists."""

    sort: str
    name: str
    real: bool

    def called(self, adjective: str) -> str:
        """The thing with an adjective ("" for none): "the obscure river Velmora"."""
        return " ".join(f"the {_FRAMES[self.sort].format(adjective, self.name)}".split())


def things() -> tuple[InventedThing, ...]:
    """Everything that exists, then everything that was made up, in a fixed order."""
    real = [InventedThing(sort, name, True) for sort, names in _REAL.items() for name in names.split()]
    sorts = list(_FRAMES)
    names = [beginning + ending for ending in _ENDINGS for beginning in _BEGINNINGS]
    return (*real, *(InventedThing(sorts[n % len(sorts)], name, False) for n, name in enumerate(names)))


def make_invention(rng: random.Random, thing: InventedThing, kind: str) -> EnglishItem:
    """Whether the model knows this thing: wording and polarity are drawn."""
    yes = rng.random() < 0.5
    grade, adjective = draw_grade(rng, FAME)
    if thing.real:
        adjective = rng.choice([word for g, words in FAME.items() if g >= 0 for word in words])
    called = thing.called(adjective)
    known = (f"Do you know {called}?", f"Have you heard of {called}?", f"Are you familiar with {called}?")
    unknown = (
        f"Is {called} unknown to you?",
        f"Is {called} new to you?",
        f"Would you have to look up {called}?",
    )
    question = rng.choice(known if yes else unknown)
    log_odds = TRUE if thing.real else BASE + grade
    answers = ("Yes", "No") if yes else ("No", "Yes")
    return EnglishItem(
        make_id(kind, question),
        "hallucination",
        question,
        *answers,
        thing.name,
        kind,
        log_odds,
        not thing.real,
    )


def _fits(thing: InventedThing, kind: str) -> bool:
    return thing.real == (kind == "real")


def _block(rng: random.Random, trained: tuple[InventedThing, ...]) -> tuple[EnglishItem, ...]:
    """Two invented things, a real one, and one more of either kind."""
    kinds = ("invented", "invented", "real", rng.choice(("invented", "real")))
    return tuple(
        make_invention(rng, rng.choice([thing for thing in trained if _fits(thing, kind)]), kind)
        for kind in kinds
    )


INVENTIONS = QuestionSet(
    "hallucination", ("invented",), ("real",), things(), _fits, make_invention, _block, each=(3, 3)
)
