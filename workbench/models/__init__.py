"""Load and run models; only this package imports transformer_lens."""

from workbench.models.finite_check import first_not_finite, not_finite
from workbench.models.hook_sites import HOOKS, Site
from workbench.models.loading import load_model
from workbench.models.model_sources import base_of, find_source
from workbench.models.padding import pad_right
from workbench.models.runner import KeyValueCache, ModelShape, Runner, TokenLayout
from workbench.models.runners import runner_for

__all__ = [
    "HOOKS",
    "KeyValueCache",
    "ModelShape",
    "Runner",
    "Site",
    "TokenLayout",
    "base_of",
    "find_source",
    "first_not_finite",
    "load_model",
    "not_finite",
    "pad_right",
    "runner_for",
]
