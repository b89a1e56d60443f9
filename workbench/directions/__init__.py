"""Directions: made from labelled activations, judged by what they predict, read and written in others' formats."""

from workbench.directions.carries import Carries, carries
from workbench.directions.direction import Direction, random_directions
from workbench.directions.formats import (
    load_directions,
    read_gguf,
    read_persona_vectors,
    save_directions,
    write_gguf,
    write_persona_vectors,
)
from workbench.directions.scan import DEFAULT_METHODS, METHODS, Method, Scan, find_directions

__all__ = [
    "DEFAULT_METHODS", "METHODS", "Carries", "Direction", "Method", "Scan", "carries", "find_directions", "load_directions",
    "random_directions", "read_gguf", "read_persona_vectors", "save_directions", "write_gguf", "write_persona_vectors",
]  # fmt: skip
