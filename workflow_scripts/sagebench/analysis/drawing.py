"""What all figures share: the frame with its words, the axes, the entries of the legend."""

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
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator

from sagebench.analysis.captions import CAPTIONS
from sagebench.analysis.style import INK, SOFT, WIDTH_IN, drawable

PLOT_HEIGHT_IN = 3.1
SUBTITLE_COLUMNS, NOTE_COLUMNS, LEGEND_COLUMNS = 74, 80, 72
"""characters that fit the width of a figure in the sizes of these texts"""

LOG_FROM_RATIO = 10
MARKER = {"markersize": 6, "markeredgecolor": "white", "markeredgewidth": 0.8}
DASHES = (0, (4, 3))


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
    left = 0.10 / WIDTH_IN

    def write(top_in: float, text: str, **look: object) -> None:
        look = {"size": 8, "color": SOFT, "va": "top", "linespacing": 1.35, "x": left, **look}
        figure.text(y=1 - top_in / height, s=text, **look)

    write(0.10, drawable(words.title), weight="bold", size=11.5, color=INK)
    write(0.345, "\n".join(subtitle), size=8.5)
    if words.handles:
        spacing = {"borderaxespad": 0, "borderpad": 0, "labelspacing": 0.4, "columnspacing": 1.6}
        figure.legend(
            handles=words.handles,
            loc="upper left",
            ncols=columns,
            bbox_to_anchor=(left, 1 - (0.37 + 0.17 * len(subtitle)) / height),
            handletextpad=0.5,
            handlelength=1.7,
            **spacing,
        )
    write(height - 0.08, "\n".join(notes), va="bottom")
    for i, entry in enumerate(words.key):
        column, row = divmod(i, key_rows)
        top_in = header + plot + 0.02 + 0.155 * row
        write(top_in, entry, color=INK, x=left + column / key_columns * (1 - left))
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


def no_experiment(axis: str, *names: str) -> dict[str, Figure]:
    """Placeholders for the figures `names` of an axis that the study has no experiment with."""
    why = f"This study has no experiment with axis {axis}."
    return {name: placeholder(CAPTIONS[axis][name].title, why) for name in names}


def value_axis(axes: Axes, values: Iterable[float], label: str, which: str = "y") -> None:
    """The axis "x" or "y": logarithmic over more than one order of magnitude, else from zero."""
    axis = {"x": axes.xaxis, "y": axes.yaxis}[which]
    found = [value for value in values if value > 0]
    if found and max(found) / min(found) > LOG_FROM_RATIO:
        axes.set(**{f"{which}scale": "log"})
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ends = min(found) / 1.3, max(found) * 1.3
        label += " (log)"
    else:
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        ends = 0, max(found, default=1) * 1.08
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())
    axes.set(**{f"{which}lim": ends, f"{which}label": label})


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
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}" if value in shown else "")
    axes.set_xlabel(label)


def whiskers(points: pd.DataFrame, middle: str, low: str, high: str) -> np.ndarray:
    """Lengths of the error bars below and above the middle, [2, points]."""
    down, up = points[middle] - points[low], points[high] - points[middle]
    return np.stack([down.to_numpy(float), up.to_numpy(float)])


def handle(label: str, **look: object) -> Line2D:
    """An entry of the legend; a soft colour and no line, unless told."""
    look = {"color": SOFT, "linestyle": "none", **MARKER, **look}
    return Line2D([], [], label=drawable(label), **look)


def series_handles(
    colours: dict[str, str], markers: dict[str, str], line: str = "-"
) -> list[Line2D]:
    return [
        handle(name, color=colours[name], marker=markers[name], linestyle=line) for name in colours
    ]
