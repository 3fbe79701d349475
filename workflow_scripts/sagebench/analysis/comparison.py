"""Tables of the slides' published numbers beside the measured ones (no ratios between them).

"GraphSAGE: inductive representation learning on large graphs", slides of December 9, 2025.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from sagebench.analysis.points import EVALUATIONS, evaluation, of_axis, rank_word
from sagebench.analysis.statistics import median
from sagebench.page import cells
from sagebench.page.cells import Cell, HtmlTable
from sagebench.records import Status

SOURCE = "the slides “GraphSAGE: inductive representation learning on large graphs” (2025-12-09)"
SETTING = (
    "ogbn-products on MeluXina, NVIDIA A100 40 GB, PyTorch 2.1.2 with PyTorch Geometric "
    "(compares best with the engine reference)"
)
DATASET, MACHINE, CARD, ENGINE, TORCH = "ogbn-products", "meluxina", "A100", "reference", "2.1.2"

LARGEST_BATCH, LARGEST_BATCH_MEMORY_GB = 160, 32
OUT_OF_MEMORY_BATCHES = (192, 256, 512)

TOP_FANOUTS = {
    "15,15,15,5,5": (0.8121, 14.56),
    "15,10,10,10,0": (0.8114, 7.22),
    "15,10,10,10,10": (0.8096, 19.53),
    "10,10,10,10,10": (0.8088, 16.46),
    "20,15,10,5,3": (0.8055, 11.60),
}
"""fanout: test accuracy, and time in hours"""

SCALING = {2: (1.93, 0.965), 4: (3.73, 0.93), 8: (7.1, 0.89)}
"""GPUs: speed-up and efficiency"""

UNKNOWN = {
    "all": (
        "Whether a number is one run or the middle of several, and how far repeats spread.",
        "Learning rate, optimizer and epochs: “Hyperparameter tuning details coming soon”.",
        "How many training nodes there were: the slides say 250k, the data set's split has "
        "196,615.",
    ),
    "batch_size": (
        "Which counter the memory is (allocated, reserved, or used on the card), whether GB is "
        "10⁹ or 2³⁰ bytes, and what the 7.5 GB of system overhead are.",
    ),
    "fanout": (
        "Whether Time (h) is the whole training, its epochs alone or with evaluation, and how many "
        "epochs it took: no epoch's time is given.",
        "Whether test accuracy was evaluated with every neighbor or with sampled ones, and on "
        "which checkpoint.",
        "Batch size, accumulation and number of GPUs of these runs.",
    ),
    "ranks": (
        "The times themselves: the slides give ratios only.",
        "Accumulation, and whether evaluation is part of the time.",
    ),
}

DIFFERS = "differs_from_the_slides_in"
Row = dict[str, Any]


def differences(rows: pd.DataFrame) -> str:
    """Known differences between the measured trials and the slides' runs, as text."""
    found = []
    recorded = {
        "dataset_name": ("data set", DATASET),
        "machine": ("machine", MACHINE),
        "device_names": ("card", CARD),
        "engine": ("engine", ENGINE),
        "version_torch": ("PyTorch", TORCH),
    }
    for column, (name, theirs) in recorded.items():
        values = rows[column].dropna() if column in rows else pd.Series(dtype=str)
        if column == "device_names" and set(rows["device"]) != {"cuda"}:
            found.append("CPU instead of GPUs")
        elif not values.map(lambda ours, c=column, t=theirs: _same(c, ours, t)).all():
            found.append(f"{name} ({', '.join(values.unique())})")
    return ", ".join(found) or "nothing that is recorded; see what is unknown"


def _same(column: str, ours: str, theirs: str) -> bool:
    """A card's name holds more than the slides', as does a version of PyTorch."""
    if column == "device_names":
        return theirs in ours
    return ours.startswith(theirs) if column == "version_torch" else ours == theirs


def comparisons(trials: pd.DataFrame) -> dict[str, HtmlTable]:
    """Axis -> table, for the axes that the study has."""
    makers = {"batch_size": _batch, "fanout": _fanout, "ranks": _ranks}
    found = {axis: of_axis(trials, axis) for axis in makers}
    tables = {axis: makers[axis](rows) for axis, rows in found.items() if not rows.empty}
    return {axis: table for axis, table in tables.items() if table}


def _rows(
    published: list[Row], measured: pd.DataFrame, by: list[str], shown: Callable[..., Row]
) -> list[Row]:
    """The slides' rows, and of each group by series and `by` what is shown of it."""
    rows = [{"source": "slides", DIFFERS: cells.NOTHING, **row} for row in published]
    for (series, *key), group in measured.groupby(["series", *by], sort=False):
        rows.append({"source": series, DIFFERS: differences(group), **shown(group, *key)})
    return rows


def _batch(rows: pd.DataFrame) -> HtmlTable | None:
    def shown(group: pd.DataFrame) -> Row:
        done = group[group["status"].eq(Status.COMPLETED)]
        full = group[group["status"].eq(Status.OUT_OF_MEMORY)]
        largest = done["batch_size"].max()
        peak = median(done.loc[done["batch_size"].eq(largest), "peak_memory_bytes"])
        return row(largest, cells.memory(peak), sorted(full["batch_size"].unique()))

    def row(largest: int, peak: Cell, full: Sequence[int]) -> Row:
        sizes = ", ".join(map(str, full)) or "none"
        return {"largest": largest, "peak_memory_there": peak, "out_of_memory_at": sizes}

    about = Cell(f"about {LARGEST_BATCH_MEMORY_GB} GB")
    published = [row(LARGEST_BATCH, about, OUT_OF_MEMORY_BATCHES)]
    return cells.listed(
        "Largest batch size that completed",
        _rows(published, rows, [], shown),
        f"source largest peak_memory_there out_of_memory_at {DIFFERS}",
    )


def _fanout(rows: pd.DataFrame) -> HtmlTable | None:
    accuracy, places = evaluation(rows), list(TOP_FANOUTS)
    columns = [accuracy, "training_s", "epoch_time_s"]

    def row(fanout: str, *values: Any) -> Row:
        shown = cells.fanout(fanout, places.index(fanout))
        return {"fanout": shown, **dict(zip(columns, values, strict=True))}

    published = [
        row(fanout, reached, Cell(f"{hours:.2f} h", hours * 3600), Cell("not given"))
        for fanout, (reached, hours) in TOP_FANOUTS.items()
    ]
    same = rows[rows["fanout"].isin(places) & rows["status"].eq(Status.COMPLETED)]
    found = _rows(
        published,
        same,
        ["fanout"],
        lambda group, fanout: row(fanout, *(median(group[column]) for column in columns)),
    )
    return cells.listed(
        f"The slides' top five fanouts (measured: medians; {EVALUATIONS[accuracy]} evaluation)",
        sorted(found, key=lambda row: row["fanout"].key),
        f"fanout source {' '.join(columns)} {DIFFERS}",
    )


def _ranks(rows: pd.DataFrame) -> HtmlTable | None:
    def row(ranks: int, word: str, gain: float | None, share: float | None) -> Row:
        return {"ranks": Cell(f"{ranks} {word}", ranks), "speed_up": gain, "efficiency": share}

    def shown(group: pd.DataFrame, ranks: int) -> Row:
        return row(ranks, rank_word(group), median(group["speed_up"]), median(group["efficiency"]))

    published = [row(ranks, "GPUs", *gains) for ranks, gains in SCALING.items()]
    fair = rows[rows["speed_up"].notna() & rows["ranks"].gt(1)]
    return cells.listed(
        "Speed-up and efficiency (measured: medians)",
        _rows(published, fair, ["ranks"], shown),
        f"source ranks speed_up efficiency {DIFFERS}",
    )
