"""Training loss over the epochs, a line for every number of ranks."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sagebench.analysis import style
from sagebench.analysis.drawing import Words, finish, new_figure, placeholder
from sagebench.analysis.points import of_axis, rank_word, without_value
from sagebench.analysis.scaling import NO_EXPERIMENT, singular
from sagebench.analysis.words import common_notes, where

LINES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))


def figures(trials: pd.DataFrame, epochs: pd.DataFrame) -> dict[str, Figure]:
    """File name -> figure, from the trials' and the epochs' table."""
    rows = of_axis(trials, "ranks")
    title = f"Training loss by number of {rank_word(rows)}" if len(rows) else "Training loss"
    curves = loss_curves(rows, epochs)
    if rows.empty or curves.empty:
        why = NO_EXPERIMENT if rows.empty else "No trial of this study has a loss curve yet."
        return {"loss_curves": placeholder(title, why)}
    return {"loss_curves": _figure(rows, curves, title)}


def loss_curves(rows: pd.DataFrame, epochs: pd.DataFrame) -> pd.DataFrame:
    """Columns series, ranks, epoch, n, median, low, high: the loss over the repeats' epochs.

    Trials that ended early (time limit, diverged) count as far as they came.
    """
    if rows.empty or epochs.empty:
        return pd.DataFrame(columns=["series", "ranks", "epoch", "n", "median", "low", "high"])
    joined = rows[["trial_id", "series", "ranks"]].merge(epochs, on="trial_id")
    joined = joined[joined["loss"].notna()]
    groups = joined.groupby(["series", "ranks", "epoch"], sort=False)["loss"]
    curves = groups.agg(n="count", median="median", low="min", high="max").reset_index()
    return curves.sort_values(["series", "ranks", "epoch"], ignore_index=True)


def _figure(rows: pd.DataFrame, curves: pd.DataFrame, title: str) -> Figure:
    word = rank_word(rows)
    series = [name for name in style.colours(rows["series"]) if name in set(curves["series"])]
    counts = sorted(rows["ranks"].unique().tolist())
    colour = dict(zip(counts, style.shades(len(counts)), strict=True))
    line = {count: LINES[i % len(LINES)] for i, count in enumerate(counts)}

    figure, panels = new_figure(columns=len(series))
    for axes, name in zip(panels, series, strict=True):
        for count in counts:
            curve = curves[(curves["series"] == name) & (curves["ranks"] == count)]
            axes.plot(
                curve["epoch"],
                curve["median"],
                color=colour[count],
                linestyle=line[count],
                linewidth=1.8,
                marker="o" if len(curve) == 1 else None,
                zorder=3,
            )
            axes.fill_between(
                curve["epoch"],
                curve["low"],
                curve["high"],
                color=colour[count],
                alpha=0.16,
                linewidth=0,
                zorder=2,
            )
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("Epoch")
        if len(series) > 1:
            axes.set_title(style.drawable(name), size=9.5, color=style.INK, loc="left")
    panels[0].set_ylabel("Training loss (cross-entropy)")
    handles = [
        Line2D(
            [],
            [],
            color=colour[count],
            linestyle=line[count],
            linewidth=1.8,
            label=f"{count} {singular(word, [count])}",
        )
        for count in counts
    ]
    ended = without_value(rows, ["series", "ranks"])
    notes = common_notes(rows, "ranks") + _ends(ended, word)
    n = curves["n"]
    repeat = f"n = {n.min()}" if n.min() == n.max() else f"n = {n.min()} to {n.max()}"
    words = Words(
        title,
        f"{where(rows)}. Line: median of repeats, {repeat}; band: their range.",
        notes,
        handles,
    )
    return finish(figure, words)


def _ends(ended: pd.DataFrame, word: str) -> list[str]:
    """A loss curve has no strip: what ended early is said in words."""
    notes = []
    for (status, series), group in ended.groupby(["status", "series"], sort=False):
        which = ", ".join(
            f"{ranks} {singular(word, [ranks])} ({count} of {of})"
            for ranks, count, of in zip(group["ranks"], group["count"], group["of"], strict=True)
        )
        notes.append(f"{status.replace('_', ' ').capitalize()}, {series}: {which}.")
    return notes
