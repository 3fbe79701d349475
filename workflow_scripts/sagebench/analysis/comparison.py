"""The slides' numbers beside the measured ones; side by side, never divided by one another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from sagebench.analysis import cells
from sagebench.analysis.cells import Cell, HtmlTable
from sagebench.analysis.points import EVALUATIONS, evaluation, median, of_axis, rank_word
from sagebench.analysis.published import (
    LARGEST_BATCH,
    LARGEST_BATCH_MEMORY_GB,
    OUT_OF_MEMORY_BATCHES,
    SCALING,
    TOP_FANOUTS,
)
from sagebench.records import Status

DIFFERS = "Differs from the slides in"
_Row = dict[str, Cell]

DATASET, MACHINE, CARD, ENGINE = "ogbn-products", "meluxina", "A100", "reference"


def differences(rows: pd.DataFrame) -> str:
    """In what the measured trials are known to differ from the slides' runs, in words."""
    found = []
    names = ", ".join(rows["dataset_name"].unique())
    if set(rows["dataset_name"]) != {DATASET}:
        found.append(f"data set ({names})")
    if set(rows["machine"]) != {MACHINE}:
        found.append(f"machine ({', '.join(rows['machine'].unique())})")
    devices = rows["device_names"].dropna()
    if set(rows["device"]) != {"cuda"}:
        found.append("CPU instead of GPUs")
    elif not devices.str.contains(CARD).all():
        found.append(f"card ({'; '.join(devices.unique())})")
    if set(rows["engine"]) != {ENGINE}:
        found.append(f"engine ({', '.join(rows['engine'].unique())})")
    versions = rows["version_torch"].dropna() if "version_torch" in rows else pd.Series(dtype=str)
    if not versions.str.startswith("2.1.2").all():
        found.append(f"PyTorch ({', '.join(versions.unique())})")
    return ", ".join(found) or "nothing that is recorded; see what is unknown"


def comparisons(trials: pd.DataFrame) -> dict[str, HtmlTable | None]:
    """Axis -> table, for the axes that the study has."""
    makers = {"batch_size": _batch, "fanout": _fanout, "ranks": _ranks}
    found = {axis: of_axis(trials, axis) for axis in makers}
    return {axis: makers[axis](rows) for axis, rows in found.items() if not rows.empty}


def _batch(rows: pd.DataFrame) -> HtmlTable | None:
    def row(
        source: str, largest: Any, peak: Cell, full: Iterable[int], differs: str | None
    ) -> _Row:
        return {
            "Source": cells.text(source),
            "Largest batch size": cells.whole(largest),
            "Peak memory there": peak,
            "Out of memory at": cells.text(", ".join(map(str, full)) or "none"),
            DIFFERS: cells.text(differs),
        }

    about = Cell(f"about {LARGEST_BATCH_MEMORY_GB:g} GB")
    body = [row("slides", LARGEST_BATCH, about, OUT_OF_MEMORY_BATCHES, None)]
    for series, group in rows.groupby("series", sort=False):
        done = group[group["status"].eq(Status.COMPLETED)]
        full = group[group["status"].eq(Status.OUT_OF_MEMORY)]
        largest = done["batch_size"].max() if len(done) else None
        peak = median(done.loc[done["batch_size"].eq(largest), "peak_memory_bytes"])
        at = sorted(full["batch_size"].unique())
        body.append(row(series, largest, cells.memory(peak), at, differences(group)))
    return cells.listed("Largest batch size that completed", body)


def _fanout(rows: pd.DataFrame) -> HtmlTable | None:
    accuracy = evaluation(rows)

    def row(
        place: int,
        source: str,
        accuracy: float | None,
        time: Cell,
        epoch: Cell,
        differs: str | None,
    ) -> _Row:
        return {
            "Fanout": cells.fanout(str(TOP_FANOUTS[place].fanout), place),
            "Source": cells.text(source),
            "Test accuracy": cells.accuracy(accuracy),
            "Time (measured: all epochs)": time,
            "Time per epoch": epoch,
            DIFFERS: cells.text(differs),
        }

    body = []
    for place, top in enumerate(TOP_FANOUTS):
        time = Cell(f"{top.time_h:.2f} h", top.time_h * 3600)
        body.append(row(place, "slides", top.test_accuracy, time, Cell("not given"), None))
        same = rows[rows["fanout"].eq(str(top.fanout)) & rows["status"].eq(Status.COMPLETED)]
        for series, group in same.groupby("series", sort=False):
            time, epoch = (
                cells.time(median(group[name])) for name in ("training_s", "epoch_time_s")
            )
            reached = median(group[accuracy])
            body.append(row(place, series, reached, time, epoch, differences(group)))
    name = EVALUATIONS[accuracy]
    return cells.listed(
        f"The slides' top five fanouts (measured: medians; {name} evaluation)", body
    )


def _ranks(rows: pd.DataFrame) -> HtmlTable | None:
    def row(
        source: str, ranks: int, word: str, gain: float, share: float, differs: str | None
    ) -> _Row:
        return {
            "Source": cells.text(source),
            "Ranks": Cell(f"{ranks} {word}", float(ranks)),
            "Speed-up": cells.number(gain),
            "Efficiency": cells.share(share),
            DIFFERS: cells.text(differs),
        }

    body = [row("slides", one.ranks, "GPUs", one.speed_up, one.efficiency, None) for one in SCALING]
    fair = rows[rows["speed_up"].notna() & rows["ranks"].gt(1)]
    for (series, ranks), group in fair.groupby(["series", "ranks"], sort=False):
        gain, share = median(group["speed_up"]), median(group["efficiency"])
        body.append(row(series, ranks, rank_word(group), gain, share, differences(group)))
    return cells.listed("Speed-up and efficiency (measured: medians)", body)
