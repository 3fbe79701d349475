"""The slides' numbers beside the measured ones; side by side, never divided by one another."""

from __future__ import annotations

import pandas as pd

from sagebench.analysis import cells
from sagebench.analysis.cells import Cell, HtmlTable
from sagebench.analysis.neighbor import evaluation
from sagebench.analysis.points import median, of_axis, rank_word
from sagebench.analysis.published import (
    LARGEST_BATCH,
    LARGEST_BATCH_MEMORY_GB,
    OUT_OF_MEMORY_BATCHES,
    SCALING,
    TOP_FANOUTS,
)
from sagebench.records import Status

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


def comparisons(trials: pd.DataFrame) -> dict[str, HtmlTable]:
    """Axis -> table, for the axes that the study has."""
    makers = {"batch_size": _batch, "fanout": _fanout, "ranks": _ranks}
    found = {axis: of_axis(trials, axis) for axis in makers}
    return {axis: makers[axis](rows) for axis, rows in found.items() if not rows.empty}


def _batch(rows: pd.DataFrame) -> HtmlTable:
    published = Cell(str(LARGEST_BATCH), LARGEST_BATCH)
    body = [
        [
            cells.text("slides"),
            published,
            Cell(f"about {LARGEST_BATCH_MEMORY_GB:g} GB"),
            Cell(", ".join(map(str, OUT_OF_MEMORY_BATCHES))),
            Cell("–"),
        ]
    ]
    for series, group in rows.groupby("series", sort=False):
        done = group[group["status"].eq(Status.COMPLETED)]
        full = group[group["status"].eq(Status.OUT_OF_MEMORY)]
        largest = done["batch_size"].max() if len(done) else None
        peak = median(done.loc[done["batch_size"].eq(largest), "peak_memory_bytes"])
        body.append(
            [
                cells.text(series),
                cells.whole(largest),
                cells.memory(peak),
                cells.text(", ".join(map(str, sorted(full["batch_size"].unique()))) or "none"),
                cells.text(differences(group)),
            ]
        )
    return HtmlTable(
        "Largest batch size that completed",
        [
            "Source",
            "Largest batch size",
            "Peak memory there",
            "Out of memory at",
            "Differs from the slides in",
        ],
        body,
    )


def _fanout(rows: pd.DataFrame) -> HtmlTable:
    accuracy = evaluation(rows)
    body = []
    for place, row in enumerate(TOP_FANOUTS):
        body.append(
            [
                Cell(row.fanout.label, float(place), left=True),
                cells.text("slides"),
                cells.accuracy(row.test_accuracy),
                Cell(f"{row.time_h:.2f} h", row.time_h * 3600),
                Cell("not given"),
                Cell("–"),
            ]
        )
        same = rows[rows["fanout"].eq(str(row.fanout)) & rows["status"].eq(Status.COMPLETED)]
        for series, group in same.groupby("series", sort=False):
            body.append(
                [
                    Cell(row.fanout.label, float(place), left=True),
                    cells.text(series),
                    cells.accuracy(median(group[accuracy])),
                    cells.time(median(group["training_s"])),
                    cells.time(median(group["epoch_time_s"])),
                    cells.text(differences(group)),
                ]
            )
    name = "full" if accuracy.endswith("full") else "sampled"
    return HtmlTable(
        f"The slides' top five fanouts (measured: medians; {name} evaluation)",
        [
            "Fanout",
            "Source",
            "Test accuracy",
            "Time (measured: all epochs)",
            "Time per epoch",
            "Differs from the slides in",
        ],
        body,
    )


def _ranks(rows: pd.DataFrame) -> HtmlTable:
    body = [
        [
            cells.text("slides"),
            Cell(f"{row.ranks} GPUs", row.ranks),
            cells.number(row.speed_up),
            Cell(f"{row.efficiency:.1%}", row.efficiency),
            Cell("–"),
        ]
        for row in SCALING
    ]
    fair = rows[rows["speed_up"].notna() & rows["ranks"].gt(1)]
    for (series, ranks), group in fair.groupby(["series", "ranks"], sort=False):
        gain, share = median(group["speed_up"]), median(group["efficiency"])
        body.append(
            [
                cells.text(series),
                Cell(f"{ranks} {rank_word(group)}", float(ranks)),
                cells.number(gain),
                Cell(f"{share:.1%}", share),
                cells.text(differences(group)),
            ]
        )
    return HtmlTable(
        "Speed-up and efficiency (measured: medians)",
        ["Source", "Ranks", "Speed-up", "Efficiency", "Differs from the slides in"],
        body,
    )
