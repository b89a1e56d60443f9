"""Directions: fitted to labelled activations, judged by what they predict, and saved in several formats."""

from workbench.directions.direction import Direction, random_directions
from workbench.directions.direction_method import (
    DIRECTION_METHODS,
    DirectionMethod,
    default_methods,
    register_direction_method,
)
from workbench.directions.direction_permutation_test import (
    DirectionPermutationTest,
    direction_permutation_test,
)
from workbench.directions.labelled_cache import LabelledCache
from workbench.directions.layer_scan import LayerScan, LayerScanOptions, find_directions
from workbench.directions.refit import refit_direction
from workbench.directions.semi_supervised import semi_supervised
from workbench.directions.vector_formats import (
    ControlVector,
    load_directions,
    read_gguf,
    read_persona_vectors,
    save_directions,
    write_gguf,
    write_persona_vectors,
)

__all__ = [
    "DIRECTION_METHODS",
    "ControlVector",
    "Direction",
    "DirectionMethod",
    "DirectionPermutationTest",
    "LabelledCache",
    "LayerScan",
    "LayerScanOptions",
    "default_methods",
    "direction_permutation_test",
    "find_directions",
    "load_directions",
    "random_directions",
    "read_gguf",
    "read_persona_vectors",
    "refit_direction",
    "register_direction_method",
    "save_directions",
    "semi_supervised",
    "write_gguf",
    "write_persona_vectors",
]
