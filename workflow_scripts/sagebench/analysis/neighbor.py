"""Fanout: test accuracy against time with the Pareto front, and memory against total fanout.

Sixteen fanouts written beside sixteen points hide the points, so each fanout has a number, the
same in both figures, and a key below says what it stands for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    NullLocator,
    ScalarFormatter,
)

from sagebench.analysis import style
from sagebench.analysis.batch import memory_limit, scaled
from sagebench.analysis.drawing import (
    LOG_FROM_RATIO,
    Words,
    end_handles,
    finish,
    limit_line,
    new_figure,
    not_run_marks,
    placeholder,
    series_handles,
    strip,
    value_axis,
    whiskers,
)
from sagebench.analysis.placement import place_labels
from sagebench.analysis.points import repeats, summarise, with_not_run, without_value
from sagebench.analysis.statistics import pareto_front
from sagebench.analysis.words import common_notes, memory_label, time_unit, where
from sagebench.grid.fanout import Fanout
from sagebench.records import Status
from sagebench.units import GIB

BY = ["series", "fanout"]
NO_EXPERIMENT = "This study has no experiment with axis fanout."
TITLES = {
    "accuracy_time": "Test accuracy and time per epoch by fanout",
    "memory_fanout": "Peak memory by total fanout",
}
EVALUATIONS = {
    "test_accuracy_full": ("full", "full evaluation: every neighbor"),
    "test_accuracy_sampled": ("sampled", "sampled evaluation: the trial's own fanout"),
}


def figures(trials: pd.DataFrame, not_run: pd.DataFrame | None = None) -> dict[str, Figure]:
    """File name -> figure, from the trials' table. not_run: trials predicted not to fit."""
    rows, left_out = with_not_run(trials, not_run, "fanout")
    if rows.empty:
        return {name: placeholder(title, NO_EXPERIMENT) for name, title in TITLES.items()}
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


def accuracy_points(rows: pd.DataFrame, accuracy: str) -> pd.DataFrame:
    """Columns series, fanout, n, time_{median,low,high} in s, accuracy_{median,low,high}, front.

    `front` marks the Pareto front of each series: less time, more accuracy, by the medians.
    """
    both = rows[rows[accuracy].notna() & rows["epoch_time_s"].notna()]
    time, gain = summarise(both, BY, "epoch_time_s"), summarise(both, BY, accuracy)
    points = time.drop(columns="n").merge(gain, on=BY, suffixes=("_time", "_accuracy"))
    points = points.rename(
        columns={
            f"{what}_{of}": f"{of}_{what}"
            for of in ("time", "accuracy")
            for what in ("median", "low", "high")
        }
    )
    points["front"] = False
    for _, group in points.groupby("series", sort=False):
        pairs = list(zip(group["time_median"], group["accuracy_median"], strict=True))
        points.loc[group.index[pareto_front(pairs)], "front"] = True
    return points


def memory_points(rows: pd.DataFrame) -> tuple[pd.DataFrame, float | None]:
    """Points with `x`, the total fanout, and the x of "all", or None where no fanout has a -1.

    "all" stands to the right of every finite product, at no value of its own.
    """
    points = scaled(summarise(rows, BY, "peak_memory_bytes"), GIB)
    place, everything = total_fanout_places(rows)
    return points.assign(x=[place[fanout] for fanout in points["fanout"]]), everything


def total_fanout_places(rows: pd.DataFrame) -> tuple[dict[str, float], float | None]:
    totals = rows.drop_duplicates("fanout").set_index("fanout")["total_fanout"]
    largest = totals.max() if totals.notna().any() else 1.0
    everything = float(largest * 8) if totals.isna().any() else None
    return {f: everything if math.isnan(t) else float(t) for f, t in totals.items()}, everything


def _accuracy_time(rows: pd.DataFrame) -> Figure:
    accuracy = evaluation(rows)
    name, explained = EVALUATIONS[accuracy]
    points = accuracy_points(rows, accuracy)
    if points.empty:
        return placeholder(TITLES["accuracy_time"], "No trial of this study has a test accuracy.")
    unit, seconds = time_unit(rows["epoch_time_s"])
    for what in ("time_median", "time_low", "time_high"):
        points[what] /= seconds
    colours, markers = style.colours(rows["series"]), style.markers(rows["series"])
    numbers = fanout_numbers(rows)

    figure, (axes,) = new_figure(height_in=3.5)
    for series, group in points.groupby("series", sort=False):
        axes.errorbar(
            group["time_median"].to_numpy(),
            group["accuracy_median"].to_numpy(),
            xerr=whiskers(group, "time_median", "time_low", "time_high"),
            yerr=whiskers(group, "accuracy_median", "accuracy_low", "accuracy_high"),
            fmt=markers[series],
            color=colours[series],
            markersize=6,
            markeredgecolor="white",
            markeredgewidth=0.8,
            elinewidth=0.9,
            ecolor=(colours[series], 0.55),
            zorder=3,
        )
        front = group[group["front"]].sort_values("time_median")
        axes.step(
            front["time_median"],
            front["accuracy_median"],
            where="post",
            color=colours[series],
            linewidth=1.2,
            linestyle=(0, (4, 2)),
            zorder=2,
        )
    _time_axis(axes, points, unit)
    axes.margins(y=0.1)
    axes.set_ylabel(f"Test accuracy ({name} evaluation)")
    axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    _number(figure, axes, points, "time_median", "accuracy_median", numbers, colours)
    ended = without_value(rows, BY)
    front = Line2D(
        [], [], color=style.SOFT, linestyle=(0, (4, 2)), linewidth=1.2, label="Pareto front"
    )
    words = Words(
        TITLES["accuracy_time"],
        f"{where(rows)}. {explained.capitalize()}; {selection(rows)}. Median and range of "
        f"repeats, {repeats(points)}. Upper left is best.",
        [*_ends(ended, numbers), *common_notes(rows, "fanout")],
        [*series_handles(colours, markers, line="none"), front],
        _key(numbers),
    )
    return finish(figure, words)


def _memory_fanout(rows: pd.DataFrame, left_out: pd.DataFrame) -> Figure:
    together = pd.concat([rows, left_out]) if len(left_out) else rows
    place, everything = total_fanout_places(together)
    points, _ = memory_points(rows)
    points = points.assign(x=[place[fanout] for fanout in points["fanout"]])
    left_out = left_out.assign(x=[place[fanout] for fanout in left_out["fanout"]])
    limit = memory_limit(rows)
    ended = without_value(rows, BY)
    ended = ended.assign(x=[place[fanout] for fanout in ended["fanout"]])
    same_place = ended.groupby(["series", "x", "status"], sort=False)[["count"]].sum()
    colours, markers = style.colours(together["series"]), style.markers(together["series"])
    numbers = fanout_numbers(together)

    figure, (axes,) = new_figure(height_in=3.3)
    values = [*points["high"], *points["low"], *left_out["low"], *left_out["high"]]
    value_axis(axes, [*values, *([limit] if limit else [])], memory_label(rows))
    _total_axis(axes, list(place.values()), everything)
    for series, group in points.groupby("series", sort=False):
        axes.errorbar(
            group["x"].to_numpy(),
            group["median"].to_numpy(),
            yerr=whiskers(group, "median", "low", "high"),
            fmt=markers[series],
            color=colours[series],
            markersize=6,
            markeredgecolor="white",
            markeredgewidth=0.8,
            elinewidth=1.0,
            capsize=2.5,
            zorder=3,
        )
    whole = same_place.reset_index().assign(of=same_place["count"].to_numpy())
    strip(axes, whole, "x", colours)  # how many of how many: the note says it, there is no room
    if limit:
        limit_line(axes, limit, f"memory limit {limit:g} GiB")
    guessed = not_run_marks(axes, left_out, "x", colours)
    _number(figure, axes, points, "x", "median", numbers, colours)
    if len(left_out):
        _number(figure, axes, left_out, "x", "predicted", numbers, colours)
    zeros = any("0" in fanout.split(",") for fanout in numbers)
    notes = ["Total fanout: the product of the non-zero fanouts (with zeros the slides' is 0)."]
    words = Words(
        TITLES["memory_fanout"],
        f"{where(rows)}. Median and range of repeats, {repeats(points)}.",
        [*_ends(ended, numbers), *(notes if zeros else []), *common_notes(rows, "fanout")],
        [*series_handles(colours, markers, line="none"), *end_handles(ended["status"]), *guessed],
        _key(numbers),
    )
    return finish(figure, words)


def _time_axis(axes: Axes, points: pd.DataFrame, unit: str) -> None:
    low, high = points["time_low"].min(), points["time_high"].max()
    label = f"Time per epoch, {unit}"
    if low > 0 and high / low > LOG_FROM_RATIO:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.set_xlim(low / 1.3, high * 1.3)
        label += " (log)"
    else:
        axes.set_xlim(0, high * 1.08)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(label)


def _total_axis(axes: Axes, places: Sequence[float], everything: float | None) -> None:
    finite = [place for place in places if place != everything]
    axes.set_xscale("log")
    axes.set_xlim(min(places) / 1.8, max(places) * 1.8)
    powers = [10.0**k for k in range(0, 16) if min(places) / 1.8 <= 10.0**k]
    ticks = [tick for tick in powers if finite and tick <= max(finite) * 1.8]
    if everything is not None:
        ticks.append(everything)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: "all" if value == everything else f"{value:,.0f}")
    )
    axes.set_xlabel("Total fanout (product of the non-zero fanouts, log)")


def _number(
    figure: Figure,
    axes: Axes,
    points: pd.DataFrame,
    x: str,
    y: str,
    numbers: dict[str, int],
    colours: dict[str, str],
) -> None:
    labels = [
        (row[x], row[y], str(numbers[row["fanout"]]), colours[row["series"]])
        for _, row in points.iterrows()
    ]
    place_labels(figure, axes, labels)


def _key(numbers: dict[str, int]) -> list[str]:
    return [f"{number}: {Fanout.parse(fanout).label}" for fanout, number in numbers.items()]


def _ends(ended: pd.DataFrame, numbers: dict[str, int]) -> list[str]:
    """What has no accuracy or no memory, by the fanouts' numbers: "1, 9 (2 of 3)"."""
    notes = []
    for (status, series), group in ended.groupby(["status", "series"], sort=False):
        which = ", ".join(
            f"{numbers[fanout]}" + ("" if count == of else f" ({count} of {of} repeats)")
            for fanout, count, of in zip(group["fanout"], group["count"], group["of"], strict=True)
        )
        notes.append(f"{status.replace('_', ' ').capitalize()} (no value), {series}: {which}.")
    return notes
