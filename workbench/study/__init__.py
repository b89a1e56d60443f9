"""A study: what a user writes, and the stages in order."""

from workbench.study.run import run
from workbench.study.settings import CONDITIONS, Study
from workbench.study.stages import METHODS

__all__ = ["CONDITIONS", "METHODS", "Study", "run"]
