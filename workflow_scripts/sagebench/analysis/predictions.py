"""Predicted against measured: every trial's prediction, made before it ran, beside its outcome."""

from __future__ import annotations

from typing import Any, NamedTuple

import pandas as pd

from sagebench.analysis.points import trial_count
from sagebench.page import cells
from sagebench.page.cells import Cell, HtmlTable
from sagebench.records import Status


class Quantity(NamedTuple):
    """A measured column, the predicted one, and the ends of its interval."""

    name: str
    measured: str
    predicted: str
    low: str
    high: str


MEMORY = Quantity(
    "Peak memory",
    "peak_memory_bytes",
    *(f"predicted_peak{end}_bytes" for end in ("", "_low", "_high")),
)
EPOCH = Quantity(
    "Epoch time", "epoch_median_s", *(f"predicted_epoch{end}_s" for end in ("", "_low", "_high"))
)


def compared(trials: pd.DataFrame, quantity: Quantity) -> pd.DataFrame:
    """The completed trials with both values; `error`: predicted over measured, minus 1."""
    both = trials[quantity.measured].notna() & trials[quantity.predicted].notna()
    rows = trials[both & trials["status"].eq(Status.COMPLETED)]
    return rows.assign(error=rows[quantity.predicted] / rows[quantity.measured] - 1)


def summaries(trials: pd.DataFrame) -> list[str]:
    """A sentence for each quantity: median and worst error, and how many intervals held."""
    sentences = []
    for quantity in (MEMORY, EPOCH):
        rows = compared(trials, quantity)
        if rows.empty:
            continue
        size = rows["error"].abs()
        held = rows[quantity.measured].between(rows[quantity.low], rows[quantity.high]).sum()
        sentences.append(
            f"{quantity.name}, {trial_count(len(rows))}: median error {size.median():.1%}, worst "
            f"{size.max():.1%} ({rows.loc[size.idxmax(), 'trial_id']}); {held} of {len(rows)} lie "
            "in their interval, which is to hold nine of ten."
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
    known = trials["predicted_peak_bytes"].notna() | trials["predicted_epoch_s"].notna()
    return cells.listed(
        "Predictions were made before the trials ran",
        (
            row | {"memory_error": _error(row, MEMORY), "time_error": _error(row, EPOCH)}
            for row in trials[known].to_dict("records")
        ),
        "trial_id status predicted_peak_bytes peak_memory_bytes memory_error predicted_epoch_s "
        "epoch_median_s time_error prediction_source",
    )


def not_run(rows: pd.DataFrame) -> HtmlTable | None:
    """The trials that were left out: as estimated, or as their pilot found, they do not fit."""
    columns = "trial_id experiments predicted_peak_bytes predicted_memory_limit_bytes"
    return cells.listed(
        "Will not fit in memory, and therefore not run",
        rows.to_dict("records"),
        f"{columns} out_of_memory_chance",
    )


def _error(row: dict[str, Any], quantity: Quantity) -> Cell:
    measured, predicted = row[quantity.measured], row[quantity.predicted]
    if cells.is_missing(measured) or cells.is_missing(predicted):
        return cells.NOTHING
    off = predicted / measured - 1
    inside = row[quantity.low] <= measured <= row[quantity.high]
    return Cell(f"{off:+.1%}", abs(off), mark="" if inside else "odd")
