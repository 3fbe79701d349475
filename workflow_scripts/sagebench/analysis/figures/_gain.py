"""What more ranks gain, against the fewest ranks of a series."""

from __future__ import annotations

import pandas as pd

from sagebench.analysis.chart import Value, over_axis
from sagebench.analysis.drawing import DASHES, Drawing, handle
from sagebench.analysis.points import rank_word
from sagebench.page.style import SOFT

IDEAL = {"color": SOFT, "linewidth": 1.1, "linestyle": DASHES}


def over_ranks(rows: pd.DataFrame, column: str) -> Drawing | str:
    """A speed-up or an efficiency over the number of ranks, still without a y axis."""
    crowded, notes = ", ".join(map(str, oversubscribed(rows))), []
    if crowded:
        why = "Not shown because oversubscribed (more ranks x threads than cores)"
        notes = [f"{why}: {crowded} {rank_word(rows)}."]
    bases = base_ranks(rows)
    if not bases:
        return " ".join(["No trial that can be compared.", *notes])
    lead = f"Against the median time with {' or '.join(map(str, bases))} "
    lead += rank_word(rows, max(bases))
    label = f"Number of {rank_word(rows)}, log"
    drawing = over_axis(rows, Value(column, 1, None), "ranks", label, lead=lead)
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
