"""Accuracy on the unseen nodes by method, transductive beside inductive."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from sagebench.analysis.drawing import Data, Drawing, stacked_panels
from sagebench.analysis.points import repeats, where
from sagebench.analysis.unseen import SETTINGS, accuracies, compared
from sagebench.page.style import INK, SOFT

TITLE = "Accuracy on the unseen nodes, by method and setting"
CAPTION = (
    "Both settings train on the same labels and are scored on the same nodes; inductive training "
    "has neither these nodes nor their edges. A bar is the median of the repeats, its line the "
    "95 % interval of the median from five repeats on, else their range."
)
AXIS = "method"
ORDER = 0
ROW_IN, AROUND_IN = 0.42, 0.45
HEIGHT = 0.36
"""of a bar, in rows"""
SHADES = "#b4bcc6", SOFT
"""of the settings; colours are the methods', in the figure beside it"""


def draw(data: Data) -> Drawing | str:
    rows = compared(data.trials)
    found = accuracies(rows)
    if found.empty:
        return "No trial of this study has unseen nodes."
    groups = dict(list(found.groupby("dataset_name", sort=False)))
    counts = rows.groupby("dataset_name")["unseen_nodes"].unique()
    said = {name: f"{name}, {_range(counts[name])} unseen nodes" for name in groups}
    heights = [AROUND_IN + ROW_IN * group["name"].nunique() for group in groups.values()]
    figure, panels = stacked_panels(list(said.values()), heights)
    for axes, group in zip(panels, groups.values(), strict=True):
        _bars(axes, group)
    panels[-1].set(xlabel="Accuracy", xlim=(0, min(1.12, found["high"].max() * 1.15)))
    handles: list[Artist] = [
        Patch(color=colour, label=setting)
        for colour, setting in zip(SHADES, SETTINGS, strict=True)
        if setting in set(found["setting"])
    ]
    alone = f" {_range(rows['unseen_nodes'].unique())} unseen nodes;" if len(groups) == 1 else ""
    return Drawing(figure, f"{where(rows)}.{alone} {repeats(found)}.", [], handles)


def _bars(axes: Axes, found: pd.DataFrame) -> None:
    names = list(dict.fromkeys(found["name"]))
    for place, setting in enumerate(SETTINGS):
        group = found[found["setting"].eq(setting)]
        at = np.array([names.index(name) for name in group["name"]]) + (place - 0.5) * HEIGHT
        values = group["median"].to_numpy()
        ends = values - group["low"].to_numpy(), group["high"].to_numpy() - values
        axes.barh(at, values, HEIGHT, color=SHADES[place])
        cap = 2 * int((group["n"] > 1).any())
        axes.errorbar(values, at, xerr=ends, fmt="none", ecolor=INK, capsize=cap)
        for y, value, high in zip(at, values, group["high"], strict=True):
            axes.annotate(
                f"{value:.3f}", (high, y), xytext=(4, 0), textcoords="offset points",
                va="center", size=7, color=SOFT,
            )  # fmt: skip
    axes.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6))
    axes.grid(axis="y", visible=False)


def _range(counts: np.ndarray) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"
