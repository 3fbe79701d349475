"""Number of ranks against parallel efficiency."""

from __future__ import annotations

import pandas as pd
from matplotlib.ticker import PercentFormatter

from sagebench.analysis.drawing import Drawing
from sagebench.analysis.figures._gain import IDEAL, over_ranks

TITLE = "Parallel efficiency by number of ranks"
CAPTION = "Speed-up as a share of the ideal one: 100 % would use every added device fully."
AXIS = "ranks"
ORDER = 3


def draw(trials: pd.DataFrame, epochs: pd.DataFrame, not_run: pd.DataFrame) -> Drawing | str:
    drawing = over_ranks(trials, "efficiency")
    if isinstance(drawing, str):
        return drawing
    (axes,) = drawing.figure.axes
    axes.axhline(1, zorder=1, **IDEAL)
    axes.set(ylim=(0, max(1.1, trials["efficiency"].max() * 1.08)))
    axes.set_ylabel("Efficiency (speed-up / ideal)")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return drawing
