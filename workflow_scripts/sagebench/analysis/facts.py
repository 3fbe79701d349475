"""What the report says about a study: what ran on what, what is mixed, missing, cut short, odd."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from sagebench.analysis import cells
from sagebench.analysis.cells import Cell, HtmlTable
from sagebench.analysis.neighbor import evaluation
from sagebench.analysis.points import AXES, median, of_axis
from sagebench.analysis.statistics import INTERVAL_FROM_N, summary
from sagebench.analysis.words import trial_count
from sagebench.grid.fanout import Fanout
from sagebench.records import MEASURED_ENDS, Status
from sagebench.units import durations, significant

TOP = 5
SEGMENTS = {True: "expandable segments", False: "torch's own segments"}
"""how a GPU's memory was taken"""


def counts(trials: pd.DataFrame) -> dict[str, int]:
    """Status -> trials, measured ends first; only those that occur."""
    found = trials["status"].value_counts()
    order = [*MEASURED_ENDS, *(name for name in found.index if name not in MEASURED_ENDS)]
    return {name: int(found[name]) for name in order if name in found.index}


def what_ran(trials: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Topics and what is recorded about each, from the outcomes."""
    ran = trials[trials["status"].isin(MEASURED_ENDS)]
    versions = [column for column in trials if column.startswith("version_")]
    packages = [
        f"{column.removeprefix('version_')} {' and '.join(_distinct(ran[column]))}"
        for column in versions
        if _distinct(ran[column])
    ]
    topics = [
        ("Machine", _distinct(ran["machine"])),
        ("Hosts", _members(ran["hosts"])),
        ("Devices", _members(ran["device_names"])),
        ("GPU driver", _members(ran["drivers"])),
        (
            "CPU",
            [
                name
                for name in _members(ran["cpu_models"])
                if name not in _members(ran["device_names"])
            ],
        ),
        ("Data set", _datasets(ran)),
        ("Versions", [", ".join(packages)] if packages else []),
        ("Commit", [_commit(*key) for key in _pairs(ran, "git_commit", "git_dirty")]),
        ("Image", [cells.short(d) for d in _distinct(ran["image_digest"])] or ["no container"]),
        ("GPU memory", [SEGMENTS[value] for value in ran["expandable_segments"].dropna().unique()]),
        ("Ran", _span(ran)),
    ]
    return [(topic, values) for topic, values in topics if values]


def mixed(trials: pd.DataFrame) -> list[str]:
    """Sentences about what is not the same for all trials, though a reader may think so."""
    ran = trials[trials["status"].isin(MEASURED_ENDS)]
    sentences = []
    topics = {
        "git_commit": "commits",
        "image_digest": "container images",
        "machine": "machines",
        "device_names": "kinds of devices",
        "drivers": "GPU drivers",
        "expandable_segments": "ways of taking a GPU's memory",
        "hosts": "sets of hosts",
        "validation_method": "validation methods",
    }
    topics |= {
        column: f"versions of {column.removeprefix('version_')}"
        for column in ran
        if column.startswith("version_")
    }
    for column, name in topics.items():
        # Without an image, or without a package, is a way of running; a host that a trial which
        # ended early did not record is not.
        told = column == "image_digest" or column.startswith("version_")
        values = ran[column].fillna("none") if told else ran[column].dropna()
        parts = values.value_counts(sort=False)
        if len(parts) > 1:
            listed = ", ".join(
                f"{_shown(column, value)} ({trial_count(count)})" for value, count in parts.items()
            )
            sentences.append(f"{len(parts)} {name}: {listed}.")
    dirty = int(ran["git_dirty"].eq(True).sum())
    if dirty:
        sentences.append(
            f"{dirty} of {len(ran)} trials ran with changes that no commit holds (dirty)."
        )
    for name, group in ran.groupby("dataset_name", sort=False):
        if group["store_checksum"].nunique() > 1:
            sentences.append(f"{name}: {group['store_checksum'].nunique()} graph stores.")
    return sentences


def _shown(column: str, value: Any) -> str:
    if column == "expandable_segments":
        return SEGMENTS[value]
    return cells.short(value) if column in ("git_commit", "image_digest") else str(value)


def missing(trials: pd.DataFrame) -> HtmlTable | None:
    rows = trials[trials["missing_because"].notna()]
    return _listed(
        "Trials without an outcome",
        ["Trial", "Experiment", "State", "Why", "Log"],
        [
            [
                cells.text(row["trial_id"]),
                cells.text(_joined(row["experiments"])),
                _status(row["status"]),
                cells.text(row["missing_because"]),
                cells.text(row["log"]),
            ]
            for _, row in rows.iterrows()
        ],
    )


def cut_short(trials: pd.DataFrame) -> HtmlTable | None:
    """Out of memory, time limit, diverged: measured results, with rank and phase."""
    rows = trials[trials["status"].isin(MEASURED_ENDS[1:])]
    return _listed(
        "Trials that ended early: measured results, not failures",
        ["Trial", "Ended", "Rank", "Phase", "Limit", "Message"],
        [
            [
                cells.text(row["trial_id"]),
                _status(row["status"]),
                cells.whole(row["reason_rank"]),
                cells.text(row["reason_phase"]),
                cells.text(_limit(row)),
                cells.text(row["reason_message"]),
            ]
            for _, row in rows.iterrows()
        ],
    )


def far_off(trials: pd.DataFrame, epochs: pd.DataFrame) -> HtmlTable | None:
    """Flagged repeats, and trials with flagged epochs; all of them stay in every figure."""
    slow = epochs[epochs["time_outlier"].eq(True)].groupby("trial_id")["epoch"].apply(list)
    rows = [
        [
            cells.text(row["trial_id"]),
            Cell("time per epoch, among the repeats"),
            cells.time(row["epoch_time_s"]),
        ]
        for _, row in trials[trials["epoch_time_outlier"].eq(True)].iterrows()
    ]
    rows += [
        [
            cells.text(trial),
            Cell(f"epoch {', '.join(map(str, which))}, among the trial's own"),
            cells.time(
                epochs.loc[
                    epochs["trial_id"].eq(trial) & epochs["epoch"].isin(which), "time_s"
                ].max()
            ),
        ]
        for trial, which in slow.items()
    ]
    return _listed("Times far from the others", ["Trial", "What", "Time"], rows)


def configurations(trials: pd.DataFrame, experiment: dict[str, Any]) -> HtmlTable:
    """A row for every configuration of an experiment: repeats, medians, ranges."""
    axis = experiment["axis"]
    inside = trials[[experiment["name"] in names.split(";") for names in trials["experiments"]]]
    rows = of_axis(inside, axis)
    accuracy = evaluation(rows)
    groups = list(rows.groupby(["series", *AXES[axis]], sort=False))
    enough = any(len(group) >= INTERVAL_FROM_N for _, group in groups)
    body = []
    for place, (key, group) in enumerate(groups):
        done = group[group["status"].eq(Status.COMPLETED)]
        middle, spread, interval = _time_cells(done["epoch_time_s"].dropna().tolist())
        values = [
            Cell(Fanout.parse(value).label, float(place), left=True)
            if axis == "fanout"
            else cells.whole(value)
            for value in key[1:]
        ]
        ended = ", ".join(_status(status, count).text for status, count in counts(group).items())
        body.append(
            [
                cells.text(key[0]),
                *values,
                cells.whole(len(done)),
                middle,
                spread,
                *([interval] if enough else []),
                cells.memory(median(done["peak_memory_bytes"])),
                cells.accuracy(median(done[accuracy])),
                *([cells.number(median(done["speed_up"]))] if axis == "ranks" else []),
                cells.text(ended, "" if len(done) == len(group) else "odd"),
            ]
        )
    name = "full" if accuracy.endswith("full") else "sampled"
    return HtmlTable(
        "Configurations (medians of completed repeats)",
        [
            "Series",
            *(column.replace("_", " ").capitalize() for column in AXES[axis]),
            "n",
            "Time per epoch",
            "Range",
            *(["95 % interval of the median"] if enough else []),
            "Peak memory",
            f"Test accuracy ({name})",
            *(["Speed-up"] if axis == "ranks" else []),
            "Ended",
        ],
        body,
    )


def top_fanouts(trials: pd.DataFrame) -> HtmlTable | None:
    """The five best by median test accuracy, as in the slides."""
    rows = of_axis(trials, "fanout")
    if rows.empty:
        return None
    accuracy = evaluation(rows)
    done = rows[rows["status"].eq(Status.COMPLETED) & rows[accuracy].notna()]
    found = []
    for (series, fanout), group in done.groupby(["series", "fanout"], sort=False):
        found.append((median(group[accuracy]), series, fanout, group))
    found.sort(key=lambda entry: -entry[0])
    name = "full" if accuracy.endswith("full") else "sampled"
    return _listed(
        f"The {TOP} most accurate fanouts ({name} evaluation, medians)",
        [
            "Rank",
            "Fanout",
            "Series",
            "n",
            "Test accuracy",
            "Range",
            "Time per epoch",
            "All epochs",
            "Peak memory",
        ],
        [
            [
                cells.whole(place),
                Cell(Fanout.parse(fanout).label, float(place), left=True),
                cells.text(series),
                cells.whole(len(group)),
                cells.accuracy(best),
                _accuracy_range(group[accuracy]),
                cells.time(median(group["epoch_time_s"])),
                cells.time(median(group["training_s"])),
                cells.memory(median(group["peak_memory_bytes"])),
            ]
            for place, (best, series, fanout, group) in enumerate(found[:TOP], start=1)
        ],
    )


def all_trials(trials: pd.DataFrame) -> HtmlTable:
    columns = [
        "Trial",
        "Experiment",
        "Status",
        "Engine",
        "Batch size",
        "Accumulation",
        "Fanout",
        "Ranks",
        "Seed",
        "Time per epoch",
        "Peak memory",
        "Test accuracy (full)",
        "Test accuracy (sampled)",
        "Energy, kJ",
    ]
    return HtmlTable(
        "Every trial",
        columns,
        [
            [
                cells.text(row["trial_id"]),
                cells.text(_joined(row["experiments"])),
                _status(row["status"]),
                cells.text(row["engine"]),
                cells.whole(row["batch_size"]),
                cells.whole(row["accumulation"]),
                cells.text(Fanout.parse(row["fanout"]).label),
                cells.whole(row["ranks"]),
                cells.whole(row["seed"]),
                cells.time(row["epoch_time_s"]),
                cells.memory(row["peak_memory_bytes"]),
                cells.accuracy(row["test_accuracy_full"]),
                cells.accuracy(row["test_accuracy_sampled"], row["test_sampled_standard_error"]),
                cells.number(row["energy_nvml_j"] / 1000),
            ]
            for _, row in trials.iterrows()
        ],
    )


def _listed(caption: str, columns: list[str], rows: list[list[Cell]]) -> HtmlTable | None:
    return HtmlTable(caption, columns, rows) if rows else None


def _time_cells(times: list[float]) -> tuple[Cell, Cell, Cell]:
    """Median, range and interval; a dash for what the number of repeats does not give."""
    if not times:
        return cells.NOTHING, cells.NOTHING, cells.NOTHING
    found = summary(times)
    spread, interval = cells.NOTHING, cells.NOTHING
    if found.n > 1:
        spread = Cell(durations(found.low, found.high), found.high - found.low, left=True)
    if found.interval is not None:
        low, high = found.interval
        interval = Cell(durations(low, high), high - low, left=True)
    return cells.time(found.median), spread, interval


def _accuracy_range(values: pd.Series) -> Cell:
    if len(values) < 2:
        return cells.NOTHING
    low, high = values.min(), values.max()
    return Cell(f"{low:.4f} to {high:.4f}", high - low, left=True)


def _status(status: str, count: int | None = None) -> Cell:
    words = status.replace("_", " ")
    return Cell(words if count is None else f"{count} {words}", words, mark=status)


def _joined(experiments: str) -> str:
    return experiments.replace(";", ", ")


def _limit(row: pd.Series) -> str | None:
    kind = row["limit_kind"]
    if cells.is_missing(kind):
        return None
    value = row["limit_value"]
    amount = "" if cells.is_missing(value) else f" {significant(value)} {row['limit_unit']}"
    return f"{kind.replace('_', ' ')}{amount}"


def _distinct(column: pd.Series) -> list[str]:
    return [str(value) for value in column.dropna().unique()]


def _members(column: pd.Series) -> list[str]:
    return sorted({part for value in column.dropna().unique() for part in value.split("; ")})


def _pairs(rows: pd.DataFrame, *columns: str) -> list[tuple[Any, ...]]:
    return list(rows[list(columns)].drop_duplicates().itertuples(index=False, name=None))


def _commit(commit: str | None, dirty: bool | None) -> str:
    if cells.is_missing(commit):
        return "not recorded"
    return f"{cells.short(commit)}{', with uncommitted changes' if dirty is True else ''}"


def _datasets(rows: pd.DataFrame) -> list[str]:
    found = []
    for spec, group in rows.groupby("dataset", sort=False):
        first = group.iloc[0]
        values = json.loads(spec)
        more = ", ".join(f"{key} {value}" for key, value in values.items() if key != "name")
        found.append(
            f"{values['name']} ({more}): {first['num_nodes']:,.0f} nodes, "
            f"{first['num_edges']:,.0f} directed edges, split {first['train_nodes']:,.0f} / "
            f"{first['valid_nodes']:,.0f} / {first['test_nodes']:,.0f}; "
            f"checksum {cells.short(str(first['store_checksum']))}"
        )
    return found


def _span(rows: pd.DataFrame) -> list[str]:
    start, end = rows["started_at"].dropna(), rows["finished_at"].dropna()
    if start.empty or end.empty:
        return []
    return [f"{start.min()[:16].replace('T', ' ')} to {end.max()[:16].replace('T', ' ')} UTC"]
