"""Common parts of the figures: title, notes, axes, legend, point labels."""

from __future__ import annotations

import math
import textwrap
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from sagebench import registry
from sagebench.analysis.figures import Declaration
from sagebench.analysis.points import with_not_run
from sagebench.page.style import INK, SOFT, WIDTH_IN

PLOT_HEIGHT_IN = 3.1
TITLE_COLUMNS, SUBTITLE_COLUMNS, NOTE_COLUMNS = 54, 74, 80
LEGEND_COLUMNS, AXIS_COLUMNS = 72, 60
"""characters that fit the width of a figure in the sizes of these texts"""

LOG_FROM_RATIO = 10
TENS_FROM_RATIO = 1000
"""there are numbers at 1, 10, 100 alone, not at 2 and 5"""
MARKER: dict[str, Any] = {"markersize": 6, "markeredgecolor": "white", "markeredgewidth": 0.8}
DASHES = (0, (4, 3))

LABEL_PT = 7.5
OFFSETS_PT = [
    complex(right * reach, up * reach)
    for reach in (8, 12, 16, 22)
    for right, up in ((1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (1, 0), (0, -1), (-1, 0))
]
"""where the label of a point may stand, best first"""


@dataclass
class Drawing:
    """A figure with its subtitle, notes and legend entries."""

    figure: Figure
    subtitle: str = ""
    notes: list[str] = field(default_factory=list)
    handles: list[Artist] = field(default_factory=list)


class Data(NamedTuple):
    """Data of a figure: the trials of its axis with their `series`, all epochs, and the
    trials that were left out. axis: empty where it is of all trials. new_nodes: the times that new
    nodes were embedded."""

    trials: pd.DataFrame
    epochs: pd.DataFrame
    not_run: pd.DataFrame
    axis: str
    new_nodes: pd.DataFrame | None = None


def draw(
    declared: Declaration,
    trials: pd.DataFrame,
    epochs: pd.DataFrame,
    not_run: pd.DataFrame,
    new_nodes: pd.DataFrame | None = None,
) -> Figure:
    """The figure, drawn by its module from the study's tables; a placeholder where it has nothing
    to draw."""
    if declared.axis:
        trials, not_run = with_not_run(trials, not_run, declared.axis)
    drawn: Drawing | str = "No trial was run."
    if len(trials):
        module = registry.load("figure", declared.module)
        try:
            data = Data(trials, epochs, not_run, declared.axis or "", new_nodes)
            drawn = module.draw(data)
        except Exception as error:  # a plug-in's, perhaps: the others and the report are made
            traceback.print_exc()
            drawn = f"It could not be drawn: {type(error).__name__}: {error}"
    return finish(_placeholder(drawn) if isinstance(drawn, str) else drawn, declared.title)


def new_figure(
    columns: int = 1, height_in: float = PLOT_HEIGHT_IN, sharey: bool = True
) -> tuple[Figure, Sequence[Axes]]:
    """A figure with `columns` axes side by side that share their y axis, unless sharey is false."""
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    axes = figure.subplots(1, columns, sharey=sharey, squeeze=False)[0]
    sns.despine(figure)
    return figure, axes


def stacked_panels(titles: Sequence[str], heights_in: Sequence[float]) -> tuple[Figure, list[Axes]]:
    """A figure with axes below one another that share their x axis; the titles of more than one."""
    figure = Figure(figsize=(WIDTH_IN, sum(heights_in)), layout="constrained")
    panels = figure.subplots(
        len(titles), sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights_in}
    )[:, 0]
    if len(titles) > 1:
        for axes, title in zip(panels, titles, strict=True):
            axes.set_title(title, size=9, color=SOFT, loc="left")
    sns.despine(figure)
    return figure, list(panels)


def _placeholder(why: str) -> Drawing:
    figure, (axes,) = new_figure(height_in=0.9)
    axes.set_axis_off()
    axes.text(0.5, 0.5, why, ha="center", va="center", color=SOFT, size=9.5)
    return Drawing(figure)


def finish(drawing: Drawing, title: str) -> Figure:
    """Add title, subtitle, legend and notes around the axes; the figure grows to hold them."""
    figure, handles = drawing.figure, drawing.handles
    heading = textwrap.wrap(title, TITLE_COLUMNS)
    subtitle = textwrap.wrap(drawing.subtitle, SUBTITLE_COLUMNS)
    notes = [line for note in drawing.notes for line in textwrap.wrap(note, NOTE_COLUMNS)]
    longest = max((len(str(one.get_label())) for one in handles), default=0)
    columns = max(1, LEGEND_COLUMNS // (longest + 7))
    plot = figure.get_figheight()
    below_title = 0.145 + 0.2 * len(heading)
    header = below_title + 0.015 + 0.17 * len(subtitle) + 0.21 * math.ceil(len(handles) / columns)
    footer = 0.10 + 0.155 * len(notes) if notes else 0.0
    height = header + plot + footer
    figure.set_size_inches(WIDTH_IN, height)
    within = 0.0, footer / height, 1.0, plot / height
    figure.set_layout_engine("constrained", rect=within, w_pad=0.06, h_pad=0.04)
    left = 0.10 / WIDTH_IN

    def write(top_in: float, text: str, **look: Any) -> None:
        look = {"size": 8, "color": SOFT, "va": "top", "linespacing": 1.35, **look}
        figure.text(left, 1 - top_in / height, text, **look)

    write(0.10, "\n".join(heading), weight="bold", size=11.5, color=INK)
    write(below_title, "\n".join(subtitle), size=8.5)
    write(height - 0.08, "\n".join(notes), va="bottom")
    if handles:
        figure.legend(
            handles=handles,
            loc="upper left",
            ncols=columns,
            bbox_to_anchor=(left, 1 - (below_title + 0.025 + 0.17 * len(subtitle)) / height),
            handletextpad=0.5,
            handlelength=1.7,
            borderaxespad=0,
            borderpad=0,
            labelspacing=0.4,
            columnspacing=1.6,
        )
    return figure


def value_axis(axes: Axes, values: Iterable[float], label: str, which: str = "y") -> None:
    """The axis "x" or "y": logarithmic over more than one order of magnitude, else from zero."""
    axis = {"x": axes.xaxis, "y": axes.yaxis}[which]
    found = [value for value in values if value > 0]
    if found and max(found) / min(found) > LOG_FROM_RATIO:
        axes.set(**{f"{which}scale": "log"})
        subs = (1, 2, 5) if max(found) / min(found) < TENS_FROM_RATIO else (1,)
        axis.set_major_locator(LogLocator(subs=subs))
        ends = min(found) / 1.3, max(found) * 1.3
        label += " (log)"
    else:
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        ends = 0, max(found, default=1) * 1.08
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())
    axes.set(**{f"{which}lim": ends, f"{which}label": label})


def configuration_axis(
    axes: Axes, places: Iterable[float], names: dict[float, str], label: str
) -> None:
    """The x axis: a tick at every configuration, no two labels on each other, on a base-2 logarithm
    where none is 0; side by side where all places have names instead of numbers."""
    ticks = sorted(set(places))
    numbers = [tick for tick in ticks if tick not in names]
    log = bool(numbers) and ticks[0] > 0
    at = np.log2(ticks) if log else np.array(ticks, float)
    span = at[-1] - at[0] or 10.0
    margin = 0.06 * span if numbers else 0.6
    ends = at[0] - margin, at[-1] + margin
    axes.set_xlim(*(2**end for end in ends) if log else ends)
    if log:
        axes.set_xscale("log", base=2)
    texts, last = [], -math.inf
    for tick, place in zip(ticks, at, strict=True):
        text = names.get(tick, f"{tick:,.10g}")
        free = not numbers or place - last > (0.015 + 0.02 * len(text)) * span
        texts.append(text if free else "")
        last = place if free else last
    slanted: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
    crowded = not numbers and len(texts) * max(map(len, texts)) > AXIS_COLUMNS
    axes.set_xticks(ticks, texts, **(slanted if crowded else {}))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(f"{label}, log" if log else label)


def whiskers(points: pd.DataFrame, middle: str, low: str, high: str) -> np.ndarray:
    """Lengths of the error bars below and above the middle, [2, points]."""
    down, up = points[middle] - points[low], points[high] - points[middle]
    return np.stack([down.to_numpy(float), up.to_numpy(float)])


def handle(label: str, **look: Any) -> Artist:
    """Legend entry; by default a muted marker without a line."""
    look = {"color": SOFT, "linestyle": "none", **MARKER, **look}
    return Line2D([], [], label=label, **look)


def series_handles(looks: dict[str, dict[str, str]], line: str = "-") -> list[Artist]:
    return [handle(name, linestyle=line, **look) for name, look in looks.items()]


def label_points(axes: Axes, labels: Sequence[tuple[float, float, str, str]]) -> None:
    """Write each (x, y, text, colour) near its point."""
    axes.figure.canvas.draw()  # so that data becomes positions
    points_pt = axes.transData.transform([label[:2] for label in labels]) * 72 / axes.figure.dpi
    for (x, y, text, colour), offset in zip(labels, choose_offsets(points_pt), strict=True):
        axes.annotate(
            text,
            (x, y),
            xytext=(offset.real, offset.imag),
            textcoords="offset points",
            size=LABEL_PT,
            color=colour,
            ha="center",
            va="center",
            zorder=5,
            annotation_clip=False,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )


def choose_offsets(points: Iterable[tuple[float, float]]) -> list[complex]:
    """For each point an offset of its label, all in typographic points: the first that is clear of
    all points and of the labels so far, else the clearest."""
    at = [complex(x, y) for x, y in points]
    taken, offsets = list(at), []
    for point in at:
        clear = [min(abs(point + offset - one) for one in taken) for offset in OFFSETS_PT]
        best = max(range(len(clear)), key=lambda i: min(clear[i], LABEL_PT + 1))
        taken.append(point + OFFSETS_PT[best])
        offsets.append(OFFSETS_PT[best])
    return offsets
