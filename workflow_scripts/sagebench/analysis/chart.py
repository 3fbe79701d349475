"""Most figures: series of medians over one axis, and a strip of what ended without a value."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sagebench.analysis import style
from sagebench.analysis.drawing import (
    DASHES,
    MARKER,
    Words,
    configuration_axis,
    handle,
    new_figure,
    series_handles,
    value_axis,
    whiskers,
)
from sagebench.analysis.points import repeats, without_value
from sagebench.analysis.style import ALARM, INK, SOFT, STRIP
from sagebench.analysis.words import common_notes, where
from sagebench.records import Status

ENDS = {Status.OUT_OF_MEMORY: "X", Status.TIME_LIMIT: "P", Status.DIVERGED: "v"}
"""How a measured end without a value is drawn."""

END = {"markersize": 6.5, "markeredgecolor": "white", "markeredgewidth": 0.6}

STRIP_ROW = 0.075
"""height of one row of the strip, as a share of the axes"""

NOT_RUN_LABEL = "estimated, not run"


def over_axis(
    title: str,
    rows: pd.DataFrame,
    points: pd.DataFrame,
    axis: str,
    labels: tuple[str, str | None],
    *,
    x: str | None = None,
    lead: str = "",
    aside: str = "",
    line: str = "-",
    ended: pd.DataFrame | None = None,
    left_out: pd.DataFrame | None = None,
    limit: float | None = None,
) -> tuple[Figure, Axes, Words]:
    """A figure of `points` over the column `x` (`axis` unless given), still without its words.

    points: columns series, x, n, median, low, high, and `aside` where it is true of those that no
    line joins, which the argument of that name describes. labels: of x and y; without one of y, the
    y axis is the caller's. lead: begins what is said of the values. ended: as `without_value` makes
    it. left_out: predicted trials, drawn hollow. limit: a memory limit in GiB.
    """
    x = x or axis
    if left_out is None:
        left_out = rows.iloc[:0].assign(median=[], low=[], high=[])
    if "aside" not in points:
        points = points.assign(aside=False)
    if ended is None:
        ended = without_value(rows, ["series", x])
    series = [*rows["series"], *left_out["series"]]
    colours, markers = style.colours(series), style.markers(series)
    figure, (axes,) = new_figure()
    configuration_axis(axes, [*rows[x], *left_out[x]], labels[0])
    if labels[1] is not None:
        values = [
            value for frame in (points, left_out) for value in (*frame["low"], *frame["high"])
        ]
        value_axis(axes, [*values, *([limit] if limit else [])], labels[1])
    points = points.sort_values(["aside", x], ascending=[False, True])  # what is joined is on top
    for (name, apart), group in points.groupby(["series", "aside"], sort=False):
        draw_points(axes, group, x, colours[name], markers[name], "none" if apart else line, apart)
    if line != "none":
        _say_other_n(axes, points, x)
    for name, group in left_out.groupby("series", sort=False):
        draw_points(axes, group, x, colours[name], "d", "none", hollow=True)
    _strip(axes, ended, x, colours)
    if limit:
        _limit_line(axes, limit, f"memory limit {limit:g} GiB")

    hollow = {"markerfacecolor": "white", "markeredgecolor": SOFT}
    handles = series_handles(colours, markers, line)
    if points["aside"].any():
        handles.append(handle(aside, marker="o", **hollow))
    if len(left_out):
        handles.append(handle(NOT_RUN_LABEL, marker="d", **hollow))
    handles += [
        handle(f"{status.words} (no value)", marker=marker, markeredgecolor=SOFT)
        for status, marker in ENDS.items()
        if status in set(ended["status"])
    ]
    said = f"{lead}; median" if lead else "Median"
    subtitle = f"{where(rows)}. {said} and range of repeats, {repeats(points)}."
    return figure, axes, Words(title, subtitle, common_notes(rows, axis), handles)


def draw_points(
    axes: Axes,
    points: pd.DataFrame,
    x: str,
    colour: str,
    marker: str,
    line: str = "none",
    hollow: bool = False,
) -> None:
    """Medians with their ranges, joined by `line`."""
    face = {"markerfacecolor": "white", "markeredgecolor": colour} if hollow else {}
    axes.errorbar(
        points[x].to_numpy(),
        points["median"].to_numpy(),
        yerr=whiskers(points, "median", "low", "high"),
        marker=marker,
        linestyle=line,
        linewidth=1.5,
        color=colour,
        elinewidth=1.1,
        capsize=2.5,
        zorder=3,
        **{**MARKER, **face},
    )


def _say_other_n(axes: Axes, points: pd.DataFrame, x: str) -> None:
    """Say the n of every point that has not as many repeats as most."""
    for point in points[~points["n"].isin(points["n"].mode()[:1])].to_dict("records"):
        axes.annotate(
            f"n={point['n']}",
            (point[x], point["median"]),
            xytext=(0, -12),
            size=7.5,
            textcoords="offset points",
            color=SOFT,
            ha="center",
        )


def _strip(axes: Axes, ended: pd.DataFrame, x: str, colours: dict[str, str]) -> None:
    """The band on top: what has no value, at its configuration, a row a series.

    Where not all of the repeats ended so, a small "2/3" says how many did.
    """
    rows = [name for name in colours if name in set(ended["series"])]
    if not rows:
        return
    place = (0, 1.01), 1, STRIP_ROW * len(rows)
    unclipped = {"clip_on": False, "zorder": 0}
    axes.add_patch(
        Rectangle(*place, transform=axes.transAxes, facecolor=STRIP, linewidth=0, **unclipped)
    )
    across = axes.get_xaxis_transform()
    for (value, series), group in ended.groupby([x, "series"], sort=False):
        height = 1.01 + STRIP_ROW * (len(rows) - rows.index(series) - 0.5)
        for shift, end in enumerate(group.to_dict("records")):
            look = {"marker": ENDS[end["status"]], "color": colours[series], **END}
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


def _limit_line(axes: Axes, limit: float, text: str) -> None:
    axes.axhline(limit, color=ALARM, linewidth=1.0, linestyle=DASHES, zorder=1)
    axes.annotate(
        text,
        (0.005, limit),
        xycoords=("axes fraction", "data"),
        xytext=(3, 3),
        textcoords="offset points",
        color=ALARM,
        size=8,
    )
