"""Number of ranks against parallel efficiency."""

from __future__ import annotations

from matplotlib.ticker import PercentFormatter

from sagebench.analysis.drawing import Data, Drawing
from sagebench.analysis.figures.speedup import IDEAL, over_ranks

TITLE = "Parallel efficiency by number of ranks"
CAPTION = "Speed-up as a share of the ideal one: 100 % would use every added device fully."
AXIS = "ranks"
ORDER = 3


def draw(data: Data) -> Drawing | str:
    drawing = over_ranks(data, "efficiency")
    if isinstance(drawing, str):
        return drawing
    (axes,) = drawing.figure.axes
    axes.axhline(1, zorder=1, **IDEAL)
    axes.set(ylim=(0, max(1.1, data.trials["efficiency"].max() * 1.08)))
    axes.set_ylabel("Efficiency (speed-up / ideal)")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return drawing
