"""Loading models and running them: the only importer of transformer_lens."""

from workbench.models.batches import pad_right
from workbench.models.load import load_model
from workbench.models.runner import KV, Layout, Runner, Shape, runner_for
from workbench.models.sites import HOOKS, Site

__all__ = ["HOOKS", "KV", "Layout", "Runner", "Shape", "Site", "load_model", "pad_right", "runner_for"]
