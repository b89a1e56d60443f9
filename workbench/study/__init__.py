"""Studies: the settings that a user writes, and the stages of a run in order."""

from workbench.study.run_study import run
from workbench.study.study_settings import Study

__all__ = ["Study", "run"]
