"""Export of a run for a paper: figures in print style, tables, captions, a methods paragraph, BibTeX."""

from workbench.report.paper.export_paper import PaperFiles, export_paper

__all__ = ["PaperFiles", "export_paper"]
