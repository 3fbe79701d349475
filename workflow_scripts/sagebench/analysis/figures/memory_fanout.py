"""Total fanout against peak memory."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from sagebench.analysis.chart import over_axis, peak_memory
from sagebench.analysis.drawing import Data, Drawing, label_points
from sagebench.analysis.points import end_notes, memory_limit
from sagebench.analysis.statistics import summarise, without_value
from sagebench.grid.fanout import Fanout
from sagebench.page.style import looks

TITLE = "Peak memory by total fanout"
CAPTION = (
    "Total fanout is the product of the non-zero fanouts (as the slides define it, it would be 0 "
    "with a zero in it); “all” stands for every neighbor."
)
AXIS = "fanout"
ORDER = 2

TOTAL = "total_fanout"


def draw(data: Data) -> Drawing:
    together = pd.concat([data.trials, data.not_run]) if len(data.not_run) else data.trials
    places, everything = total_fanout_places(together)
    trials = data.trials.assign(**{TOTAL: places[data.trials.index]})
    not_run = data.not_run.assign(**{TOTAL: places[data.not_run.index]})
    memory, limit = peak_memory(trials), memory_limit(trials)
    placed = data._replace(trials=trials)
    drawing = over_axis(placed, memory, keys=[TOTAL], line="none", not_run=not_run, limit=limit)
    _total_axis(drawing.figure.axes[0], list(places), everything)
    if any("0" in fanout.split(",") for fanout in together["fanout"]):
        zeros = "Total fanout: the product of the non-zero fanouts (with zeros the slides' is 0)."
        drawing.notes.insert(0, zeros)
    points = summarise(trials, ["series", "fanout", TOTAL], memory.column, memory.unit)
    points = pd.concat([points, not_run]) if len(not_run) else points
    number_points(drawing, together, points, TOTAL, "median")
    return drawing


def total_fanout_places(rows: pd.DataFrame) -> tuple[pd.Series, float | None]:
    """Where each trial stands by its total fanout, and where "all" stands: to the right of every
    finite product, at no value of its own; None where no fanout has a -1."""
    totals = rows[TOTAL]
    if totals.notna().all():
        return totals, None
    everything = 8 * totals.max() if totals.notna().any() else 8.0
    return totals.fillna(everything), everything


def _total_axis(axes: Axes, places: list[float], everything: float | None) -> None:
    low, high = min(places) / 1.8, max(places) * 1.8
    finite = [place for place in places if place != everything]
    powers = [10.0**k for k in range(16) if low <= 10.0**k <= max(finite, default=0) * 1.8]
    ticks = powers if everything is None else [*powers, everything]
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(
        lambda value, _: "all" if value == everything else f"{value:,.0f}"
    )


def number_points(
    drawing: Drawing, rows: pd.DataFrame, points: pd.DataFrame, x: str, y: str
) -> None:
    """Number the points at the columns x and y, with a note of all fanouts of `rows`, and one of
    those that have no value: sixteen fanouts written beside sixteen points would hide the points.
    """
    (axes,), look = drawing.figure.axes, looks(rows["series"])
    numbers = {fanout: i for i, fanout in enumerate(dict.fromkeys(rows["fanout"]), start=1)}
    label_points(
        axes,
        [
            (row[x], row[y], str(numbers[row["fanout"]]), look[row["series"]]["color"])
            for row in points.to_dict("records")
        ],
    )
    key = ", ".join(f"{number}:\u00a0{Fanout.parse(one).label}" for one, number in numbers.items())
    ended = without_value(rows, ["series", "fanout"])
    ends = end_notes(ended, "fanout", lambda fanout: str(numbers[fanout]))
    drawing.notes = [f"Fanouts: {key}.", *ends, *drawing.notes]
