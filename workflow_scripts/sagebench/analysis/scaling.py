"""Ranks against time, speed-up and efficiency."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from sagebench.analysis import style
from sagebench.analysis.batch import scaled
from sagebench.analysis.drawing import (
    Words,
    configuration_axis,
    end_handles,
    finish,
    medians,
    new_figure,
    placeholder,
    series_handles,
    strip,
    value_axis,
)
from sagebench.analysis.points import of_axis, rank_word, repeats, summarise, without_value
from sagebench.analysis.words import common_notes, time_unit, where

BY = ["series", "ranks"]
NO_EXPERIMENT = "This study has no experiment with axis ranks."
TITLES = {
    "scaling_time": "Time per epoch by number of {}",
    "speedup": "Speed-up by number of {}",
    "efficiency": "Parallel efficiency by number of {}",
}


def figures(trials: pd.DataFrame) -> dict[str, Figure]:
    """File name -> figure, from the trials' table."""
    rows = of_axis(trials, "ranks")
    if rows.empty:
        return {
            name: placeholder(title.format("ranks"), NO_EXPERIMENT)
            for name, title in TITLES.items()
        }
    titles = {name: title.format(rank_word(rows)) for name, title in TITLES.items()}
    return {
        "scaling_time": _time(rows, titles["scaling_time"]),
        "speedup": _gain(rows, "speed_up", titles["speedup"]),
        "efficiency": _gain(rows, "efficiency", titles["efficiency"]),
    }


def oversubscribed(rows: pd.DataFrame) -> list[int]:
    """Rank counts with more ranks x threads than cores: their times are of no use for speed-up."""
    return sorted(rows.loc[rows["oversubscribed"].eq(True), "ranks"].unique().tolist())


def base_ranks(rows: pd.DataFrame) -> list[int]:
    """The fewest ranks of each series that speed-up refers to; usually 1 for all."""
    fair = rows[rows["speed_up"].notna()]
    return sorted(fair.groupby("series")["ranks"].min().unique().tolist())


def _time(rows: pd.DataFrame, title: str) -> Figure:
    unit, seconds = time_unit(rows["epoch_time_s"])
    crowded = rows["oversubscribed"].eq(True)
    fair = scaled(summarise(rows[~crowded], BY, "epoch_time_s"), seconds)
    over = scaled(summarise(rows[crowded], BY, "epoch_time_s"), seconds)
    every = pd.concat([fair, over]) if len(over) else fair
    ended = without_value(rows, BY)
    colours, markers = style.colours(rows["series"]), style.markers(rows["series"])
    usual = None if every.empty else int(every["n"].mode()[0])

    figure, (axes,) = new_figure()
    _rank_axis(axes, rows)
    value_axis(axes, [*every["high"], *every["low"]], f"Time per epoch, {unit}")
    for series in colours:
        medians(
            axes,
            fair[fair["series"] == series],
            "ranks",
            colours[series],
            markers[series],
            usual_n=usual,
        )
        medians(
            axes,
            over[over["series"] == series],
            "ranks",
            colours[series],
            markers[series],
            line="none",
            hollow=True,
            usual_n=usual,
        )
    strip(axes, ended, "ranks", colours)
    handles = series_handles(colours, markers)
    if crowded.any():
        handles.append(
            Line2D(
                [],
                [],
                color=style.SOFT,
                marker="o",
                markerfacecolor="white",
                linestyle="none",
                label="oversubscribed",
            )
        )
    words = Words(
        title,
        f"{where(rows)}. Median and range of repeats, {repeats(every)}.",
        common_notes(rows, "ranks")
        + (["Oversubscribed: more ranks x threads than cores."] if crowded.any() else []),
        handles + end_handles(ended["status"]),
    )
    return finish(figure, words)


def _gain(rows: pd.DataFrame, value: str, title: str) -> Figure:
    points = summarise(rows, BY, value)
    bases = base_ranks(rows)
    left_out = oversubscribed(rows)
    notes = common_notes(rows, "ranks")
    if left_out:
        counts = ", ".join(map(str, left_out))
        notes.append(
            f"Not shown because oversubscribed (more ranks x threads than cores): {counts} "
            f"{rank_word(rows)}."
        )
    if points.empty:
        return placeholder(title, "No trial that can be compared. " + " ".join(notes[-1:]))
    ended = without_value(rows, BY)
    colours, markers = style.colours(rows["series"]), style.markers(rows["series"])
    usual = int(points["n"].mode()[0])

    figure, (axes,) = new_figure()
    if value == "speed_up":
        _speed_up_axes(axes, rows, points, bases)
    else:
        _rank_axis(axes, rows)
        axes.axhline(1, color=style.SOFT, linewidth=1.1, linestyle=(0, (4, 3)), zorder=1)
        axes.set_ylim(0, max(1.1, points["high"].max() * 1.08))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_ylabel("Efficiency (speed-up / ideal)")
    for series in colours:
        medians(
            axes,
            points[points["series"] == series],
            "ranks",
            colours[series],
            markers[series],
            usual_n=usual,
        )
    strip(axes, ended, "ranks", colours)
    ideal = Line2D([], [], color=style.SOFT, linestyle=(0, (4, 3)), linewidth=1.1, label="ideal")
    words = Words(
        title,
        f"{where(rows)}. Against the median time with {' or '.join(map(str, bases))} "
        f"{singular(rank_word(rows), bases)}; median and range of repeats, {repeats(points)}.",
        notes,
        [*series_handles(colours, markers), ideal, *end_handles(ended["status"])],
    )
    return finish(figure, words)


def singular(word: str, counts: list[int]) -> str:
    """ "1 GPU", "1 rank (CPU)"."""
    if counts != [1]:
        return word
    return word.replace("GPUs", "GPU").replace("ranks", "rank")


def _rank_axis(axes: Axes, rows: pd.DataFrame) -> None:
    word = rank_word(rows)
    configuration_axis(axes, rows["ranks"], f"Number of {word}, log")


def _speed_up_axes(axes: Axes, rows: pd.DataFrame, points: pd.DataFrame, bases: list[int]) -> None:
    """Equal logarithmic scales, so that the ideal is a straight line for any number of ranks."""
    _rank_axis(axes, rows)
    counts = sorted(rows["ranks"].unique())
    for base in bases:
        axes.plot(
            counts,
            [count / base for count in counts],
            color=style.SOFT,
            linewidth=1.1,
            linestyle=(0, (4, 3)),
            zorder=1,
        )
    top = max(counts[-1] / bases[0], points["high"].max())
    low = min(counts[0] / bases[-1], points["low"].min())
    axes.set_yscale("log", base=2)
    axes.set_ylim(low / 1.12, top * 1.12)
    ticks = [2**k for k in range(-6, 16) if low / 1.12 <= 2**k <= top * 1.12]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylabel("Speed-up (log)")
