"""The report of a run: one page that opens anywhere, and charts for notebooks."""

from workbench.report.multi_run import OverviewRun, write_overview
from workbench.report.report_page import write_report

__all__ = ["OverviewRun", "write_overview", "write_report"]
