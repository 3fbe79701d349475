"""Number of ranks against speed-up."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sagebench.analysis.chart import Value, over_axis
from sagebench.analysis.drawing import DASHES, Data, Drawing, handle
from sagebench.analysis.points import rank_word
from sagebench.page.style import SOFT

TITLE = "Speed-up by number of ranks"
CAPTION = (
    "How many times faster than the fewest ranks; the dashed line is ideal, and oversubscribed "
    "trials are left out."
)
AXIS = "ranks"
ORDER = 2

IDEAL: dict[str, Any] = {"color": SOFT, "linewidth": 1.1, "linestyle": DASHES}


def draw(data: Data) -> Drawing | str:
    """Logarithmic scales, so that the ideal is a straight line for any number of ranks."""
    drawing = over_ranks(data, "speed_up")
    if isinstance(drawing, str):
        return drawing
    trials, (axes,) = data.trials, drawing.figure.axes
    counts = sorted(trials["ranks"].unique())
    for base in base_ranks(trials):
        axes.plot(counts, [count / base for count in counts], zorder=1, **IDEAL)
    axes.set_yscale("log", base=2)
    axes.set_ylabel("Speed-up (log)")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    return drawing


def over_ranks(data: Data, column: str) -> Drawing | str:
    """A speed-up or an efficiency over the number of ranks, still without a y axis."""
    rows, bases, notes = data.trials, base_ranks(data.trials), []
    if crowded := ", ".join(map(str, oversubscribed(rows))):
        why = "Not shown because oversubscribed (more ranks x threads than cores)"
        notes = [f"{why}: {crowded} {rank_word(rows)}."]
    if not bases:
        return " ".join(["No trial that can be compared.", *notes])
    lead = f"Against the median time with {' or '.join(map(str, bases))} "
    drawing = over_axis(data, Value(column, 1, ""), lead=lead + rank_word(rows, max(bases)))
    drawing.notes += notes
    drawing.handles.append(handle("ideal", **IDEAL))
    return drawing


def oversubscribed(rows: pd.DataFrame) -> list[int]:
    """Rank counts with more ranks x threads than cores: their times are of no use for speed-up."""
    return sorted(rows.loc[rows["oversubscribed"].eq(True), "ranks"].unique().tolist())


def base_ranks(rows: pd.DataFrame) -> list[int]:
    """The fewest ranks of each series that speed-up refers to; usually 1 for all."""
    fair = rows[rows["speed_up"].notna()]
    return sorted(fair.groupby("series")["ranks"].min().unique().tolist())
