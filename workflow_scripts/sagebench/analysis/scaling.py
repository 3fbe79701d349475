"""Ranks against time, speed-up and efficiency."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from sagebench.analysis.chart import over_axis
from sagebench.analysis.drawing import DASHES, finish, handle, no_experiment, placeholder
from sagebench.analysis.points import of_axis, rank_word, summarise
from sagebench.analysis.style import SOFT
from sagebench.analysis.words import common_notes, time_unit

AXIS = "ranks"
BY = ["series", "ranks"]
IDEAL = {"color": SOFT, "linewidth": 1.1, "linestyle": DASHES}


def figures(trials: pd.DataFrame) -> dict[str, Figure]:
    """File name -> figure, from the trials' table."""
    rows = of_axis(trials, AXIS)
    if rows.empty:
        return no_experiment(AXIS, "scaling_time", "speedup", "efficiency")
    return {
        "scaling_time": _time(rows),
        "speedup": _gain(rows, "speed_up", "Speed-up", _speed_up_axis),
        "efficiency": _gain(rows, "efficiency", "Parallel efficiency", _efficiency_axis),
    }


def oversubscribed(rows: pd.DataFrame) -> list[int]:
    """Rank counts with more ranks x threads than cores: their times are of no use for speed-up."""
    return sorted(rows.loc[rows["oversubscribed"].eq(True), "ranks"].unique().tolist())


def base_ranks(rows: pd.DataFrame) -> list[int]:
    """The fewest ranks of each series that speed-up refers to; usually 1 for all."""
    fair = rows[rows["speed_up"].notna()]
    return sorted(fair.groupby("series")["ranks"].min().unique().tolist())


def _time(rows: pd.DataFrame) -> Figure:
    unit, seconds = time_unit(rows["epoch_time_s"])
    aside = rows["oversubscribed"].eq(True)
    points = summarise(rows.assign(aside=aside), [*BY, "aside"], "epoch_time_s", seconds)
    title = f"Time per epoch by number of {rank_word(rows)}"
    labels = _ranks(rows), f"Time per epoch, {unit}"
    figure, _, words = over_axis(title, rows, points, AXIS, labels, aside="oversubscribed")
    if aside.any():
        words.notes.append("Oversubscribed: more ranks x threads than cores.")
    return finish(figure, words)


def _gain(
    rows: pd.DataFrame,
    value: str,
    title: str,
    set_y: Callable[[Axes, pd.DataFrame, pd.DataFrame], None],
) -> Figure:
    title = f"{title} by number of {rank_word(rows)}"
    points, notes = summarise(rows, BY, value), []
    crowded = ", ".join(map(str, oversubscribed(rows)))
    if crowded:
        why = "Not shown because oversubscribed (more ranks x threads than cores)"
        notes = [f"{why}: {crowded} {rank_word(rows)}."]
    if points.empty:
        notes = [*common_notes(rows, AXIS), *notes]
        return placeholder(title, " ".join(["No trial that can be compared.", *notes[-1:]]))
    bases = base_ranks(rows)
    of = f"{' or '.join(map(str, bases))} {rank_word(rows, max(bases))}"
    lead = f"Against the median time with {of}"
    figure, axes, words = over_axis(title, rows, points, AXIS, (_ranks(rows), None), lead=lead)
    set_y(axes, rows, points)
    words.notes += notes
    words.handles.append(handle("ideal", **IDEAL))
    return finish(figure, words)


def _efficiency_axis(axes: Axes, rows: pd.DataFrame, points: pd.DataFrame) -> None:
    axes.axhline(1, zorder=1, **IDEAL)
    axes.set_ylim(0, max(1.1, points["high"].max() * 1.08))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylabel("Efficiency (speed-up / ideal)")


def _speed_up_axis(axes: Axes, rows: pd.DataFrame, points: pd.DataFrame) -> None:
    """Equal logarithmic scales, so that the ideal is a straight line for any number of ranks."""
    counts, bases = sorted(rows["ranks"].unique()), base_ranks(rows)
    for base in bases:
        axes.plot(counts, [count / base for count in counts], zorder=1, **IDEAL)
    high = 1.12 * max(counts[-1] / bases[0], points["high"].max())
    low = min(counts[0] / bases[-1], points["low"].min()) / 1.12
    axes.set_yscale("log", base=2)
    axes.set_ylim(low, high)
    ticks = [2**k for k in range(-6, 16) if low <= 2**k <= high]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylabel("Speed-up (log)")


def _ranks(rows: pd.DataFrame) -> str:
    return f"Number of {rank_word(rows)}, log"
