"""Predicted against measured: every trial's prediction, made before it ran, beside its outcome."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from sagebench.analysis import cells, style
from sagebench.analysis.cells import Cell, HtmlTable
from sagebench.analysis.drawing import (
    Words,
    finish,
    new_figure,
    placeholder,
    series_handles,
    whiskers,
)
from sagebench.analysis.words import time_unit, trial_count
from sagebench.records import Status
from sagebench.units import GIB

TITLE = "Predicted against measured"
NOTHING = "Nothing was estimated of a trial of this study before it ran (make probe, make pilot)."


@dataclass(frozen=True)
class Quantity:
    """A measured column, the predicted one, and the ends of its interval."""

    name: str
    measured: str
    predicted: str
    low: str
    high: str


MEMORY = Quantity(
    "Peak memory",
    "peak_memory_bytes",
    "predicted_peak_bytes",
    "predicted_peak_low_bytes",
    "predicted_peak_high_bytes",
)
EPOCH = Quantity(
    "Epoch time",
    "epoch_median_s",
    "predicted_epoch_s",
    "predicted_epoch_low_s",
    "predicted_epoch_high_s",
)


def compared(trials: pd.DataFrame, quantity: Quantity) -> pd.DataFrame:
    """The completed trials with both values; `error`: predicted over measured, minus 1."""
    both = trials[quantity.measured].notna() & trials[quantity.predicted].notna()
    rows = trials[both & trials["status"].eq(Status.COMPLETED)]
    return rows.assign(error=rows[quantity.predicted] / rows[quantity.measured] - 1)


def summaries(trials: pd.DataFrame, named: bool = True) -> list[str]:
    """A sentence for each quantity: median and worst error, and how many intervals held.

    named: with the trial that is worst.
    """
    sentences = []
    for quantity in (MEMORY, EPOCH):
        rows = compared(trials, quantity)
        if rows.empty:
            continue
        size = rows["error"].abs()
        held = rows[quantity.measured].between(rows[quantity.low], rows[quantity.high]).sum()
        worst = f" ({rows.loc[size.idxmax(), 'trial_id']})" if named else ""
        sentences.append(
            f"{quantity.name}, {trial_count(len(rows))}: median error {size.median():.1%}, worst "
            f"{size.max():.1%}{worst}; {held} of {len(rows)} lie in their interval, which is to "
            "hold nine of ten."
        )
    return sentences


def out_of_memory(trials: pd.DataFrame) -> list[str]:
    """What was predicted of the trials that went out of memory, and of those that did not."""
    known = trials[trials["out_of_memory_chance"].notna()]
    ended = known[known["status"].eq(Status.OUT_OF_MEMORY)]
    done = known[known["status"].eq(Status.COMPLETED)]
    if ended.empty and not done["out_of_memory_chance"].gt(0.5).any():
        return []
    right = int(ended["out_of_memory_chance"].gt(0.5).sum())
    wrong = int(done["out_of_memory_chance"].gt(0.5).sum())
    return [
        f"Out of memory: {right} of {len(ended)} trials that ended so were predicted to (a chance "
        f"above 50 %); of {trial_count(len(done))} that completed, {wrong} had been."
    ]


def table(trials: pd.DataFrame) -> HtmlTable | None:
    """A row a trial that was predicted and has an outcome."""
    known = trials["predicted_peak_bytes"].notna() | trials["predicted_epoch_s"].notna()
    rows = trials[known]
    if rows.empty:
        return None
    body = [
        [
            cells.text(row["trial_id"]),
            cells.text(row["status"].replace("_", " "), row["status"]),
            *_cells(row, MEMORY, cells.memory),
            *_cells(row, EPOCH, cells.time),
            cells.text(row["prediction_source"]),
        ]
        for _, row in rows.iterrows()
    ]
    columns = ["Trial", "Ended", "Peak memory, predicted", "measured", "error"]
    columns += ["Epoch, predicted", "measured", "error", "Time rests on"]
    return HtmlTable("Predictions were made before the trials ran", columns, body)


def not_run(rows: pd.DataFrame) -> HtmlTable | None:
    """The trials that were left out: as estimated, or as their pilot found, they do not fit."""
    if rows.empty:
        return None
    body = [
        [
            cells.text(row["trial_id"]),
            cells.text(row["experiments"].replace(";", ", ")),
            cells.memory(row["predicted_peak_bytes"]),
            cells.memory(row["predicted_memory_limit_bytes"]),
            Cell(f"{row['out_of_memory_chance']:.0%}", row["out_of_memory_chance"]),
        ]
        for _, row in rows.iterrows()
    ]
    columns = ["Trial", "Experiment", "Peak memory, predicted", "Limit", "Chance to run out"]
    return HtmlTable("Will not fit in memory, and therefore not run", columns, body)


def figures(trials: pd.DataFrame) -> dict[str, Figure]:
    """File name -> figure, from the trials' table."""
    memory, epoch = compared(trials, MEMORY), compared(trials, EPOCH)
    if memory.empty and epoch.empty:
        return {"predicted_measured": placeholder(TITLE, NOTHING)}
    unit, seconds = time_unit(epoch["epoch_median_s"])
    panels = [
        (MEMORY, memory, GIB, "Peak memory, GiB"),
        (EPOCH, epoch, seconds, f"Epoch time, {unit}"),
    ]
    panels = [panel for panel in panels if not panel[1].empty]
    figure, axes = new_figure(len(panels), 2.9, sharey=False)
    engines = pd.concat([memory["engine"], epoch["engine"]])
    colours, markers = style.colours(engines), style.markers(engines)
    for axis, (quantity, rows, size, label) in zip(axes, panels, strict=True):
        _panel(axis, quantity, rows, size, label, colours, markers)
    words = Words(
        TITLE,
        "Each point is a trial; on the line, both are equal; the band is 20 % to either side. Bars "
        "are the predictions' intervals, nine of ten.",
        summaries(trials, named=False),
        series_handles(colours, markers, line="none"),
    )
    return {"predicted_measured": finish(figure, words)}


def _panel(
    axes: Axes,
    quantity: Quantity,
    rows: pd.DataFrame,
    size: float,
    label: str,
    colours: dict[str, str],
    markers: dict[str, str],
) -> None:
    scaled = rows.assign(
        **{name: rows[name] / size for name in (quantity.measured, quantity.predicted)},
        low=rows[quantity.low] / size,
        high=rows[quantity.high] / size,
    )
    values = [*scaled[quantity.measured], *scaled["low"], *scaled["high"]]
    low, high = min(values) / 1.15, max(values) * 1.15
    axes.plot([low, high], [low, high], color=style.SOFT, linewidth=0.9, zorder=1)
    axes.fill_between(
        [low, high], [0.8 * low, 0.8 * high], [1.2 * low, 1.2 * high],
        color=style.FAINT, alpha=0.6, linewidth=0, zorder=0,
    )  # fmt: skip
    for engine, group in scaled.groupby("engine", sort=False):
        axes.errorbar(
            group[quantity.measured],
            group[quantity.predicted],
            yerr=whiskers(group, quantity.predicted, "low", "high"),
            fmt=markers[engine],
            color=colours[engine],
            ecolor=(colours[engine], 0.45),
            elinewidth=0.9,
            markersize=5.5,
            markeredgecolor="white",
            markeredgewidth=0.7,
            zorder=3,
        )
    for axis, scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        scale("log")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_xlabel(f"{label}, measured")
    axes.set_ylabel("predicted")


def _cells(row: pd.Series, quantity: Quantity, shown) -> list[Cell]:
    measured, predicted = row[quantity.measured], row[quantity.predicted]
    error = cells.NOTHING
    if not cells.is_missing(measured) and not cells.is_missing(predicted):
        off = predicted / measured - 1
        inside = row[quantity.low] <= measured <= row[quantity.high]
        error = Cell(f"{off:+.1%}", abs(off), mark="" if inside else "odd")
    return [shown(predicted), shown(measured), error]
