"""Batch size against time and memory; gradient accumulation against time."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sagebench.analysis import style
from sagebench.analysis.drawing import (
    Words,
    configuration_axis,
    end_handles,
    finish,
    limit_line,
    medians,
    new_figure,
    not_run_marks,
    placeholder,
    series_handles,
    strip,
    value_axis,
)
from sagebench.analysis.points import repeats, summarise, with_not_run, without_value
from sagebench.analysis.words import common_notes, memory_label, time_unit, where
from sagebench.units import GIB

BY = ["series", "batch_size", "accumulation"]
NO_EXPERIMENT = "This study has no experiment with axis batch_size."


def figures(trials: pd.DataFrame, not_run: pd.DataFrame | None = None) -> dict[str, Figure]:
    """File name -> figure, from the trials' table. not_run: trials predicted not to fit."""
    rows, left_out = with_not_run(trials, not_run, "batch_size")
    if rows.empty:
        return {
            "batch_time": placeholder("Batch size and time", NO_EXPERIMENT),
            "batch_memory": placeholder("Batch size and memory", NO_EXPERIMENT),
            "accumulation_time": placeholder("Gradient accumulation and time", NO_EXPERIMENT),
        }
    unit, seconds = time_unit(rows["epoch_time_s"])
    time = scaled(summarise(rows, BY, "epoch_time_s"), seconds)
    memory = scaled(summarise(rows, BY, "peak_memory_bytes"), GIB)
    return {
        "batch_time": _over_batch(
            rows, time, "Time per epoch by batch size", f"Time per epoch, {unit}"
        ),
        "batch_memory": _over_batch(
            rows,
            memory,
            "Peak memory by batch size",
            memory_label(rows),
            memory_limit(rows),
            left_out,
        ),
        "accumulation_time": _over_accumulation(rows, time, f"Time per epoch, {unit}"),
    }


def scaled(points: pd.DataFrame, unit: float) -> pd.DataFrame:
    """Points with their values divided by `unit`."""
    return points.assign(**{name: points[name] / unit for name in ("median", "low", "high")})


def main_accumulation(rows: pd.DataFrame) -> int:
    """The accumulation with the most batch sizes: the one whose points a line joins."""
    sizes = rows.groupby("accumulation")["batch_size"].nunique()
    return int(sizes[sizes == sizes.max()].index.max())


def memory_limit(rows: pd.DataFrame) -> float | None:
    """The one limit in GiB that GPU trials ran into; None on a CPU or where there were several.

    On a CPU the cap counts from what imports took already, so it is no line on this axis.
    """
    limits = rows.loc[rows["device"].eq("cuda") & rows["limit_unit"].eq("GiB"), "limit_value"]
    found = limits.dropna().unique()
    return float(found[0]) if len(found) == 1 else None


def without_value_over_batch(rows: pd.DataFrame) -> pd.DataFrame:
    """Ends without a value, all accumulations of a batch size together."""
    return without_value(rows, ["series", "batch_size"])


def _over_batch(
    rows: pd.DataFrame,
    points: pd.DataFrame,
    title: str,
    label: str,
    limit: float | None = None,
    left_out: pd.DataFrame | None = None,
) -> Figure:
    if left_out is None:
        left_out = rows.iloc[:0].assign(predicted=[], low=[], high=[])
    main = main_accumulation(rows)
    joined = points[points["accumulation"] == main]
    others = points[points["accumulation"] != main]
    ended = without_value_over_batch(rows)
    series_there = [*rows["series"], *left_out["series"]]
    colours, markers = style.colours(series_there), style.markers(series_there)
    usual = None if points.empty else int(points["n"].mode()[0])

    figure, (axes,) = new_figure()
    sizes = [*rows["batch_size"], *left_out["batch_size"]]
    configuration_axis(axes, sizes, "Batch size (training nodes a rank, log)")
    values = [*points["high"], *points["low"], *left_out["low"], *left_out["high"]]
    value_axis(axes, [*values, *([limit] if limit else [])], label)
    for series in colours:
        medians(
            axes,
            others[others["series"] == series],
            "batch_size",
            colours[series],
            markers[series],
            line="none",
            hollow=True,
            size=4.5,
            usual_n=usual,
        )
        medians(
            axes,
            joined[joined["series"] == series],
            "batch_size",
            colours[series],
            markers[series],
            usual_n=usual,
        )
    strip(axes, ended, "batch_size", colours)
    if limit:
        limit_line(axes, limit, f"memory limit {limit:g} GiB")
    handles = series_handles(colours, markers)
    handles += not_run_marks(axes, left_out, "batch_size", colours)
    if not others.empty:
        handles.append(
            Line2D(
                [],
                [],
                color=style.SOFT,
                marker="o",
                markerfacecolor="white",
                markersize=4.5,
                linestyle="none",
                label="other accumulation",
            )
        )
    words = Words(
        title,
        f"{where(rows)}. Accumulation {main}; median and range of repeats, {repeats(points)}.",
        common_notes(rows, "batch_size"),
        handles + end_handles(ended["status"]),
    )
    return finish(figure, words)


def over_accumulation(points: pd.DataFrame) -> pd.DataFrame:
    """The points whose batch size was measured with at least two accumulations."""
    counts = points.groupby(["series", "batch_size"])["accumulation"].transform("nunique")
    return points[counts >= 2]


def _over_accumulation(rows: pd.DataFrame, time: pd.DataFrame, label: str) -> Figure:
    title = "Time per epoch by gradient accumulation"
    sizes = rows.groupby("batch_size")["accumulation"].transform("nunique")
    rows = rows[sizes >= 2]
    if rows.empty:
        return placeholder(title, "No batch size of this study has two accumulations.")
    points = over_accumulation(time)
    ended = without_value(rows, BY)
    colours = style.colours(rows["series"])
    batches = sorted(rows["batch_size"].unique())
    markers = dict(style.zip_cycled([str(b) for b in batches], style.MARKERS))
    lines = dict(style.zip_cycled([str(b) for b in batches], ("-", (0, (5, 2)), (0, (1, 1.5)))))
    usual = None if points.empty else int(points["n"].mode()[0])

    figure, (axes,) = new_figure()
    steps = sorted(rows["accumulation"].unique())
    axes.set_xticks(steps)
    axes.set_xlim(steps[0] - 0.3, steps[-1] + 0.3)
    axes.set_xlabel("Accumulation (micro-batches a step)")
    value_axis(axes, [*points["high"], *points["low"]], label)
    for (series, batch), group in points.groupby(["series", "batch_size"], sort=False):
        medians(
            axes,
            group,
            "accumulation",
            colours[series],
            markers[str(batch)],
            line=lines[str(batch)],
            usual_n=usual,
        )
    strip(axes, without_value(rows, ["series", "accumulation"]), "accumulation", colours)
    handles = series_handles(colours, dict.fromkeys(colours, ""))
    handles += [
        Line2D(
            [],
            [],
            color=style.SOFT,
            marker=markers[str(batch)],
            linestyle=lines[str(batch)],
            markeredgecolor="white",
            label=f"batch size {batch}",
        )
        for batch in batches
    ]
    words = Words(
        title,
        f"{where(rows)}. Median and range of repeats, {repeats(points)}.",
        common_notes(rows, "batch_size"),
        handles + end_handles(ended["status"]),
    )
    return finish(figure, words)
