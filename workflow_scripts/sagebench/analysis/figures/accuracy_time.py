"""Fanout: test accuracy against time per epoch, with the Pareto front."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sagebench.analysis.chart import accuracy_axis, draw_points, epoch_time
from sagebench.analysis.drawing import (
    Data,
    Drawing,
    handle,
    new_figure,
    series_handles,
    value_axis,
    whiskers,
)
from sagebench.analysis.figures.memory_fanout import number_points
from sagebench.analysis.points import (
    EVALUATIONS,
    chosen_by,
    common_notes,
    evaluation,
    repeats,
    where,
)
from sagebench.analysis.statistics import pareto_front, summarise
from sagebench.page.style import looks

TITLE = "Test accuracy and time per epoch by fanout"
CAPTION = (
    "Upper left is best: the dashed front joins the fanouts that no other one of its series beats "
    "in both; numbers refer to the fanouts below the axes."
)
AXIS = "fanout"
ORDER = 1

FRONT: dict[str, Any] = {"linestyle": (0, (4, 2)), "linewidth": 1.2}
EXPLAINED = {"full": "every neighbor", "sampled": "the trial's own fanout"}


def draw(data: Data) -> Drawing | str:
    trials, accuracy, time = data.trials, evaluation(data.trials), epoch_time(data.trials)
    points = accuracy_points(trials, accuracy, time.unit)
    if points.empty:
        return "No trial of this study has a test accuracy."
    series = looks(trials["series"])
    figure, (axes,) = new_figure(height_in=3.5)
    for name, group in points.groupby("series", sort=False):
        times = whiskers(group, "median_time", "low_time", "high_time")
        ends = "median_accuracy", "low_accuracy", "high_accuracy"
        draw_points(axes, group, "median_time", *ends, xerr=times, **series[name])
        front = group[group["front"]].sort_values("median_time")
        steps, colour = (front["median_time"], front["median_accuracy"]), series[name]["color"]
        axes.step(*steps, where="post", color=colour, zorder=2, **FRONT)
    value_axis(axes, [*points["low_time"], *points["high_time"]], time.label, which="x")
    accuracy_axis(axes, accuracy)
    name = EVALUATIONS[accuracy]
    drawing = Drawing(
        figure,
        f"{where(trials)}. {name.capitalize()} evaluation: {EXPLAINED[name]}; {chosen_by(trials)}. "
        f"Median and range of repeats, {repeats(points)}. Upper left is best.",
        common_notes(trials, AXIS),
        [*series_handles(series, line="none"), handle("Pareto front", **FRONT)],
    )
    number_points(drawing, trials, points, "median_time", "median_accuracy")
    return drawing


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
