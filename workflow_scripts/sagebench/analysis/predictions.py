"""Predicted against measured: every trial's prediction, made before it ran, beside its outcome."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from sagebench.analysis.points import trial_count
from sagebench.analysis.statistics import completed
from sagebench.page import cells
from sagebench.page.cells import Cell, HtmlTable
from sagebench.records import Status

ENDS = ["measured", "predicted", "low", "high"]


class Quantity(NamedTuple):
    """A measured column, and the predicted ones: {} stands for nothing, _low and _high."""

    name: str
    measured: str
    predicted: str


MEMORY = Quantity("Peak memory", "peak_memory_bytes", "predicted_peak{}_bytes")
EPOCH = Quantity("Epoch time", "epoch_median_s", "predicted_epoch{}_s")


def compared(trials: pd.DataFrame, quantity: Quantity) -> pd.DataFrame:
    """The trials with both values, with columns ENDS, `error`, which is predicted over measured,
    minus 1, and whether the interval `held`."""
    columns = [
        quantity.measured,
        *(quantity.predicted.format(end) for end in ("", "_low", "_high")),
    ]
    rows = trials.assign(**{end: trials[one] for end, one in zip(ENDS, columns, strict=True)})
    rows = rows.dropna(subset=ENDS[:2])
    held = rows["measured"].between(rows["low"], rows["high"])
    return rows.assign(error=rows["predicted"] / rows["measured"] - 1, held=held)


def summaries(trials: pd.DataFrame) -> list[str]:
    """A sentence for each quantity: median and worst error, and how many intervals held."""
    sentences = []
    for quantity in (MEMORY, EPOCH):
        rows = compared(completed(trials), quantity)
        if rows.empty:
            continue
        size = rows["error"].abs()
        sentences.append(
            f"{quantity.name}, {trial_count(len(rows))}: median error {size.median():.1%}, worst "
            f"{size.max():.1%} ({rows.loc[size.idxmax(), 'trial_id']}); {rows['held'].sum()} of "
            f"{len(rows)} lie in their interval, which is to hold nine of ten."
        )
    return sentences


def out_of_memory(trials: pd.DataFrame) -> list[str]:
    """Sentence on predicted against actual out of memory."""
    likely = trials[trials["out_of_memory_chance"].gt(0.5)]["status"]
    known = trials[trials["out_of_memory_chance"].notna()]["status"]
    ended, done = (
        (int(likely.eq(status).sum()), int(known.eq(status).sum()))
        for status in (Status.OUT_OF_MEMORY, Status.COMPLETED)
    )
    if not ended[1] and not done[0]:
        return []
    return [
        f"Out of memory: {ended[0]} of {ended[1]} trials that ended so were predicted to (a chance "
        f"above 50 %); of {trial_count(done[1])} that completed, {done[0]} had been."
    ]


def table(trials: pd.DataFrame) -> HtmlTable | None:
    """A row a trial that was predicted and has an outcome."""
    rows = trials[trials["predicted_peak_bytes"].notna() | trials["predicted_epoch_s"].notna()]
    rows = rows.assign(memory_error=_errors(rows, MEMORY), time_error=_errors(rows, EPOCH))
    return cells.listed(
        "Predictions were made before the trials ran",
        rows.to_dict("records"),
        "trial_id status predicted_peak_bytes peak_memory_bytes memory_error predicted_epoch_s "
        "epoch_median_s time_error prediction_source",
    )


def _errors(trials: pd.DataFrame, quantity: Quantity) -> pd.Series:
    rows = compared(trials, quantity)
    shown = [
        Cell(f"{error:+.1%}", abs(error), mark="" if held else "odd")
        for error, held in zip(rows["error"], rows["held"], strict=True)
    ]
    return pd.Series(shown, rows.index, dtype=object)


def not_run(rows: pd.DataFrame) -> HtmlTable | None:
    """The trials that were left out: as estimated, or as their pilot found, they do not fit."""
    columns = "trial_id experiments predicted_peak_bytes predicted_memory_limit_bytes"
    return cells.listed(
        "Will not fit in memory, and therefore not run",
        rows.to_dict("records"),
        f"{columns} out_of_memory_chance",
    )
