"""Training loss over the epochs, a line for every number of ranks."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sagebench.analysis import style
from sagebench.analysis.drawing import Words, finish, handle, new_figure, no_experiment, placeholder
from sagebench.analysis.points import of_axis, rank_word, repeats, spread, without_value
from sagebench.analysis.words import common_notes, end_notes, where

LINES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))


def figures(trials: pd.DataFrame, epochs: pd.DataFrame) -> dict[str, Figure]:
    """File name -> figure, from the trials' and the epochs' table."""
    rows = of_axis(trials, "ranks")
    if rows.empty:
        return no_experiment("ranks", "loss_curves")
    title, curves = f"Training loss by number of {rank_word(rows)}", loss_curves(rows, epochs)
    if curves.empty:
        return {"loss_curves": placeholder(title, "No trial of this study has a loss curve yet.")}
    return {"loss_curves": _figure(rows, curves, title)}


def loss_curves(rows: pd.DataFrame, epochs: pd.DataFrame) -> pd.DataFrame:
    """Columns series, ranks, epoch, n, median, low, high: the loss over the repeats' epochs.

    Trials that ended early (time limit, diverged) count as far as they came.
    """
    joined = rows[["trial_id", "series", "ranks"]].merge(epochs, on="trial_id")
    return spread(joined, ["series", "ranks", "epoch"], "loss").sort_values("epoch")


def _figure(rows: pd.DataFrame, curves: pd.DataFrame, title: str) -> Figure:
    series = [name for name in style.colours(rows["series"]) if name in set(curves["series"])]
    counts = sorted(rows["ranks"].unique().tolist())
    looks = {
        count: {"color": colour, "linestyle": LINES[i % len(LINES)], "linewidth": 1.8}
        for i, (count, colour) in enumerate(zip(counts, style.shades(len(counts)), strict=True))
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
            axes.set_title(style.drawable(name), size=9.5, color=style.INK, loc="left")
    panels[0].set_ylabel("Training loss (cross-entropy)")

    def ranks(count: int) -> str:
        return f"{count} {rank_word(rows, count)}"

    ended = without_value(rows, ["series", "ranks"])
    words = Words(
        title,
        f"{where(rows)}. Line: median of repeats, {repeats(curves)}; band: their range.",
        common_notes(rows, "ranks") + end_notes(ended, "ranks", ranks),  # there is no strip
        [handle(ranks(count), **look) for count, look in looks.items()],
    )
    return finish(figure, words)
