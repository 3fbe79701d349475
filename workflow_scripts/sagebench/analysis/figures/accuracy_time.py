"""Fanout: test accuracy against time per epoch, with the Pareto front."""

from __future__ import annotations

import pandas as pd

from sagebench.analysis.chart import epoch_time
from sagebench.analysis.drawing import (
    MARKER,
    Drawing,
    handle,
    new_figure,
    series_handles,
    value_axis,
    whiskers,
)
from sagebench.analysis.figures._fanout import number_points
from sagebench.analysis.points import EVALUATIONS, evaluation, repeats, summarise
from sagebench.analysis.statistics import pareto_front
from sagebench.analysis.words import common_notes, where
from sagebench.page.style import looks

TITLE = "Test accuracy and time per epoch by fanout"
CAPTION = (
    "Upper left is best: the dashed front joins the fanouts that no other one of its series beats "
    "in both; numbers refer to the fanouts below the axes."
)
AXIS = "fanout"
ORDER = 1

FRONT = {"linestyle": (0, (4, 2)), "linewidth": 1.2}
EXPLAINED = {"full": "every neighbor", "sampled": "the trial's own fanout"}


def draw(trials: pd.DataFrame, epochs: pd.DataFrame, not_run: pd.DataFrame) -> Drawing | str:
    accuracy, time = evaluation(trials), epoch_time(trials)
    points = accuracy_points(trials, accuracy, time.unit)
    if points.empty:
        return "No trial of this study has a test accuracy."
    series = looks(trials["series"])
    figure, (axes,) = new_figure(height_in=3.5)
    for name, group in points.groupby("series", sort=False):
        colour = series[name]["color"]
        axes.errorbar(
            group["median_time"].to_numpy(),
            group["median_accuracy"].to_numpy(),
            xerr=whiskers(group, "median_time", "low_time", "high_time"),
            yerr=whiskers(group, "median_accuracy", "low_accuracy", "high_accuracy"),
            linestyle="none",
            elinewidth=0.9,
            ecolor=(colour, 0.55),
            zorder=3,
            **series[name],
            **MARKER,
        )
        front = group[group["front"]].sort_values("median_time")
        steps = front["median_time"], front["median_accuracy"]
        axes.step(*steps, where="post", color=colour, zorder=2, **FRONT)
    value_axis(axes, [*points["low_time"], *points["high_time"]], time.label, which="x")
    name = EVALUATIONS[accuracy]
    axes.margins(y=0.1)
    axes.set_ylabel(f"Test accuracy ({name} evaluation)")
    axes.ticklabel_format(axis="y", useOffset=False)
    drawing = Drawing(
        figure,
        f"{where(trials)}. {name.capitalize()} evaluation: {EXPLAINED[name]}; {selection(trials)}. "
        f"Median and range of repeats, {repeats(points)}. Upper left is best.",
        common_notes(trials, AXIS),
        [*series_handles(series, line="none"), handle("Pareto front", **FRONT)],
    )
    number_points(drawing, trials, points, "median_time", "median_accuracy", series)
    return drawing


def selection(rows: pd.DataFrame) -> str:
    """How the tested model was chosen, in words."""
    methods = sorted(rows["validation_method"].dropna().unique())
    return f"model chosen by {' or '.join(methods) or 'unknown'} validation"


def accuracy_points(rows: pd.DataFrame, accuracy: str, unit: float = 1.0) -> pd.DataFrame:
    """Columns series, fanout, n, {median,low,high}_{time,accuracy}, front; times in `unit`s of s.

    `front` marks the Pareto front of each series: less time, more accuracy, by the medians.
    """
    both = rows[rows[accuracy].notna() & rows["epoch_time_s"].notna()]
    by = ["series", "fanout"]
    points = summarise(both, by, "epoch_time_s", unit).merge(
        summarise(both, by, accuracy), on=[*by, "n"], suffixes=("_time", "_accuracy")
    )
    points["front"] = False
    for _, group in points.groupby("series", sort=False):
        pairs = list(zip(group["median_time"], group["median_accuracy"], strict=True))
        points.loc[group.index[pareto_front(pairs)], "front"] = True
    return points
