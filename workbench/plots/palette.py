"""Colours of pictures made in Python: colour-blind safe (Okabe & Ito 2008, with Tol's purple), on white.

The report's page has light and dark variants of the same hues in `report/shared.css`.
"""

from __future__ import annotations

BLUE, ORANGE, GREEN, PURPLE, GREY, BLACK = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#777777", "#000000"
YELLOW, SKY = "#E69F00", "#56B4E9"

#: Distinguishable colours for categories, in the order in which they are assigned.
CATEGORIES = (BLUE, GREEN, PURPLE, ORANGE, YELLOW, SKY, BLACK, GREY)
#: A diverging scale from minus over zero to plus.
DIVERGING = (BLUE, "#ffffff", ORANGE)
#: Fill colours that can have text on them: plus and minus in circuits and dose-response curves.
PLUS, MINUS = "#cf5f10", "#2b7fc0"
