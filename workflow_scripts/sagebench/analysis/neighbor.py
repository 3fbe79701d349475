"""Fanout: test accuracy against time with the Pareto front, and memory against total fanout.

Sixteen fanouts written beside sixteen points hide the points, so each fanout has a number, the
same in both figures, and a key below says what it stands for.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from sagebench.analysis import style
from sagebench.analysis.captions import CAPTIONS
from sagebench.analysis.chart import over_axis
from sagebench.analysis.drawing import (
    MARKER,
    Words,
    finish,
    handle,
    new_figure,
    no_experiment,
    placeholder,
    series_handles,
    value_axis,
    whiskers,
)
from sagebench.analysis.placement import place_labels
from sagebench.analysis.points import (
    memory_limit,
    repeats,
    summarise,
    with_not_run,
    without_value,
)
from sagebench.analysis.statistics import pareto_front
from sagebench.analysis.words import common_notes, end_notes, memory_label, time_unit, where
from sagebench.grid.fanout import Fanout
from sagebench.records import Status
from sagebench.units import GIB

AXIS, TOTAL = "fanout", "total_fanout"
BY = ["series", "fanout"]
FRONT = {"linestyle": (0, (4, 2)), "linewidth": 1.2}
EVALUATIONS = {
    "test_accuracy_full": ("full", "full evaluation: every neighbor"),
    "test_accuracy_sampled": ("sampled", "sampled evaluation: the trial's own fanout"),
}


def figures(trials: pd.DataFrame, not_run: pd.DataFrame | None = None) -> dict[str, Figure]:
    """File name -> figure, from the trials' table. not_run: trials predicted not to fit."""
    rows, left_out = with_not_run(trials, not_run, AXIS)
    if rows.empty:
        return no_experiment(AXIS, *CAPTIONS[AXIS])
    return {"accuracy_time": _accuracy_time(rows), "memory_fanout": _memory_fanout(rows, left_out)}


def evaluation(rows: pd.DataFrame) -> str:
    """The column of the test accuracy to show: the full one if every completed trial has it."""
    done = rows[rows["status"].eq(Status.COMPLETED)]
    if len(done) and done["test_accuracy_full"].notna().all():
        return "test_accuracy_full"
    sampled = done["test_accuracy_sampled"].notna().sum()
    full = done["test_accuracy_full"].notna().sum()
    return "test_accuracy_sampled" if sampled > full else "test_accuracy_full"


def selection(rows: pd.DataFrame) -> str:
    """How the tested model was chosen, in words."""
    methods = sorted(rows["validation_method"].dropna().unique())
    return f"model chosen by {' or '.join(methods) or 'unknown'} validation"


def fanout_numbers(rows: pd.DataFrame) -> dict[str, int]:
    """Fanout -> its number in the figures, in the order of the study."""
    return {fanout: i for i, fanout in enumerate(dict.fromkeys(rows["fanout"]), start=1)}


def accuracy_points(rows: pd.DataFrame, accuracy: str, unit: float = 1.0) -> pd.DataFrame:
    """Columns series, fanout, {n,median,low,high}_{time,accuracy}, front; times in `unit`s of s.

    `front` marks the Pareto front of each series: less time, more accuracy, by the medians.
    """
    both = rows[rows[accuracy].notna() & rows["epoch_time_s"].notna()]
    points = summarise(both, BY, "epoch_time_s", unit).merge(
        summarise(both, BY, accuracy), on=BY, suffixes=("_time", "_accuracy")
    )
    points["front"] = False
    for _, group in points.groupby("series", sort=False):
        pairs = list(zip(group["median_time"], group["median_accuracy"], strict=True))
        points.loc[group.index[pareto_front(pairs)], "front"] = True
    return points


def total_fanout_places(rows: pd.DataFrame) -> tuple[pd.Series, float | None]:
    """Where each trial stands by its total fanout, and where "all" stands: to the right of every
    finite product, at no value of its own; None where no fanout has a -1."""
    totals = rows["total_fanout"]
    if totals.notna().all():
        return totals, None
    everything = 8 * totals.max() if totals.notna().any() else 8.0
    return totals.fillna(everything), everything


def _accuracy_time(rows: pd.DataFrame) -> Figure:
    title, accuracy = "Test accuracy and time per epoch by fanout", evaluation(rows)
    name, explained = EVALUATIONS[accuracy]
    unit, seconds = time_unit(rows["epoch_time_s"])
    points = accuracy_points(rows, accuracy, seconds)
    if points.empty:
        return placeholder(title, "No trial of this study has a test accuracy.")
    colours, markers = style.colours(rows["series"]), style.markers(rows["series"])

    figure, (axes,) = new_figure(height_in=3.5)
    for series, group in points.groupby("series", sort=False):
        axes.errorbar(
            group["median_time"].to_numpy(),
            group["median_accuracy"].to_numpy(),
            xerr=whiskers(group, "median_time", "low_time", "high_time"),
            yerr=whiskers(group, "median_accuracy", "low_accuracy", "high_accuracy"),
            fmt=markers[series],
            color=colours[series],
            elinewidth=0.9,
            ecolor=(colours[series], 0.55),
            zorder=3,
            **MARKER,
        )
        front = group[group["front"]].sort_values("median_time")
        steps = front["median_time"], front["median_accuracy"]
        axes.step(*steps, where="post", color=colours[series], zorder=2, **FRONT)
    times = [*points["low_time"], *points["high_time"]]
    value_axis(axes, times, f"Time per epoch, {unit}", which="x")
    axes.margins(y=0.1)
    axes.set_ylabel(f"Test accuracy ({name} evaluation)")
    axes.ticklabel_format(axis="y", useOffset=False)
    words = Words(
        title,
        f"{where(rows)}. {explained.capitalize()}; {selection(rows)}. Median and range of "
        f"repeats, {repeats(points.assign(n=points['n_time']))}. Upper left is best.",
        common_notes(rows, AXIS),
        [*series_handles(colours, markers, line="none"), handle("Pareto front", **FRONT)],
    )
    ended, numbers = without_value(rows, BY), fanout_numbers(rows)
    _number(figure, axes, points, "median_time", "median_accuracy", numbers, colours)
    return _finish(figure, words, numbers, ended)


def _memory_fanout(rows: pd.DataFrame, left_out: pd.DataFrame) -> Figure:
    together = pd.concat([rows, left_out]) if len(left_out) else rows
    places, everything = total_fanout_places(together)
    rows, left_out = (
        rows.assign(**{TOTAL: places}),
        left_out.assign(**{TOTAL: places[left_out.index]}),
    )
    points = summarise(rows, [*BY, TOTAL], "peak_memory_bytes", GIB)
    ended = without_value(rows, ["series", TOTAL])
    label = "Total fanout (product of the non-zero fanouts, log)"
    figure, axes, words = over_axis(
        "Peak memory by total fanout",
        rows,
        points,
        AXIS,
        (label, memory_label(rows)),
        x=TOTAL,
        line="none",
        # How many of how many: the notes say it, there is no room.
        ended=ended.assign(of=ended["count"]),
        left_out=left_out,
        limit=memory_limit(rows),
    )
    _total_axis(axes, list(places), everything)
    numbers, colours = fanout_numbers(together), style.colours(together["series"])
    for drawn in (points, left_out):
        _number(figure, axes, drawn, TOTAL, "median", numbers, colours)
    if any("0" in fanout.split(",") for fanout in numbers):
        zeros = "Total fanout: the product of the non-zero fanouts (with zeros the slides' is 0)."
        words.notes.insert(0, zeros)
    return _finish(figure, words, numbers, without_value(rows, BY))


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


def _number(
    figure: Figure,
    axes: Axes,
    points: pd.DataFrame,
    x: str,
    y: str,
    numbers: dict[str, int],
    colours: dict[str, str],
) -> None:
    rows = points.to_dict("records")
    place_labels(
        figure,
        axes,
        [(row[x], row[y], str(numbers[row["fanout"]]), colours[row["series"]]) for row in rows],
    )


def _finish(figure: Figure, words: Words, numbers: dict[str, int], ended: pd.DataFrame) -> Figure:
    """With the key of the numbers, and what has no value, by them."""
    words.key = [f"{number}: {Fanout.parse(fanout).label}" for fanout, number in numbers.items()]
    words.notes = end_notes(ended, "fanout", lambda fanout: str(numbers[fanout])) + words.notes
    return finish(figure, words)
