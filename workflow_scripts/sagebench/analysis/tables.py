"""The two tables of a study: one row a trial, one row a trial and epoch.

A table is written twice, as CSV for people and as Parquet for tools, with the same columns in the
same order; what was not measured is empty.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sagebench.analysis.columns import (
    EPOCH_COLUMNS,
    PREDICTION_COLUMNS,
    SLURM_COLUMNS,
    STR,
    TRIAL_COLUMNS,
    TRIAL_VALUES,
    Column,
)
from sagebench.analysis.outcomes import Record
from sagebench.analysis.points import of_axis
from sagebench.analysis.statistics import outliers
from sagebench.errors import UserError
from sagebench.files import write_atomic
from sagebench.grid.trial import Fanout, unheeded
from sagebench.page.cells import is_missing
from sagebench.records import MEMORY_COUNTER, Outcome, Status

Row = dict[str, Any]
TEXTS = ("trial_id", "slurm_job_id", "state", "node_names", "attempt_status", "reason")
"""columns of accounting.csv that are no numbers"""


def build_tables(
    records: list[Record], accounting: pd.DataFrame | None = None
) -> tuple[pa.Table, pa.Table]:
    """The tables of `records`: (trials, epochs). UserError where two stores share a name.

    accounting: what Slurm says of the attempts, where it was asked; columns of their own.
    """
    check_stores(records)
    known = {column.name for column in TRIAL_COLUMNS}
    young = sorted({key for record in records for key in record.trial if key not in known})
    columns = [*TRIAL_COLUMNS, *(Column(key, STR, "", "a value of the trial") for key in young)]
    versions = sorted({name for record in records for name in _versions(record)})
    columns += [Column(f"version_{name}", STR, "", f"version of {name}") for name in versions]

    trials = [_trial_row(record, young, versions) for record in records]
    if accounting is not None:
        columns += SLURM_COLUMNS
        figures = trial_figures(accounting)
        for row in trials:
            row |= figures.get(row["trial_id"], {})
    _mark_outliers(trials)
    _add_speed_up(trials)
    epochs = [row for record in records for row in _epoch_rows(record)]
    return _table(trials, columns), _table(epochs, EPOCH_COLUMNS)


def not_run_table(records: list[Record]) -> pa.Table:
    """The trials that were left out, with the columns of the trials' table; nothing is measured."""
    return _table([_trial_row(record, [], []) for record in records], TRIAL_COLUMNS)


def read_accounting(path: str | Path | None) -> pd.DataFrame | None:
    """The rows of an accounting.csv, a row an attempt; None where there is none."""
    if path is None or not Path(path).exists():
        return None
    return pd.read_csv(path, dtype=dict.fromkeys(TEXTS, str)).sort_values("attempt", kind="stable")


def trial_figures(attempts: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """The values of SLURM_COLUMNS by trial id: those of its last attempt, and the total."""
    last = attempts.groupby("trial_id", sort=False).tail(1)
    total = attempts.groupby("trial_id")["gpu_hours_allocated"].sum(min_count=1)
    return {
        row["trial_id"]: {
            **{one.name: _known(row[one.source]) for one in SLURM_COLUMNS if one.source},
            "slurm_gpu_hours_allocated_total": _known(total[row["trial_id"]]),
        }
        for row in last.to_dict("records")
    }


def _known(value: Any) -> Any:
    return None if is_missing(value) else value


def check_stores(records: Iterable[Record]) -> None:
    """One name of a data set stands for one graph store, or nothing can be compared."""
    seen: dict[str, tuple[str, str]] = {}
    for record in records:
        checksum = dig(record.outcome, "store.checksum")
        if checksum is None:
            continue
        name = record.trial["dataset"]["name"]
        other, other_id = seen.setdefault(name, (checksum, record.trial_id))
        if other != checksum:
            raise UserError(
                f"the data set {name} means two graph stores in this study: {other_id} ran on "
                f"{other[:12]}, {record.trial_id} on {checksum[:12]}: give the data sets names of "
                "their own, or run the older trials again."
            )


def dig(value: Any, path: str) -> Any:
    """The value at a dotted path into nested records and dictionaries, None where there is none."""
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else getattr(value, key, None)
    return value


def _trial_row(record: Record, young: list[str], versions: list[str]) -> Row:
    trial, outcome, fanout = record.trial, record.outcome, Fanout(record.trial["fanout"])
    row: Row = {
        column.name: dig(trial if column in TRIAL_VALUES else outcome, column.path)
        for column in TRIAL_COLUMNS
    }
    row |= {column.name: dig(record.prediction, column.path) for column in PREDICTION_COLUMNS}
    row |= {
        "trial_id": record.trial_id,
        "experiments": ";".join(record.experiments),
        "axes": ";".join(record.axes),
        "status": record.status,
        "missing_because": record.because,
        "log": record.log,
        "dataset": json.dumps(trial["dataset"], sort_keys=True),
        "options": json.dumps(trial["options"], sort_keys=True),
        "dataset_name": trial["dataset"]["name"],
        "fanout": str(fanout),
        "total_fanout": fanout.total,
        "effective_batch_size": trial["batch_size"] * trial["accumulation"] * trial["ranks"],
    }
    row |= {key: _plain(trial.get(key)) for key in young}
    without = unheeded(trial["method"])
    row |= dict.fromkeys(without)
    if "fanout" in without:
        row |= {"total_fanout": None, "effective_batch_size": None}
    if outcome is not None:
        row |= _measured(outcome, row) | _machine(outcome.ranks)
        row |= {f"version_{name}": _versions(record).get(name) for name in versions}
    return row


def _measured(outcome: Outcome, row: Row) -> Row:
    epochs, peak = outcome.epochs, outcome.peak_memory_bytes
    median, first = row["epoch_median_s"], row["first_epoch_s"]
    return {
        "epoch_time_s": first if median is None else median,
        "epoch_time_is_first": None if first is None else median is None,
        "epochs_run": len(epochs),
        "epochs_resumed": sum(epoch.resumed for epoch in epochs),
        "final_loss": _finite(epochs[-1].loss) if epochs else None,
        "peak_memory_bytes": peak,
        "memory_kind": None if peak is None else MEMORY_COUNTER[row["device"]],
        "nodes_per_hop": _numbers(dig(outcome.sample, "nodes_per_hop")),
        "edges_per_hop": _numbers(dig(outcome.sample, "edges_per_hop")),
    }


def _machine(ranks: list[Row]) -> Row:
    def distinct(key: str) -> str | None:
        return "; ".join(dict.fromkeys(str(r[key]) for r in ranks if r.get(key))) or None

    def over_ranks(key: str, of: Any) -> float | None:
        values = [rank[key] for rank in ranks if rank.get(key) is not None]
        return of(values) if values else None

    slurm = next((rank["slurm"] for rank in ranks if rank.get("slurm")), None)
    return {
        "hosts": distinct("host"),
        "device_names": distinct("device_name") or distinct("cpu_model"),
        "device_uuids": distinct("device_uuid"),
        "drivers": distinct("driver"),
        "cpu_models": distinct("cpu_model"),
        "load_1m": over_ranks("load_1m", max),
        "device_memory_bytes": over_ranks("device_memory_bytes", min),
        "memory_total_bytes": over_ranks("memory_total_bytes", min),
        "num_alloc_retries": over_ranks("num_alloc_retries", sum),
        "num_ooms": over_ranks("num_ooms", sum),
        "slurm": json.dumps(slurm, sort_keys=True) if slurm else None,
    }


def _epoch_rows(record: Record) -> list[Row]:
    epochs = record.outcome.epochs if record.outcome else []
    rows = [
        {column.name: dig(epoch, column.path) for column in EPOCH_COLUMNS if column.source}
        | {"trial_id": record.trial_id, "loss": _finite(epoch.loss), "time_outlier": False}
        for epoch in epochs
    ]
    # The first epoch warms up, so it is no outlier among its successors but of another kind.
    for row, far in zip(rows[1:], outliers([row["time_s"] for row in rows[1:]]), strict=True):
        row["time_outlier"] = far
    return rows


def _mark_outliers(rows: list[Row]) -> None:
    """Flag the repeats, of one configuration but the seed, whose epoch time is far from others."""
    repeats: dict[str, list[Row]] = {}
    for row in rows:
        if row["status"] != Status.COMPLETED or row["epoch_time_s"] is None:
            continue
        values = {column.name: row[column.name] for column in TRIAL_VALUES if column.name != "seed"}
        repeats.setdefault(json.dumps(values, sort_keys=True), []).append(row)
    for same in repeats.values():
        for row, far in zip(same, outliers([row["epoch_time_s"] for row in same]), strict=True):
            row["epoch_time_outlier"] = far


def _add_speed_up(rows: list[Row]) -> None:
    """Speed-up of every repeat over the median time with the fewest ranks of its series."""
    frame = pd.DataFrame(rows, columns=None if rows else [one.name for one in TRIAL_COLUMNS])
    scaling = of_axis(frame, "ranks")
    fair = scaling[scaling["status"].eq(Status.COMPLETED) & ~scaling["oversubscribed"].eq(True)]
    fair = fair[fair["epoch_time_s"].notna()]
    for _, series in fair.groupby("series", sort=False):
        base = series["ranks"].min()
        base_time = series.loc[series["ranks"] == base, "epoch_time_s"].median()
        for index, row in series.iterrows():
            gain = base_time / row["epoch_time_s"]
            rows[index] |= {"speed_up": gain, "efficiency": gain * base / row["ranks"]}


def _versions(record: Record) -> dict[str, str]:
    return dig(record.outcome, "provenance.versions") or {}


def _finite(value: Any) -> float | None:
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None


def _plain(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, sort_keys=True)


def _numbers(values: Iterable[float] | None) -> str | None:
    return None if values is None else ",".join(f"{value:g}" for value in values)


def _table(rows: list[Row], columns: list[Column]) -> pa.Table:
    schema = pa.schema([pa.field(column.name, column.type) for column in columns])
    return pa.Table.from_pylist(rows, schema)


def write_table(table: pa.Table, folder: str | Path, name: str) -> None:
    """Write `folder/name.csv` and `folder/name.parquet`, each whole or not at all."""
    folder = Path(folder)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.column_names)
    writer.writerows(row.values() for row in table.to_pylist())
    write_atomic(folder / f"{name}.csv", text.getvalue())
    parquet = io.BytesIO()
    pq.write_table(table, parquet)
    write_atomic(folder / f"{name}.parquet", parquet.getvalue())


def read_table(folder: str | Path, name: str) -> pd.DataFrame:
    """The table that `write_table` wrote; UserError where it is not there."""
    path = Path(folder) / f"{name}.parquet"
    if not path.exists():
        raise UserError(f"{path} does not exist: make the tables first (make_tables.py).")
    return pq.read_table(path).to_pandas()
