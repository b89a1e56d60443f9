"""Reports of runs: one self-contained HTML page per run, an overview page of several runs, and charts."""

from workbench.report.multi_run import OverviewRun, write_overview
from workbench.report.report_page import write_report

__all__ = ["OverviewRun", "write_overview", "write_report"]
