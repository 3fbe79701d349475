"""Line charts: series of medians over one axis, and a strip of trials without a value."""

from __future__ import annotations

from itertools import chain
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from sagebench.analysis.drawing import (
    DASHES,
    MARKER,
    Data,
    Drawing,
    configuration_axis,
    handle,
    new_figure,
    series_handles,
    value_axis,
    whiskers,
)
from sagebench.analysis.points import (
    EVALUATIONS,
    axis_label,
    common_notes,
    keys_of,
    memory_label,
    placed,
    repeats,
    where,
)
from sagebench.analysis.statistics import summarise, without_value
from sagebench.page.style import ALARM, INK, SOFT, STRIP, looks
from sagebench.records import Status
from sagebench.units import GIB, time_unit

ENDS = {Status.OUT_OF_MEMORY: "X", Status.TIME_LIMIT: "P", Status.DIVERGED: "v"}
"""Mark of a measured end without a value."""

END: dict[str, Any] = {"markersize": 6.5, "markeredgecolor": "white", "markeredgewidth": 0.6}

STRIP_ROW = 0.075
"""height of one row of the strip, as a share of the axes"""

NOT_RUN_LABEL = "estimated, not run"


class Value(NamedTuple):
    """Quantity on the y axis: a column of the table of trials, and its scale."""

    column: str
    unit: float
    label: str  # empty: the caller sets the y axis


def epoch_time(rows: pd.DataFrame) -> Value:
    unit, seconds = time_unit(rows["epoch_time_s"].median())
    return Value("epoch_time_s", seconds, f"Time per epoch, {unit}")


def peak_memory(rows: pd.DataFrame) -> Value:
    return Value("peak_memory_bytes", GIB, memory_label(rows))


def accuracy_axis(axes: Axes, column: str) -> None:
    axes.margins(y=0.1)
    axes.set_ylabel(f"Test accuracy ({EVALUATIONS[column]} evaluation)")
    axes.ticklabel_format(axis="y", useOffset=False)


def over_axis(
    data: Data,
    value: Value,
    *,
    keys: list[str] | None = None,
    aside: tuple[pd.Series, str] | None = None,
    lead: str = "",
    line: str = "-",
    not_run: pd.DataFrame | None = None,
    limit: float | None = None,
) -> Drawing:
    """Medians of a value over the axis of the data: numbers where they lie, everything else side by
    side.

    keys: what stands on the x axis, unless it is the axis itself. aside: which rows no line joins,
    and what the legend calls them. lead: begins what is said of the values. line: what joins
    medians of a series. not_run: trials that were left out, drawn hollow as estimated. limit: a
    memory limit in GiB.
    """
    rows, axis = data.trials, data.axis
    left_out = rows.iloc[:0].assign(low=[], high=[]) if not_run is None else not_run
    together = pd.concat([rows, left_out]) if len(left_out) else rows
    own = axis.split("-")
    if keys is None and (beside := [key for key in keys_of(axis) if key not in own]):
        lead, aside = _most_frequent(rows, own, *beside)
    keys = keys or own
    places, names = placed(together, keys)
    rows, left_out = (f.assign(place=places[f.index]) for f in (rows, left_out))
    apart, apart_label = aside or (pd.Series(False, index=rows.index), "")
    by = list(dict.fromkeys(["series", "place", *keys_of(axis), "aside"]))  # none of unlike trials
    points = summarise(rows.assign(aside=apart), by, value.column, value.unit)
    points = points.sort_values(["aside", "place"], ascending=[False, True])  # joined ones on top
    ended = without_value(rows, ["series", "place"])
    series = looks(together["series"])

    joined = "none" if set(places) <= set(names) else line
    figure, (axes,) = new_figure()
    configuration_axis(axes, places, names, axis_label(rows, keys))
    if value.label:
        ends = [frame[end] for frame in (points, left_out) for end in ("low", "high")]
        value_axis(axes, [*chain(*ends), limit or 0], value.label)
    for (name, alone), group in points.groupby(["series", "aside"], sort=False):
        look = series[name] | (hollow(series[name]["color"]) if alone else {"linestyle": joined})
        draw_points(axes, group, "place", **look)
    if line != "none":
        _say_other_n(axes, points)
    for name, group in left_out.groupby("series", sort=False):
        colour = series[name]["color"]
        draw_points(axes, group, "place", color=colour, marker="d", **hollow(colour))
    _strip(axes, ended, series)
    if limit:
        _limit_line(axes, limit)

    handles = series_handles(series, joined)
    if points["aside"].any():
        handles.append(handle(apart_label, marker="o", **hollow(SOFT)))
    if len(left_out):
        handles.append(handle(NOT_RUN_LABEL, marker="d", **hollow(SOFT)))
    handles += [
        handle(f"{status.words} (no value)", marker=marker, markeredgecolor=SOFT)
        for status, marker in ENDS.items()
        if status in set(ended["status"])
    ]
    said = f"{lead}; median" if lead else "Median"
    subtitle = f"{where(rows)}. {said} and range of repeats, {repeats(points)}."
    return Drawing(figure, subtitle, common_notes(data.trials, axis), handles)


def _most_frequent(
    rows: pd.DataFrame, own: list[str], key: str
) -> tuple[str, tuple[pd.Series, str]]:
    """The value of `key` with the most configurations, whose medians a line joins; which rows have
    another one; and what those are called."""
    counts = rows.groupby(key)[own].nunique().max(axis=1)
    main, words = counts[counts == counts.max()].index.max(), key.replace("_", " ")
    return f"{words.capitalize()} {main}", (rows[key] != main, f"other {words}")


def hollow(colour: str) -> dict[str, str]:
    return {"markerfacecolor": "white", "markeredgecolor": colour}


def draw_points(
    axes: Axes,
    points: pd.DataFrame,
    x: str,
    y: str = "median",
    low: str = "low",
    high: str = "high",
    **look: Any,
) -> None:
    """Medians with their ranges."""
    look = {"linestyle": "none", "linewidth": 1.5, "elinewidth": 1.0, **MARKER, **look}
    middle = points[x].to_numpy(), points[y].to_numpy()
    axes.errorbar(*middle, yerr=whiskers(points, y, low, high), zorder=3, **look)


def _say_other_n(axes: Axes, points: pd.DataFrame) -> None:
    """Label the points whose number of repeats differs from most."""
    look: dict[str, Any] = {"xytext": (0, -12), "textcoords": "offset points", "ha": "center"}
    for point in points[~points["n"].isin(points["n"].mode()[:1])].to_dict("records"):
        at = point["place"], point["median"]
        axes.annotate(f"n={point['n']}", at, color=SOFT, size=7.5, **look)


def _strip(axes: Axes, ended: pd.DataFrame, series: dict[str, dict]) -> None:
    """Strip above the axes: configurations that ended without a value, one row per series.

    Where not all of the repeats ended so, a small "2/3" says how many did.
    """
    rows = [name for name in series if name in set(ended["series"])]
    if not rows:
        return
    place = (0, 1.01), 1, STRIP_ROW * len(rows)
    unclipped: dict[str, Any] = {"clip_on": False, "zorder": 0}
    axes.add_patch(
        Rectangle(*place, transform=axes.transAxes, facecolor=STRIP, linewidth=0, **unclipped)
    )
    across = axes.get_xaxis_transform()
    for (value, name), group in ended.groupby(["place", "series"], sort=False):
        height = 1.01 + STRIP_ROW * (len(rows) - rows.index(name) - 0.5)
        for shift, end in enumerate(group.to_dict("records")):
            look = {"marker": ENDS[end["status"]], "color": series[name]["color"], **END}
            axes.plot([value], [height], transform=across, clip_on=False, zorder=4, **look)
            share = "" if end["count"] == end["of"] else f"{end['count']}/{end['of']}"
            beside: dict[str, Any] = {"xytext": (5 + 16 * shift, 0), "textcoords": "offset points"}
            look = {"size": 7, "color": INK, "va": "center", "annotation_clip": False, **beside}
            axes.annotate(share, (value, height), xycoords=across, **look)


def _limit_line(axes: Axes, limit: float) -> None:
    axes.axhline(limit, color=ALARM, linewidth=1.0, linestyle=DASHES, zorder=1)
    across = axes.get_yaxis_transform()
    axes.text(
        0.01,
        limit,
        f"memory limit {limit:g} GiB",
        transform=across,
        va="bottom",
        color=ALARM,
        size=8,
    )
