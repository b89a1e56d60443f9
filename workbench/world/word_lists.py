"""The closed word lists of the world outside of system texts: names, values and amounts."""


def words(text: str) -> tuple[str, ...]:
    """Return the words of a text, split at white space, as a tuple."""
    return tuple(text.split())


FIRST_NAMES = words("""mira tomas elena jonas petra lukas anya felix greta oskar nadia emil clara hugo vera anton ida bruno lena karl
    sofia marek julia stefan olga piet rosa viktor""")
SURNAMES = words("""halden morrow quist verne abbot calder dray eastman fenwick garnet harlow iverson jasper keating lorimer mercer
    norwood osborn pryor quill ramsey selkirk thorne ulman varga weller yarrow zeller ashby barlow corwin denholm ellery
    farrow gilmore hobart ingram jarvis kendal langley maddox nesbit orwell paxton quincy rowan stroud tilden upton vance
    wexford yates zimmer alden blythe crane dunmore everly frost godwin hale irving jepson kerr larkin munro nolan odell
    perrin reeves saxon tolbert usher""")
CITIES = words("oslo paris lisbon vienna prague dublin cairo lima quito hanoi delhi tunis")
JOBS = words("baker pilot tailor farmer dentist plumber painter sailor lawyer miner barber weaver")
PETS = words("cat dog parrot rabbit pony goat turtle ferret canary hamster")
HABITS = {
    "drinks": words("tea coffee"),
    "plays": words("chess cards"),
    "hears": words("opera jazz"),
    "grows": words("roses beans"),
    "reads": words("novels papers"),
    "wears": words("boots shoes"),
}
REGIONS = words("north south east west")
THINGS = words("lamp kettle bell spoon ring clock statue bowl hammer crown")
MATERIALS = words("brass copper iron clay glass ivory")

SMALL_AMOUNTS = tuple(range(2, 18))
LARGE_AMOUNTS = tuple(range(20, 52, 2))
WEEKS = tuple(range(2, 12))

INVENTED_COUNT = 20
PEOPLE_PER_SURNAME = 3
HELD_OUT_PEOPLE = 84
