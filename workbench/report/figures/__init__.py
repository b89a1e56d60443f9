"""Charts for notebooks and papers as Altair charts; `chart.save("x.svg")` and "x.png" work without a browser.

There is one module per chart. Colours can be distinguished by colour-blind readers; shape, sign or a label
repeats the information. Each function takes a result object or its table, and returns a chart that can be
modified further.
"""

from workbench.report.figures.dose_chart import dose
from workbench.report.figures.effects_forest import forest
from workbench.report.figures.effects_over_runs import against, seeds
from workbench.report.figures.frontier_chart import frontier
from workbench.report.figures.layer_scan_chart import layers
from workbench.report.figures.ledger_heatmap import heatmap
from workbench.report.figures.mediation_chart import mediation
from workbench.report.figures.question_strips import questions
from workbench.report.figures.save_figure import save_figure

__all__ = [
    "against",
    "dose",
    "forest",
    "frontier",
    "heatmap",
    "layers",
    "mediation",
    "questions",
    "save_figure",
    "seeds",
]
