"""Measurements beside the slides' published numbers (no ratios between them), and beside what
was predicted of each trial before it ran.

"GraphSAGE: inductive representation learning on large graphs", slides of December 9, 2025.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from sagebench.analysis.points import EVALUATIONS, evaluation, of_axis, rank_word, trial_count
from sagebench.analysis.statistics import completed, median
from sagebench.page import cells
from sagebench.page.cells import Cell, HtmlTable
from sagebench.records import Status

SOURCE = "the slides “GraphSAGE: inductive representation learning on large graphs” (2025-12-09)"
SETTING = (
    "ogbn-products on MeluXina, NVIDIA A100 40 GB, PyTorch 2.1.2 with PyTorch Geometric "
    "(compares best with the engine reference)"
)

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
THEIRS = {
    "dataset_name": ("data set", str.__eq__, "ogbn-products"),
    "machine": ("machine", str.__eq__, "meluxina"),
    "device_names": ("card", str.__contains__, "A100"),
    "engine": ("engine", str.__eq__, "reference"),
    "version_torch": ("PyTorch", str.startswith, "2.1.2"),
}
"""by column: what it is called, when it is the same, and what the slides have"""


def differences(rows: pd.DataFrame) -> str:
    """Known differences between the measured trials and the slides' runs, as text."""
    found = []
    for column, (name, same, theirs) in THEIRS.items():
        values = rows[column].dropna().unique() if column in rows else []
        if column == "device_names" and set(rows["device"]) != {"cuda"}:
            found.append("CPU instead of GPUs")
        elif not all(same(ours, theirs) for ours in values):
            found.append(f"{name} ({', '.join(values)})")
    return ", ".join(found) or "nothing that is recorded; see what is unknown"


def comparisons(trials: pd.DataFrame) -> dict[str, HtmlTable | None]:
    """Axis -> table, for the axes that the study has."""
    makers = {"batch_size": _batch, "fanout": _fanout, "ranks": _ranks}
    found = {axis: of_axis(trials, axis) for axis in makers}
    return {axis: makers[axis](rows) for axis, rows in found.items() if not rows.empty}


def _table(
    caption: str,
    columns: str,
    published: Iterable[Row],
    measured: pd.DataFrame,
    by: list[str],
    shown: Callable[..., Row],
) -> HtmlTable | None:
    """The slides' rows, and of each group by series and `by` what is shown of it."""
    rows = [{"source": "slides", DIFFERS: cells.NOTHING, **row} for row in published]
    for (series, *key), group in measured.groupby(["series", *by], sort=False):
        rows.append({"source": series, DIFFERS: differences(group), **shown(group, *key)})
    rows.sort(key=lambda row: row["fanout"].key if "fanout" in row else 0)
    return cells.listed(caption, rows, f"{columns} {DIFFERS}")


def _batch(rows: pd.DataFrame) -> HtmlTable | None:
    def row(largest: int, peak: Any, full: Sequence[int]) -> Row:
        sizes = ", ".join(map(str, full)) or "none"
        return {"largest": largest, "peak_memory_there": peak, "out_of_memory_at": sizes}

    def shown(group: pd.DataFrame) -> Row:
        done = completed(group)
        full = group.loc[group["status"].eq(Status.OUT_OF_MEMORY), "batch_size"]
        largest = done[done["batch_size"].eq(done["batch_size"].max())]
        peak = cells.memory(median(largest["peak_memory_bytes"]))
        return row(largest["batch_size"].max(), peak, sorted(full.unique()))

    return _table(
        "Largest batch size that completed",
        "source largest peak_memory_there out_of_memory_at",
        [row(160, Cell("about 32 GB"), (192, 256, 512))],
        rows,
        [],
        shown,
    )


def _fanout(rows: pd.DataFrame) -> HtmlTable | None:
    accuracy, places = evaluation(rows), list(TOP_FANOUTS)
    columns = [accuracy, "training_s", "epoch_time_s"]

    def row(fanout: str, *values: Any) -> Row:
        shown = cells.fanout(fanout, places.index(fanout))
        return {"fanout": shown, **dict(zip(columns, values, strict=True))}

    return _table(
        f"The slides' top five fanouts (measured: medians; {EVALUATIONS[accuracy]} evaluation)",
        f"fanout source {' '.join(columns)}",
        (
            row(fanout, reached, Cell(f"{hours:.2f} h", hours * 3600), Cell("not given"))
            for fanout, (reached, hours) in TOP_FANOUTS.items()
        ),
        completed(rows[rows["fanout"].isin(places)]),
        ["fanout"],
        lambda group, fanout: row(fanout, *(median(group[column]) for column in columns)),
    )


def _ranks(rows: pd.DataFrame) -> HtmlTable | None:
    def row(ranks: int, word: str, gain: float | None, share: float | None) -> Row:
        return {"ranks": Cell(f"{ranks} {word}", ranks), "speed_up": gain, "efficiency": share}

    return _table(
        "Speed-up and efficiency (measured: medians)",
        "source ranks speed_up efficiency",
        (row(ranks, "GPUs", *gains) for ranks, gains in SCALING.items()),
        rows[rows["speed_up"].notna() & rows["ranks"].gt(1)],
        ["ranks"],
        lambda group, ranks: row(
            ranks, rank_word(group), median(group["speed_up"]), median(group["efficiency"])
        ),
    )


ENDS = ["measured", "predicted", "low", "high"]


class Quantity(NamedTuple):
    """A measured column, and the predicted ones: {} stands for nothing, _low and _high."""

    name: str
    measured: str
    predicted: str


MEMORY = Quantity("Peak memory", "peak_memory_bytes", "predicted_peak{}_bytes")
EPOCH = Quantity("Epoch time", "epoch_time_s", "predicted_epoch{}_s")


def compared(trials: pd.DataFrame, quantity: Quantity) -> pd.DataFrame:
    """The trials with both values, but for a first epoch alone, which warms up, with columns ENDS,
    `error`, which is predicted over measured, minus 1, and whether the interval `held`."""
    columns = [
        quantity.measured,
        *(quantity.predicted.format(end) for end in ("", "_low", "_high")),
    ]
    rows = trials.assign(**{end: trials[one] for end, one in zip(ENDS, columns, strict=True)})
    if quantity is EPOCH:
        rows = rows[~rows["epoch_time_is_first"].eq(True)]
    rows = rows.dropna(subset=ENDS[:2])
    held = rows["measured"].between(rows["low"], rows["high"])
    return rows.assign(error=rows["predicted"] / rows["measured"] - 1, held=held)


def prediction_errors(trials: pd.DataFrame) -> list[str]:
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
            f"{len(rows)} lie in their 90 % interval."
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


def predictions(trials: pd.DataFrame) -> HtmlTable | None:
    """A row a trial that was predicted and has an outcome."""
    rows = trials[trials["predicted_peak_bytes"].notna() | trials["predicted_epoch_s"].notna()]
    rows = rows.assign(memory_error=_errors(rows, MEMORY), time_error=_errors(rows, EPOCH))
    return cells.listed(
        "Predictions were made before the trials ran",
        rows.to_dict("records"),
        "trial_id status predicted_peak_bytes peak_memory_bytes memory_error predicted_epoch_s "
        "epoch_time_s time_error prediction_source",
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
