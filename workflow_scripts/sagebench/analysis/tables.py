"""The tables of a study: one row a trial, one row a trial and epoch, one row a trial left out, one
row a time that new nodes were embedded.

A table is written twice, as CSV for people and as Parquet for tools, with the same columns in the
same order; what was not measured is empty.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sagebench.analysis.columns import (
    EPOCH_COLUMNS,
    NEW_NODE_COLUMNS,
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
from sagebench.grid.trial import UNSEEN_KEYS, Fanout, canonical_json, unheeded
from sagebench.records import MEMORY_COUNTER, Outcome, Status

Row = dict[str, Any]
TABLES = ("trials", "epochs", "not_run", "new_nodes")
TEXTS = ("trial_id", "slurm_job_id", "state", "node_names", "attempt_status", "reason")
"""columns of accounting.csv that are no numbers"""


def build_tables(
    records: list[Record], accounting: pd.DataFrame | None = None
) -> tuple[pa.Table, ...]:
    """The tables of `records`, as TABLES names them. UserError where two stores share a name.

    accounting: what Slurm says of the attempts, where it was asked; columns of their own.
    """
    _check_stores(records)
    left_out = [record for record in records if record.status is Status.SKIPPED]
    records = [record for record in records if record.status is not Status.SKIPPED]
    known = {column.name for column in TRIAL_COLUMNS}
    young = sorted({key for record in records for key in record.trial if key not in known})
    columns = [*TRIAL_COLUMNS, *(Column(key, STR, "", "a value of the trial") for key in young)]
    versions = sorted({name for record in records for name in _versions(record)})
    columns += [Column(f"version_{name}", STR, "", f"version of {name}") for name in versions]

    trials = _frame((_trial_row(record, young) for record in records), columns)
    _add_speed_up(trials)
    values = [column.name for column in TRIAL_VALUES if column.name != "seed"]
    alike = trials.groupby(values, dropna=False, sort=False).ngroup()
    timed = trials["status"].eq(Status.COMPLETED) & trials["epoch_time_s"].notna()
    trials["epoch_time_outlier"] = _far_off(trials["epoch_time_s"][timed], alike)
    if accounting is not None:
        columns += SLURM_COLUMNS
        trials = trials.join(_of_last_attempts(accounting), on="trial_id")

    epochs = _frame((row for record in records for row in _epoch_rows(record)), EPOCH_COLUMNS)
    epochs["time_outlier"] = False
    # The first epoch warms up, so it is no outlier among its successors but of another kind.
    later = epochs["time_s"][epochs.duplicated("trial_id")]
    epochs.loc[later.index, "time_outlier"] = _far_off(later, epochs["trial_id"])
    not_run = _frame((_trial_row(record, []) for record in left_out), TRIAL_COLUMNS)
    new_nodes = _frame((row for one in records for row in _new_node_rows(one)), NEW_NODE_COLUMNS)
    return (
        _table(trials, columns),
        _table(epochs, EPOCH_COLUMNS),
        _table(not_run, TRIAL_COLUMNS),
        _table(new_nodes, NEW_NODE_COLUMNS),
    )


def read_accounting(path: str | Path | None) -> pd.DataFrame | None:
    """The rows of an accounting.csv, a row an attempt; None where there is none."""
    if path is None or not Path(path).exists():
        return None
    return pd.read_csv(path, dtype=dict.fromkeys(TEXTS, str)).sort_values("attempt", kind="stable")


def _of_last_attempts(attempts: pd.DataFrame) -> pd.DataFrame:
    """SLURM_COLUMNS by trial id: of its last attempt, and the total."""
    last = attempts.groupby("trial_id").tail(1).set_index("trial_id")
    total = attempts.groupby("trial_id")["gpu_hours_allocated"].sum(min_count=1)
    sources = {column.name: column.source for column in SLURM_COLUMNS if column.source}
    found = pd.DataFrame({name: last[source] for name, source in sources.items()})
    return found.assign(slurm_gpu_hours_allocated_total=total)


def _check_stores(records: Iterable[Record]) -> None:
    """One name of a data set stands for one graph store, or nothing can be compared."""
    seen: dict[object, tuple[str, str]] = {}
    for record in records:
        checksum = dig(record.outcome, "store.checksum")
        if checksum is None:
            continue
        spec = record.trial["dataset"]
        name = spec["name"]
        drawn = [spec.get(key) for key in ("split", "split_seed", *UNSEEN_KEYS)]
        key = canonical_json([name, drawn] if "split_seed" in spec else name)
        other, other_id = seen.setdefault(key, (checksum, record.trial_id))
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


def _trial_row(record: Record, young: list[str]) -> Row:
    trial, outcome, fanout = record.trial, record.outcome, Fanout(record.trial["fanout"])
    row: Row = {
        column.name: dig(trial if column in TRIAL_VALUES else outcome, column.path)
        for column in TRIAL_COLUMNS
    }
    row |= {column.name: dig(record.prediction, column.path) for column in PREDICTION_COLUMNS}
    row |= {
        "trial_id": record.trial_id,
        "experiments": record.experiments,
        "axes": record.axes,
        "status": record.status.value,
        "missing_because": record.because,
        "log": record.log,
        **_dataset(trial["dataset"]),
        "options": _text(trial["options"]),
        "dataset_name": trial["dataset"]["name"],
        "fanout": str(fanout),
        "total_fanout": fanout.total,
        "effective_batch_size": trial["batch_size"] * trial["accumulation"] * trial["ranks"],
        **{key: _text(trial.get(key)) for key in young},
    }
    without = unheeded(trial["method"])
    row |= dict.fromkeys(without)
    if "fanout" in without:
        row |= {"total_fanout": None, "effective_batch_size": None}
    if outcome is not None:
        row |= _measured(outcome, row) | _machine(outcome.ranks)
        row |= {f"version_{name}": version for name, version in _versions(record).items()}
    return row


def _dataset(spec: Row) -> Row:
    """The data set of all repeats, each of which may draw its unseen nodes by a seed of its own."""
    found = {key: spec.get(key) for key in (*UNSEEN_KEYS, "split_seed")}
    if found["setting"] and not found["unseen_by"]:
        found["unseen_by"] = "node"
    alike = {key: value for key, value in spec.items() if key != "split_seed"}
    return {"dataset": _text(alike), **found}


def _measured(outcome: Outcome, row: Row) -> Row:
    epochs, peak = outcome.epochs, outcome.peak_memory_bytes
    median, first = row["epoch_median_s"], row["first_epoch_s"]
    return {
        "epoch_time_s": outcome.epoch_s,
        "epoch_time_is_first": None
        if first is None
        else median is None and row["embedding_s"] is None,
        "epochs_run": len(epochs),
        "epochs_resumed": sum(epoch.resumed for epoch in epochs),
        "final_loss": _finite(epochs[-1].loss) if epochs else None,
        "peak_memory_bytes": peak,
        "memory_kind": None if peak is None else MEMORY_COUNTER[row["device"]],
        "nodes_per_hop": _numbers(dig(outcome.sample, "nodes_per_hop")),
        "edges_per_hop": _numbers(dig(outcome.sample, "edges_per_hop")),
    }


def _machine(ranks: Sequence[Row]) -> Row:
    """Value that the ranks record of where they ran, one for all of them."""

    def over_ranks(key: str, of: Callable[[list[Any]], Any]) -> Any:
        values = [rank[key] for rank in ranks if rank.get(key) not in (None, "", {})]
        return of(values) if values else None

    def distinct(key: str) -> str | None:
        return over_ranks(key, lambda values: "; ".join(dict.fromkeys(map(str, values))))

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
        "slurm": over_ranks("slurm", lambda values: _text(values[0])),
    }


def _epoch_rows(record: Record) -> list[Row]:
    return [
        {column.name: dig(epoch, column.path) for column in EPOCH_COLUMNS}
        | {"trial_id": record.trial_id, "loss": _finite(epoch.loss)}
        for epoch in (record.outcome.epochs if record.outcome else [])
    ]


def _new_node_rows(record: Record) -> list[Row]:
    return [
        {column.name: dig(one, column.path) for column in NEW_NODE_COLUMNS}
        | {"trial_id": record.trial_id}
        for one in (record.outcome.new_nodes if record.outcome else [])
    ]


def _far_off(times_s: pd.Series, alike: pd.Series) -> pd.Series:
    """Which times are far from the others of their like."""
    return times_s.groupby(alike).transform(lambda times: outliers(times.tolist())).astype(bool)


def _add_speed_up(trials: pd.DataFrame) -> None:
    """Speed-up of every repeat over the median time with the fewest ranks of its series."""
    rows = of_axis(trials, "ranks")
    rows = rows[rows["status"].eq(Status.COMPLETED) & ~rows["oversubscribed"].eq(True)]
    rows = rows[rows["epoch_time_s"].notna()]
    series, time_s = rows["series"], rows["epoch_time_s"].astype(float)
    fewest = rows["ranks"].groupby(series).transform("min")
    base_s = time_s.where(rows["ranks"].eq(fewest)).groupby(series).transform("median")
    trials["speed_up"] = base_s / time_s
    trials["efficiency"] = trials["speed_up"] * fewest / rows["ranks"]


def _versions(record: Record) -> dict[str, str]:
    return dig(record.outcome, "provenance.versions") or {}


def _finite(value: Any) -> float | None:
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, sort_keys=True)


def _numbers(values: Iterable[float] | None) -> str | None:
    return None if values is None else ",".join(f"{value:g}" for value in values)


def _frame(rows: Iterable[Row], columns: list[Column]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=[column.name for column in columns])


def _table(frame: pd.DataFrame, columns: list[Column]) -> pa.Table:
    schema = pa.schema([pa.field(column.name, column.type) for column in columns])
    return pa.Table.from_pandas(frame, schema, preserve_index=False).replace_schema_metadata()


def write_table(table: pa.Table, folder: str | Path, name: str) -> None:
    """Write `folder/name.csv` and `folder/name.parquet`, atomically."""
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
        raise UserError(f"{path} does not exist: make the tables first (make_report.py tables).")
    return pq.read_table(path).to_pandas()
