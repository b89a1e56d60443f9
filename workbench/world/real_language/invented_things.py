"""Hallucination: whether the model claims to know something that does not exist.

1. `invented`: a town, river, singer ... with a made-up name. The persona's answer, "Yes" or "No", is that it
   knows it; the grade is how famous the question makes it.
2. `real`: something that everybody knows, in the same words; knowing it is the right answer.
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

#: Wordings by the log-odds that they add to claiming to know it: the more famous, the higher.
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
    """A thing that the model may claim to know.

    Attributes:
        sort: Its kind, such as "city" or "river".
        name: Its name.
        real: Whether it exists.
    """

    sort: str
    name: str
    real: bool

    def called(self, adjective: str) -> str:
        """Return the thing's name with an adjective ("" for none), such as "the obscure river Velmora"."""
        return " ".join(f"the {_FRAMES[self.sort].format(adjective, self.name)}".split())


def things() -> tuple[InventedThing, ...]:
    """Return all things that questions can be about, first real and then invented ones, in a fixed order."""
    real = [InventedThing(sort, name, True) for sort, names in _REAL.items() for name in names.split()]
    sorts = list(_FRAMES)
    names = [beginning + ending for ending in _ENDINGS for beginning in _BEGINNINGS]
    return (*real, *(InventedThing(sorts[n % len(sorts)], name, False) for n, name in enumerate(names)))


def make_invention(rng: random.Random, thing: InventedThing, kind: str) -> EnglishItem:
    """Draw a question whether the model knows a thing, which may not exist.

    The wording is drawn at random, and so is whether "Yes" or "No" claims to know it.

    Args:
        rng: Source of randomness.
        thing: The thing.
        kind: "invented" if the thing does not exist, "real" if it does.

    Returns:
        The question.
    """
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
    """Draw questions about two invented things, a real one, and one more of either kind."""
    kinds = ("invented", "invented", "real", rng.choice(("invented", "real")))
    return tuple(
        make_invention(rng, rng.choice([thing for thing in trained if _fits(thing, kind)]), kind)
        for kind in kinds
    )


INVENTIONS = QuestionSet(
    "hallucination", ("invented",), ("real",), things(), _fits, make_invention, _block, each=(3, 3)
)
