"""Most figures: series of medians over one axis, and a strip of what ended without a value."""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from sagebench.analysis.drawing import (
    DASHES,
    MARKER,
    Drawing,
    configuration_axis,
    handle,
    new_figure,
    series_handles,
    value_axis,
    whiskers,
)
from sagebench.analysis.points import AXES, repeats, summarise, without_value
from sagebench.analysis.words import common_notes, memory_label, where
from sagebench.page.style import ALARM, INK, SOFT, STRIP, looks
from sagebench.records import Status
from sagebench.units import GIB, time_unit

ENDS = {Status.OUT_OF_MEMORY: "X", Status.TIME_LIMIT: "P", Status.DIVERGED: "v"}
"""How a measured end without a value is drawn."""

END = {"markersize": 6.5, "markeredgecolor": "white", "markeredgewidth": 0.6}

STRIP_ROW = 0.075
"""height of one row of the strip, as a share of the axes"""

NOT_RUN_LABEL = "estimated, not run"


class Value(NamedTuple):
    """What the y axis shows: a column of the trials' table, in units of so many of its own."""

    column: str
    unit: float
    label: str | None  # None: the caller sets the y axis


def epoch_time(rows: pd.DataFrame) -> Value:
    unit, seconds = time_unit(rows["epoch_time_s"].median())
    return Value("epoch_time_s", seconds, f"Time per epoch, {unit}")


def peak_memory(rows: pd.DataFrame) -> Value:
    return Value("peak_memory_bytes", GIB, memory_label(rows))


def over_axis(
    rows: pd.DataFrame,
    value: Value,
    axis: str,
    label: str,
    *,
    x: str | None = None,
    aside: tuple[pd.Series, str] | None = None,
    lead: str = "",
    line: str = "-",
    not_run: pd.DataFrame | None = None,
    limit: float | None = None,
) -> Drawing:
    """Medians of a value over the column `x` (`axis` unless given), which the label names.

    aside: which rows no line joins, and what the legend calls them. lead: begins what is said of
    the values. line: what joins medians of a series. not_run: trials that were left out, drawn
    hollow as estimated. limit: a memory limit in GiB.
    """
    x = x or axis
    left_out = rows.iloc[:0].assign(low=[], high=[]) if not_run is None else not_run
    apart, apart_label = aside or (pd.Series(False, index=rows.index), "")
    by = list(dict.fromkeys(["series", x, *AXES[axis], "aside"]))  # no median of unlike trials
    points = summarise(rows.assign(aside=apart), by, value.column, value.unit)
    points = points.sort_values(["aside", x], ascending=[False, True])  # what is joined is on top
    ended = without_value(rows, ["series", x])
    series = looks([*rows["series"], *left_out["series"]])
    figure, (axes,) = new_figure()
    configuration_axis(axes, [*rows[x], *left_out[x]], label)
    if value.label is not None:
        ends = [frame[end] for frame in (points, left_out) for end in ("low", "high")]
        value_axis(axes, [*chain(*ends), limit or 0], value.label)
    for (name, alone), group in points.groupby(["series", "aside"], sort=False):
        look = series[name] | (hollow(series[name]["color"]) if alone else {"linestyle": line})
        draw_points(axes, group, x, **look)
    if line != "none":
        _say_other_n(axes, points, x)
    for name, group in left_out.groupby("series", sort=False):
        colour = series[name]["color"]
        draw_points(axes, group, x, color=colour, marker="d", **hollow(colour))
    _strip(axes, ended, x, series)
    if limit:
        _limit_line(axes, limit)

    handles = series_handles(series, line)
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
    return Drawing(figure, subtitle, common_notes(rows, axis), handles)


def hollow(colour: str) -> dict[str, str]:
    return {"markerfacecolor": "white", "markeredgecolor": colour}


def draw_points(axes: Axes, points: pd.DataFrame, x: str, **look: object) -> None:
    """Medians with their ranges."""
    look = {"linestyle": "none", "linewidth": 1.5, "elinewidth": 1.1, "capsize": 2.5, **look}
    axes.errorbar(
        points[x].to_numpy(),
        points["median"].to_numpy(),
        yerr=whiskers(points, "median", "low", "high"),
        zorder=3,
        **{**MARKER, **look},
    )


def _say_other_n(axes: Axes, points: pd.DataFrame, x: str) -> None:
    """Say the n of every point that has not as many repeats as most."""
    for point in points[~points["n"].isin(points["n"].mode()[:1])].to_dict("records"):
        place = {"xytext": (0, -12), "textcoords": "offset points", "ha": "center"}
        axes.annotate(f"n={point['n']}", (point[x], point["median"]), size=7.5, color=SOFT, **place)


def _strip(axes: Axes, ended: pd.DataFrame, x: str, series: dict[str, dict]) -> None:
    """The band on top: what has no value, at its configuration, a row a series.

    Where not all of the repeats ended so, a small "2/3" says how many did.
    """
    rows = [name for name in series if name in set(ended["series"])]
    if not rows:
        return
    place = (0, 1.01), 1, STRIP_ROW * len(rows)
    unclipped = {"clip_on": False, "zorder": 0}
    axes.add_patch(
        Rectangle(*place, transform=axes.transAxes, facecolor=STRIP, linewidth=0, **unclipped)
    )
    across = axes.get_xaxis_transform()
    for (value, name), group in ended.groupby([x, "series"], sort=False):
        height = 1.01 + STRIP_ROW * (len(rows) - rows.index(name) - 0.5)
        for shift, end in enumerate(group.to_dict("records")):
            look = {"marker": ENDS[end["status"]], "color": series[name]["color"], **END}
            axes.plot([value], [height], transform=across, clip_on=False, zorder=4, **look)
            axes.annotate(
                "" if end["count"] == end["of"] else f"{end['count']}/{end['of']}",
                (value, height),
                size=7,
                color=INK,
                va="center",
                xycoords=across,
                xytext=(5 + 16 * shift, 0),
                textcoords="offset points",
                annotation_clip=False,
            )


def _limit_line(axes: Axes, limit: float) -> None:
    axes.axhline(limit, color=ALARM, linewidth=1.0, linestyle=DASHES, zorder=1)
    axes.annotate(
        f"memory limit {limit:g} GiB",
        (0.005, limit),
        xycoords=("axes fraction", "data"),
        xytext=(3, 3),
        textcoords="offset points",
        color=ALARM,
        size=8,
    )
