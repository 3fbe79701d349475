"""Training loss over the epochs, a line for every number of ranks."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.ticker import MaxNLocator

from sagebench.analysis.drawing import Data, Drawing, handle, new_figure
from sagebench.analysis.points import common_notes, end_notes, rank_word, repeats, where
from sagebench.analysis.statistics import spread, without_value
from sagebench.page.style import INK, shades

TITLE = "Training loss by number of ranks"
CAPTION = (
    "The loss of every epoch, a line for each number of ranks; more ranks take fewer, larger steps "
    "in an epoch."
)
AXIS = "ranks"
ORDER = 4

LINES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))


def draw(data: Data) -> Drawing | str:
    trials, curves = data.trials, loss_curves(data.trials, data.epochs)
    if curves.empty:
        return "No trial of this study has a loss curve yet."
    series = [name for name in trials["series"].unique() if name in set(curves["series"])]
    counts = sorted(trials["ranks"].unique().tolist())
    looks: dict[int, dict[str, Any]] = {
        count: {"color": colour, "linestyle": LINES[i % len(LINES)], "linewidth": 1.8}
        for i, (count, colour) in enumerate(zip(counts, shades(len(counts)), strict=True))
    }
    figure, panels = new_figure(columns=len(series))
    for axes, name in zip(panels, series, strict=True):
        for count, look in looks.items():
            curve = curves[curves["series"].eq(name) & curves["ranks"].eq(count)]
            marker = "o" if len(curve) == 1 else None
            axes.plot(curve["epoch"], curve["median"], marker=marker, zorder=3, **look)
            band = {"color": look["color"], "alpha": 0.16, "linewidth": 0, "zorder": 2}
            axes.fill_between(curve["epoch"], curve["low"], curve["high"], **band)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("Epoch")
        if len(series) > 1:
            axes.set_title(name, size=9.5, color=INK, loc="left")
    panels[0].set_ylabel("Training loss (cross-entropy)")

    def ranks(count: int) -> str:
        return f"{count} {rank_word(trials, count)}"

    ended = without_value(trials, ["series", "ranks"])
    return Drawing(
        figure,
        f"{where(trials)}. Line: median of repeats, {repeats(curves)}; band: their range.",
        common_notes(trials, AXIS) + end_notes(ended, "ranks", ranks),  # there is no strip
        [handle(ranks(count), **look) for count, look in looks.items()],
    )


def loss_curves(rows: pd.DataFrame, epochs: pd.DataFrame) -> pd.DataFrame:
    """Columns series, ranks, epoch, n, median, low, high: the loss over the repeats' epochs.

    Trials that ended early (time limit, diverged) count as far as they came.
    """
    joined = rows[["trial_id", "series", "ranks"]].merge(epochs, on="trial_id")
    return spread(joined, ["series", "ranks", "epoch"], "loss").sort_values("epoch")
