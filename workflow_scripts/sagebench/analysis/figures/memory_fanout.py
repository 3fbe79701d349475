"""Total fanout against peak memory."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from sagebench.analysis.chart import over_axis, peak_memory
from sagebench.analysis.drawing import Drawing
from sagebench.analysis.figures._fanout import number_points
from sagebench.analysis.points import memory_limit, summarise
from sagebench.page.style import looks

TITLE = "Peak memory by total fanout"
CAPTION = (
    "Total fanout is the product of the non-zero fanouts (as the slides define it, it would be 0 "
    "with a zero in it); “all” stands for every neighbor."
)
AXIS = "fanout"
ORDER = 2

TOTAL = "total_fanout"


def draw(trials: pd.DataFrame, epochs: pd.DataFrame, not_run: pd.DataFrame) -> Drawing:
    together = pd.concat([trials, not_run]) if len(not_run) else trials
    places, everything = total_fanout_places(together)
    trials = trials.assign(**{TOTAL: places[trials.index]})
    not_run = not_run.assign(**{TOTAL: places[not_run.index]})
    label, memory = "Total fanout (product of the non-zero fanouts, log)", peak_memory(trials)
    more = {"x": TOTAL, "line": "none", "not_run": not_run, "limit": memory_limit(trials)}
    drawing = over_axis(trials, memory, AXIS, label, **more)
    _total_axis(drawing.figure.axes[0], list(places), everything)
    if any("0" in fanout.split(",") for fanout in together["fanout"]):
        zeros = "Total fanout: the product of the non-zero fanouts (with zeros the slides' is 0)."
        drawing.notes.insert(0, zeros)
    points = summarise(trials, ["series", "fanout", TOTAL], memory.column, memory.unit)
    points = pd.concat([points, not_run]) if len(not_run) else points
    number_points(drawing, together, points, TOTAL, "median", looks(together["series"]))
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
