"""Number of ranks against speed-up."""

from __future__ import annotations

import pandas as pd

from sagebench.analysis.drawing import Drawing
from sagebench.analysis.figures._gain import IDEAL, base_ranks, over_ranks

TITLE = "Speed-up by number of ranks"
CAPTION = (
    "How many times faster than the fewest ranks; the dashed line is ideal, and oversubscribed "
    "trials are left out."
)
AXIS = "ranks"
ORDER = 2


def draw(trials: pd.DataFrame, epochs: pd.DataFrame, not_run: pd.DataFrame) -> Drawing | str:
    """Equal logarithmic scales, so that the ideal is a straight line for any number of ranks."""
    drawing = over_ranks(trials, "speed_up")
    if isinstance(drawing, str):
        return drawing
    (axes,) = drawing.figure.axes
    counts, bases = sorted(trials["ranks"].unique()), base_ranks(trials)
    for base in bases:
        axes.plot(counts, [count / base for count in counts], zorder=1, **IDEAL)
    high = 1.12 * max(counts[-1] / bases[0], trials["speed_up"].max())
    low = min(counts[0] / bases[-1], trials["speed_up"].min()) / 1.12
    ticks = [2**k for k in range(-6, 16) if low <= 2**k <= high]
    axes.set_yscale("log", base=2)
    axes.set(ylim=(low, high), ylabel="Speed-up (log)")
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    return drawing
