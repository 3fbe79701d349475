"""What the report says about a study: what ran on what, what is mixed, missing, cut short, odd."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from sagebench.analysis import cells
from sagebench.analysis.cells import Cell, HtmlTable
from sagebench.analysis.points import AXES, EVALUATIONS, among, evaluation, median, of_axis
from sagebench.analysis.statistics import INTERVAL_FROM_N, summary
from sagebench.analysis.words import trial_count
from sagebench.grid.fanout import Fanout
from sagebench.records import MEASURED_ENDS, Status
from sagebench.units import significant

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
    devices = _members(ran["device_names"])
    topics = [
        ("Machine", _distinct(ran["machine"])),
        ("Hosts", _members(ran["hosts"])),
        ("Devices", devices),
        ("GPU driver", _members(ran["drivers"])),
        ("CPU", [name for name in _members(ran["cpu_models"]) if name not in devices]),
        ("Data set", _datasets(ran)),
        ("Versions", [", ".join(packages)] if packages else []),
        ("Commit", _commits(ran)),
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
    rows = trials[trials["missing_because"].notna()].to_dict("records")
    return cells.listed(
        "Trials without an outcome",
        (
            {
                "Trial": cells.text(row["trial_id"]),
                "Experiment": cells.names(row["experiments"]),
                "State": cells.status(row["status"]),
                "Why": cells.text(row["missing_because"]),
                "Log": cells.text(row["log"]),
            }
            for row in rows
        ),
    )


def cut_short(trials: pd.DataFrame) -> HtmlTable | None:
    """Out of memory, time limit, diverged: measured results, with rank and phase."""
    rows = trials[trials["status"].isin(MEASURED_ENDS[1:])].to_dict("records")
    return cells.listed(
        "Trials that ended early: measured results, not failures",
        (
            {
                "Trial": cells.text(row["trial_id"]),
                "Ended": cells.status(row["status"]),
                "Rank": cells.whole(row["reason_rank"]),
                "Phase": cells.text(row["reason_phase"]),
                "Limit": cells.text(_limit(row)),
                "Message": cells.text(row["reason_message"]),
            }
            for row in rows
        ),
    )


def far_off(trials: pd.DataFrame, epochs: pd.DataFrame) -> HtmlTable | None:
    """Flagged repeats, and trials with flagged epochs; all of them stay in every figure."""
    repeats = trials[trials["epoch_time_outlier"].eq(True)]
    found = [
        (trial, "time per epoch, among the repeats", time_s)
        for trial, time_s in zip(repeats["trial_id"], repeats["epoch_time_s"], strict=True)
    ]
    slow = epochs[epochs["time_outlier"].eq(True)]
    for trial, group in slow.groupby("trial_id"):
        which = ", ".join(map(str, group["epoch"]))
        found.append((trial, f"epoch {which}, among the trial's own", group["time_s"].max()))
    return cells.listed(
        "Times far from the others",
        (
            {"Trial": cells.text(trial), "What": Cell(what), "Time": cells.time(time_s)}
            for trial, what, time_s in found
        ),
    )


def configurations(trials: pd.DataFrame, experiment: dict[str, Any]) -> HtmlTable | None:
    """A row for every configuration of an experiment: repeats, medians, ranges."""
    axis = experiment["axis"]
    rows = of_axis(among(trials, "experiments", experiment["name"]), axis)
    accuracy = evaluation(rows)
    groups = list(rows.groupby(["series", *AXES[axis]], sort=False))
    enough = any(len(group) >= INTERVAL_FROM_N for _, group in groups)
    body = []
    for place, ((series, *values), group) in enumerate(groups):
        done = group[group["status"].eq(Status.COMPLETED)]
        middle, spread, interval = _time_cells(done["epoch_time_s"].dropna().tolist())
        row = {"Series": cells.text(series)}
        for column, value in zip(AXES[axis], values, strict=True):
            shown = cells.fanout(value, place) if axis == "fanout" else cells.whole(value)
            row[column.replace("_", " ").capitalize()] = shown
        row |= {"n": cells.whole(len(done)), "Time per epoch": middle, "Range": spread}
        if enough:
            row["95 % interval of the median"] = interval
        row["Peak memory"] = cells.memory(median(done["peak_memory_bytes"]))
        row[f"Test accuracy ({EVALUATIONS[accuracy]})"] = cells.accuracy(median(done[accuracy]))
        if axis == "ranks":
            row["Speed-up"] = cells.number(median(done["speed_up"]))
        ended = ", ".join(
            f"{count} {cells.words(status)}" for status, count in counts(group).items()
        )
        row["Ended"] = cells.text(ended, "" if len(done) == len(group) else "odd")
        body.append(row)
    return cells.listed("Configurations (medians of completed repeats)", body)


def top_fanouts(trials: pd.DataFrame) -> HtmlTable | None:
    """The five best by median test accuracy, as in the slides."""
    rows = of_axis(trials, "fanout")
    if rows.empty:
        return None
    accuracy = evaluation(rows)
    done = rows[rows["status"].eq(Status.COMPLETED) & rows[accuracy].notna()]
    groups = [(*key, group) for key, group in done.groupby(["series", "fanout"], sort=False)]
    groups.sort(key=lambda found: -found[2][accuracy].median())
    return cells.listed(
        f"The {TOP} most accurate fanouts ({EVALUATIONS[accuracy]} evaluation, medians)",
        (
            {
                "Rank": cells.whole(place),
                "Fanout": cells.fanout(fanout, place),
                "Series": cells.text(series),
                "n": cells.whole(len(group)),
                "Test accuracy": cells.accuracy(median(group[accuracy])),
                "Range": _accuracy_range(group[accuracy]),
                "Time per epoch": cells.time(median(group["epoch_time_s"])),
                "All epochs": cells.time(median(group["training_s"])),
                "Peak memory": cells.memory(median(group["peak_memory_bytes"])),
            }
            for place, (series, fanout, group) in enumerate(groups[:TOP], start=1)
        ),
    )


def all_trials(trials: pd.DataFrame) -> HtmlTable | None:
    return cells.listed(
        "Every trial",
        (
            {
                "Trial": cells.text(row["trial_id"]),
                "Experiment": cells.names(row["experiments"]),
                "Status": cells.status(row["status"]),
                "Engine": cells.text(row["engine"]),
                "Batch size": cells.whole(row["batch_size"]),
                "Accumulation": cells.whole(row["accumulation"]),
                "Fanout": cells.text(Fanout.parse(row["fanout"]).label),
                "Ranks": cells.whole(row["ranks"]),
                "Seed": cells.whole(row["seed"]),
                "Time per epoch": cells.time(row["epoch_time_s"]),
                "Peak memory": cells.memory(row["peak_memory_bytes"]),
                "Test accuracy (full)": cells.accuracy(row["test_accuracy_full"]),
                "Test accuracy (sampled)": cells.accuracy(
                    row["test_accuracy_sampled"], row["test_sampled_standard_error"]
                ),
                "Energy, kJ": cells.number(row["energy_nvml_j"] / 1000),
            }
            for row in trials.to_dict("records")
        ),
    )


def _time_cells(times: list[float]) -> tuple[Cell, Cell, Cell]:
    """Median, range and interval; a dash for what the number of repeats does not give."""
    if not times:
        return cells.NOTHING, cells.NOTHING, cells.NOTHING
    found = summary(times)
    spread = cells.time_range(found.low, found.high) if found.n > 1 else cells.NOTHING
    interval = cells.time_range(*found.interval) if found.interval else cells.NOTHING
    return cells.time(found.median), spread, interval


def _accuracy_range(values: pd.Series) -> Cell:
    if len(values) < 2:
        return cells.NOTHING
    low, high = values.min(), values.max()
    return Cell(f"{low:.4f} to {high:.4f}", high - low, left=True)


def _limit(row: dict[str, Any]) -> str | None:
    if cells.is_missing(row["limit_kind"]):
        return None
    value = row["limit_value"]
    amount = "" if cells.is_missing(value) else f" {significant(value)} {row['limit_unit']}"
    return f"{cells.words(row['limit_kind'])}{amount}"


def _distinct(column: pd.Series) -> list[str]:
    return [str(value) for value in column.dropna().unique()]


def _members(column: pd.Series) -> list[str]:
    return sorted({part for value in column.dropna().unique() for part in value.split("; ")})


def _commits(rows: pd.DataFrame) -> list[str]:
    pairs = rows[["git_commit", "git_dirty"]].drop_duplicates()
    return [
        "not recorded"
        if cells.is_missing(commit)
        else f"{cells.short(commit)}{', with uncommitted changes' if dirty is True else ''}"
        for commit, dirty in pairs.itertuples(index=False, name=None)
    ]


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
