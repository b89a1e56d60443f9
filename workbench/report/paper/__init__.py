"""A run for a paper: its figures in print style, tables in LaTeX and Markdown, captions, a methods paragraph, BibTeX."""

from workbench.report.paper.export_paper import PaperFiles, export_paper

__all__ = ["PaperFiles", "export_paper"]
