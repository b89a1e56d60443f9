"""A study: what a user writes, and the stages in order."""

from workbench.study.run_study import run
from workbench.study.stages import METHODS
from workbench.study.study_settings import CONDITIONS, Study

__all__ = ["CONDITIONS", "METHODS", "Study", "run"]
