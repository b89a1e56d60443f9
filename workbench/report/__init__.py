"""The report of a run: one page that opens anywhere, and charts for notebooks."""

from workbench.report.page import write_report

__all__ = ["write_report"]
