"""Seconds to embed new nodes, over their number."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from sagebench.analysis.chart import draw_points
from sagebench.analysis.drawing import (
    DASHES,
    Data,
    Drawing,
    handle,
    stacked_panels,
    value_axis,
)
from sagebench.analysis.points import repeats, where
from sagebench.analysis.unseen import WAYS, break_even, compared, paper_note, times
from sagebench.page.style import COLOURS, SOFT

TITLE = "Seconds to embed new nodes"
CAPTION = (
    "How long a trained model takes for nodes that come later, all at once: medians over the "
    "trials and their range, of a single trial its repeats'. Dashed: all of the training again, "
    "whatever the number of new nodes. Lower is better; where a line crosses a dashed one, "
    "training again is as fast."
)
AXIS = "method"
ORDER = 1
PANEL_IN, ALONE_IN = 2.4, 3.6
LOOKS: dict[str, dict[str, Any]] = {
    "forward": {"marker": "o", "linestyle": "-"},
    "frozen_update": {"marker": "s", "linestyle": "-"},
    "mean_of_neighbors": {"marker": "^", "linestyle": "-"},
    "retrained": {"marker": "none", "linestyle": DASHES},
}
"""of the ways; the colour is the method's"""


def draw(data: Data) -> Drawing | str:
    if data.new_nodes is None or data.new_nodes.empty:
        return "No trial of this study embedded new nodes: that is done in an inductive setting."
    found = times(data.trials, data.new_nodes)
    if found.empty:
        return "No completed trial of this study embedded new nodes."
    names = list(dict.fromkeys(found["name"]))
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    groups = dict(list(found.groupby("dataset_name", sort=False)))
    height = ALONE_IN if len(groups) == 1 else PANEL_IN
    figure, panels = stacked_panels(list(groups), [height] * len(groups))
    for axes, group in zip(panels, groups.values(), strict=True):
        value_axis(axes, [*group["low_s"], *group["high_s"]], "Seconds")
        _lines(axes, group, colours)
    value_axis(panels[-1], found["nodes"], "New nodes at once", which="x")
    handles = [
        handle(name, color=colour, marker="none", linestyle="-", linewidth=2.5)
        for name, colour in colours.items()
    ]
    handles += [
        handle(words, color=SOFT, **LOOKS[way])
        for way, words in WAYS.items()
        if way in set(found["way"])
    ]
    notes = [
        f"{dataset}: {even}" for dataset, group in groups.items() if (even := break_even(group))
    ]
    subtitle = f"{where(compared(data.trials))}. Median and range, {repeats(found)}."
    return Drawing(figure, subtitle, [*notes, paper_note(found)], handles)


def _lines(axes: Axes, found: pd.DataFrame, colours: dict[str, str]) -> None:
    for (name, way), group in found.groupby(["name", "way"], sort=False):
        look = {"color": colours[name], **LOOKS.get(way, LOOKS["forward"])}
        if way == "retrained":
            for seconds in group["time_s"]:
                axes.axhline(seconds, linewidth=1.2, **look)
        else:
            named = {"time_s": "median", "low_s": "low", "high_s": "high"}
            draw_points(axes, group.sort_values("nodes").rename(columns=named), "nodes", **look)
