"""Accuracy on the unseen nodes by method, transductive beside inductive."""

from __future__ import annotations

import numpy as np
from matplotlib.artist import Artist
from matplotlib.patches import Patch

from sagebench.analysis.drawing import Data, Drawing, new_figure
from sagebench.analysis.points import repeats, where
from sagebench.analysis.unseen import SETTINGS, accuracies, compared
from sagebench.page.style import COLOURS, INK, SOFT

TITLE = "Accuracy on the unseen nodes, by method and setting"
CAPTION = (
    "Both settings train on the same labels and are scored on the same nodes; inductive training "
    "has neither these nodes nor their edges. A bar is the median of the repeats, its line the "
    "95 % interval of the median from five repeats on, else their range."
)
AXIS = "method"
ORDER = 0
ROW_IN = 0.42
HEIGHT = 0.36
"""of a bar, in rows"""


def draw(data: Data) -> Drawing | str:
    rows = compared(data.trials)
    found = accuracies(rows)
    if found.empty:
        return "No trial of this study has unseen nodes."
    names = list(dict.fromkeys(found["name"]))
    figure, (axes,) = new_figure(height_in=0.7 + ROW_IN * len(names))
    handles: list[Artist] = []
    for place, setting in enumerate(SETTINGS):
        group = found[found["setting"].eq(setting)]
        at = np.array([names.index(name) for name in group["name"]]) + (place - 0.5) * HEIGHT
        values = group["median"].to_numpy()
        ends = values - group["low"].to_numpy(), group["high"].to_numpy() - values
        colour = COLOURS[place]
        axes.barh(at, values, HEIGHT, xerr=ends, color=colour, ecolor=INK, capsize=2)
        handles.append(Patch(color=colour, label=setting))
        for y, value, high in zip(at, values, group["high"], strict=True):
            axes.annotate(
                f"{value:.3f}", (high, y), xytext=(4, 0), textcoords="offset points",
                va="center", size=7, color=SOFT,
            )  # fmt: skip
    axes.set(yticks=range(len(names)), yticklabels=names, xlabel="Accuracy")
    axes.set_xlim(0, min(1.12, found["high"].max() * 1.15))
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    unseen = ", ".join(f"{count:,.0f}" for count in rows["unseen_nodes"].dropna().unique())
    subtitle = f"{where(rows)}. {unseen} unseen nodes; {repeats(found)}."
    return Drawing(figure, subtitle, [], handles)
