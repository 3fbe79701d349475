"""Seconds to embed new nodes, over their number."""

from __future__ import annotations

from typing import Any

from sagebench.analysis.chart import draw_points
from sagebench.analysis.drawing import (
    DASHES,
    Data,
    Drawing,
    handle,
    new_figure,
    series_handles,
    value_axis,
)
from sagebench.analysis.points import repeats, where
from sagebench.analysis.unseen import WAYS, break_even, compared, paper_note, times
from sagebench.page.style import looks

TITLE = "Seconds to embed new nodes"
CAPTION = (
    "How long a trained model takes for nodes that come later, all at once: medians over the "
    "trials and their range. Dashed: all of the training again, whatever the number of new nodes. "
    "Lower is better; where a line crosses a dashed one, training again is as fast."
)
AXIS = "method"
ORDER = 1


def draw(data: Data) -> Drawing | str:
    if data.new_nodes is None or data.new_nodes.empty:
        return "No trial of this study embedded new nodes: that is done in an inductive setting."
    found = times(data.trials, data.new_nodes)
    found["line"] = [
        f"{name}: {WAYS.get(way, way)}"
        for name, way in zip(found["name"], found["way"], strict=True)
    ]
    if found.empty:
        return "No completed trial of this study embedded new nodes."
    series = looks(found["line"])
    figure, (axes,) = new_figure(height_in=3.6)
    value_axis(axes, found["nodes"], "New nodes at once", which="x")
    value_axis(axes, [*found["low_s"], *found["high_s"]], "Seconds")
    handles = []
    for line, group in found.groupby("line", sort=False):
        if set(group["way"]) == {"retrained"}:
            dashed: dict[str, Any] = {
                "color": series[line]["color"],
                "linestyle": DASHES,
                "linewidth": 1.2,
            }
            for seconds in group["time_s"]:
                axes.axhline(seconds, **dashed)
            handles.append(handle(line, **dashed))
            continue
        points = group.sort_values("nodes").rename(
            columns={"time_s": "median", "low_s": "low", "high_s": "high"}
        )
        draw_points(axes, points, "nodes", linestyle="-", **series[line])
        handles += series_handles({line: series[line]}, "-")
    rows = compared(data.trials)
    notes = []
    for dataset, of_dataset in found.groupby("dataset_name", sort=False):
        if even := break_even(of_dataset):
            notes.append(f"{dataset}: {even}")
    subtitle = f"{where(rows)}. Median and range of trials, {repeats(found)}."
    return Drawing(figure, subtitle, [*notes, paper_note(found)], handles)
