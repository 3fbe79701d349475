"""What the figures share: the frame with its words, axes of configurations, the strip on top."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullLocator,
    ScalarFormatter,
)

from sagebench.analysis.style import ALARM, INK, SOFT, STRIP, WIDTH_IN, drawable
from sagebench.records import Status

PLOT_HEIGHT_IN = 3.1
SUBTITLE_COLUMNS, NOTE_COLUMNS, LEGEND_COLUMNS = 74, 80, 72
"""characters that fit the width of a figure in the sizes of these texts"""

LOG_FROM_RATIO = 10

ENDS = {Status.OUT_OF_MEMORY: "X", Status.TIME_LIMIT: "P", Status.DIVERGED: "v"}
"""How a measured end without a value is drawn."""

STRIP_ROW = 0.075
"""height of one row of the strip, as a share of the axes"""


@dataclass
class Words:
    """What a figure says around its axes."""

    title: str
    subtitle: str
    notes: list[str] = field(default_factory=list)
    handles: list[Line2D] = field(default_factory=list)
    key: list[str] = field(default_factory=list)  # short entries, set in columns


def new_figure(
    columns: int = 1, height_in: float = PLOT_HEIGHT_IN, sharey: bool = True
) -> tuple[Figure, Sequence[Axes]]:
    """A figure with `columns` axes side by side that share their y axis, unless told not to."""
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    axes = figure.subplots(1, columns, sharey=sharey, squeeze=False)[0]
    for axis in axes:
        sns.despine(ax=axis)
    return figure, axes


def finish(figure: Figure, words: Words) -> Figure:
    """Put the words around the axes; the figure grows by what they need."""
    subtitle = wrap(words.subtitle, SUBTITLE_COLUMNS)
    notes = [line for note in words.notes for line in wrap(note, NOTE_COLUMNS)]
    rows, columns = _legend_shape([len(handle.get_label()) for handle in words.handles])
    key_columns = max(1, NOTE_COLUMNS // (max(map(len, words.key), default=0) + 3))
    key_rows = math.ceil(len(words.key) / key_columns)
    plot = figure.get_figheight()
    header = 0.36 + 0.17 * len(subtitle) + 0.21 * rows
    lines = len(notes) + key_rows + (0.4 if notes and key_rows else 0)
    footer = 0.10 + 0.155 * lines if lines else 0.0
    height = header + plot + footer
    figure.set_size_inches(WIDTH_IN, height)
    figure.get_layout_engine().set(
        rect=(0.0, footer / height, 1.0, plot / height), w_pad=0.06, h_pad=0.04
    )

    def from_top(inches: float) -> float:
        return 1 - inches / height

    left = 0.10 / WIDTH_IN
    figure.text(left, from_top(0.10), drawable(words.title), weight="bold", size=11.5, va="top")
    figure.text(
        left, from_top(0.345), "\n".join(subtitle), size=8.5, color=SOFT, va="top", linespacing=1.35
    )
    if words.handles:
        figure.legend(
            handles=words.handles,
            loc="upper left",
            ncols=columns,
            borderaxespad=0,
            borderpad=0,
            bbox_to_anchor=(left, from_top(0.37 + 0.17 * len(subtitle))),
            labelspacing=0.4,
            handletextpad=0.5,
            columnspacing=1.6,
            handlelength=1.7,
        )
    if notes:
        figure.text(
            left, 0.08 / height, "\n".join(notes), size=8, color=SOFT, va="bottom", linespacing=1.35
        )
    for i, entry in enumerate(words.key):
        column, row = divmod(i, key_rows)
        figure.text(
            left + column / key_columns * (1 - left),
            (footer - 0.02 - 0.155 * row) / height,
            entry,
            size=8,
            color=INK,
            va="top",
        )
    return figure


def wrap(text: str, columns: int) -> list[str]:
    return textwrap.wrap(drawable(text).replace("n = ", "n\u00a0=\u00a0"), columns)


def _legend_shape(lengths: list[int]) -> tuple[int, int]:
    """Rows and columns of a legend as wide as the figure at most; it is filled column by column."""
    for rows in range(1, len(lengths) + 1):
        columns = [lengths[i : i + rows] for i in range(0, len(lengths), rows)]
        if sum(max(column) + 7 for column in columns) <= LEGEND_COLUMNS:
            return rows, len(columns)
    return len(lengths), 1


def placeholder(title: str, why: str) -> Figure:
    """A small figure that says that there is nothing to draw, and why."""
    figure, (axes,) = new_figure(height_in=0.9)
    axes.set_axis_off()
    axes.text(0.5, 0.5, drawable(why), ha="center", va="center", color=SOFT, size=9.5)
    return finish(figure, Words(title, ""))


def value_axis(axes: Axes, values: Iterable[float], label: str) -> None:
    """The y axis: logarithmic over more than one order of magnitude, else from zero."""
    found = [value for value in values if value > 0]
    if found and max(found) / min(found) > LOG_FROM_RATIO:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.set_ylim(min(found) / 1.3, max(found) * 1.3)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        label += " (log)"
    else:
        axes.set_ylim(0, max(found, default=1) * 1.08)
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel(label)


def configuration_axis(axes: Axes, values: Iterable[float], label: str) -> None:
    """The x axis: base-2 logarithm, a tick at every configuration, no two labels on each other."""
    ticks = sorted(set(values))
    if len(ticks) > 1:
        axes.set_xscale("log", base=2)
        margin = (ticks[-1] / ticks[0]) ** 0.06
    else:
        margin = 1.5
    axes.set_xlim(ticks[0] / margin, ticks[-1] * margin)
    span = math.log(ticks[-1] / ticks[0]) if len(ticks) > 1 else 1.0
    shown: list[float] = []
    for tick in ticks:
        if not shown or math.log(tick / shown[-1]) / span > 0.055:
            shown.append(tick)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:g}" if value in shown else "")
    )
    axes.set_xlabel(label)


def whiskers(points: pd.DataFrame, middle: str, low: str, high: str) -> np.ndarray:
    """Lengths of the error bars below and above the middle, [2, points]."""
    down, up = points[middle] - points[low], points[high] - points[middle]
    return np.stack([down.to_numpy(float), up.to_numpy(float)])


def medians(
    axes: Axes,
    points: pd.DataFrame,
    x: str,
    colour: str,
    marker: str,
    line: str = "-",
    hollow: bool = False,
    size: float = 6,
    usual_n: int | None = None,
) -> None:
    """Medians with their ranges; a point with another n than usual says its n."""
    points = points.sort_values(x)
    if line != "none":
        sns.lineplot(
            data=points,
            x=x,
            y="median",
            ax=axes,
            color=colour,
            linestyle=line,
            linewidth=1.5,
            estimator=None,
            legend=False,
            zorder=2,
        )
    axes.errorbar(
        points[x].to_numpy(),
        points["median"].to_numpy(),
        yerr=whiskers(points, "median", "low", "high"),
        fmt=marker,
        color=colour,
        markersize=size,
        markerfacecolor="white" if hollow else colour,
        markeredgecolor=colour if hollow else "white",
        markeredgewidth=1.1 if hollow else 0.8,
        ecolor=colour,
        elinewidth=1.1,
        capsize=2.5,
        zorder=3,
    )
    for _, point in points.iterrows():
        if usual_n is not None and point["n"] != usual_n:
            axes.annotate(
                f"n={point['n']}",
                (point[x], point["median"]),
                xytext=(0, -12),
                size=7.5,
                textcoords="offset points",
                color=SOFT,
                ha="center",
            )


def strip(axes: Axes, ended: pd.DataFrame, x: str, colours: dict[str, str]) -> None:
    """The band on top: what has no value, at its configuration, a row a series.

    `ended` has the columns x, series, status, count, of. Where not all of the repeats ended so, a
    small "2/3" says how many did.
    """
    if ended.empty:
        return
    rows = [name for name in colours if name in set(ended["series"])]
    axes.add_patch(
        Rectangle(
            (0, 1.01),
            1,
            STRIP_ROW * len(rows),
            transform=axes.transAxes,
            facecolor=STRIP,
            clip_on=False,
            linewidth=0,
            zorder=0,
        )
    )
    for (place, series), group in ended.groupby([x, "series"], sort=False):
        height = 1.01 + STRIP_ROW * (len(rows) - rows.index(series) - 0.5)
        for shift, (_, end) in enumerate(group.iterrows()):
            axes.plot(
                [place],
                [height],
                transform=axes.get_xaxis_transform(),
                clip_on=False,
                marker=ENDS[end["status"]],
                color=colours[series],
                markersize=6.5,
                markeredgecolor="white",
                markeredgewidth=0.6,
                linestyle="none",
                zorder=4,
            )
            part = "" if end["count"] == end["of"] else f"{end['count']}/{end['of']}"
            axes.annotate(
                part,
                (place, height),
                size=7,
                color=INK,
                va="center",
                xycoords=axes.get_xaxis_transform(),
                xytext=(5 + 16 * shift, 0),
                textcoords="offset points",
                annotation_clip=False,
            )


def series_handles(
    colours: dict[str, str], markers: dict[str, str], line: str = "-"
) -> list[Line2D]:
    return [
        Line2D(
            [],
            [],
            color=colours[name],
            marker=markers[name],
            linestyle=line,
            markersize=6,
            markeredgecolor="white",
            markeredgewidth=0.8,
            label=drawable(name),
        )
        for name in colours
    ]


def end_handles(statuses: Iterable[str]) -> list[Line2D]:
    """Legend entries for what the strip holds."""
    there = set(statuses)
    return [
        Line2D(
            [],
            [],
            color=SOFT,
            marker=marker,
            linestyle="none",
            markersize=6.5,
            label=f"{status.words} (no value)",
        )
        for status, marker in ENDS.items()
        if status in there
    ]


NOT_RUN_LABEL = "predicted, not run"


def not_run_marks(
    axes: Axes, points: pd.DataFrame, x: str, colours: dict[str, str]
) -> list[Line2D]:
    """Trials that were left out, at their predicted value: hollow, no point of a measurement.

    `points` has the columns x, series, predicted, low, high. Returns the legend's entries.
    """
    for series, group in points.groupby("series", sort=False):
        axes.errorbar(
            group[x].to_numpy(),
            group["predicted"].to_numpy(),
            yerr=whiskers(group, "predicted", "low", "high"),
            fmt="d",
            markerfacecolor="white",
            markeredgecolor=colours[series],
            ecolor=(colours[series], 0.4),
            elinewidth=0.9,
            markersize=6,
            markeredgewidth=1.0,
            zorder=3,
        )
    if points.empty:
        return []
    look = {"marker": "d", "markerfacecolor": "white", "markersize": 6, "linestyle": "none"}
    return [Line2D([], [], color=SOFT, label=NOT_RUN_LABEL, **look)]


def limit_line(axes: Axes, limit: float, text: str) -> None:
    """A dashed line at a limit that applied."""
    axes.axhline(limit, color=ALARM, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    axes.annotate(
        text,
        (0.005, limit),
        xycoords=("axes fraction", "data"),
        xytext=(3, 3),
        textcoords="offset points",
        color=ALARM,
        size=8,
    )
