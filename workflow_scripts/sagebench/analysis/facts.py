"""Facts for the report: hardware, versions, mixed provenance, missing trials, outliers."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pandas as pd

from sagebench.analysis.points import (
    EVALUATIONS,
    among,
    evaluation,
    keys_of,
    of_axis,
    trial_count,
)
from sagebench.analysis.statistics import INTERVAL_FROM_N, bootstrap_interval, median
from sagebench.page import cells
from sagebench.page.cells import Cell, HtmlTable
from sagebench.records import MEASURED_ENDS, Status
from sagebench.units import significant

TOP = 5
SEGMENTS = {True: "expandable segments", False: "torch's own segments"}
"""how a GPU's memory was taken"""
LAST_HOPS = {
    "table": "read from a table of aggregated features",
    "sampled": "sampled, or every neighbor",
}
RECORDED = {
    "machine": ("Machine", "machines"),
    "hosts": ("Hosts", "sets of hosts"),
    "device_names": ("Devices", "kinds of devices"),
    "drivers": ("GPU driver", "GPU drivers"),
    "cpu_models": ("CPU", "sets of CPU models"),
    "git_commit": ("Commit", "commits"),
    "image_digest": ("Image", "container images"),
    "expandable_segments": ("GPU memory", "ways of taking a GPU's memory"),
    "kernels_used": ("Kernels", "kinds of kernels"),
    "last_hop": ("Last hop", "kinds of last hop"),
    "validation_method": ("Validation", "validation methods"),
}
"""what a reader may think the same for all trials: one of it, and several"""
WITHOUT = {"image_digest": "no container", "git_commit": "not recorded"}
"""what is said of trials that have none"""


def counts(trials: pd.DataFrame) -> dict[str, int]:
    """Status -> trials, measured ends first; only those that occur."""
    found = trials["status"].value_counts().to_dict()
    return {name: found[name] for name in [*MEASURED_ENDS, *found] if name in found}


def what_ran(trials: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Topics and what is recorded about each, from the outcomes."""
    ran = _ran(trials)
    topics = [("Data set", [_dataset(group) for _, group in ran.groupby("dataset", sort=False)])]
    for column, (topic, _) in RECORDED.items():
        said = {part for one in ran[column].dropna().unique() for part in one.split("; ")}
        if column == "cpu_models":  # on a CPU the devices are these
            said -= set(dict(topics)["Devices"])
        topics.append((topic, sorted(said)))
    packages = [
        f"{column.removeprefix('version_')} {' and '.join(ran[column].dropna().unique())}"
        for column in _versions(ran)
        if ran[column].notna().any()
    ]
    topics.append(("Versions", [", ".join(packages)] if packages else []))
    start, end = ran["started_at"].dropna(), ran["finished_at"].dropna()
    if len(start) and len(end):
        first, last = (one[:16].replace("T", " ") for one in (start.min(), end.max()))
        topics.append(("Ran", [f"{first} to {last} UTC"]))
    return [(topic, values) for topic, values in topics if values]


def mixed(trials: pd.DataFrame) -> list[str]:
    """Warnings about provenance that differs between trials."""
    ran, sentences = _ran(trials), []
    names = {column: several for column, (_, several) in RECORDED.items()}
    if set(ran["device"]) == {"cpu"}:  # whose devices are these
        del names["cpu_models"]
    names |= {name: f"versions of {name.removeprefix('version_')}" for name in _versions(ran)}
    for column, several in names.items():
        values = ran[column].fillna("none") if column.startswith("version_") else ran[column]
        parts = values.value_counts(sort=False)
        if len(parts) > 1:
            listed = ", ".join(f"{one} ({trial_count(count)})" for one, count in parts.items())
            sentences.append(f"{len(parts)} {several}: {listed}.")
    dirty = int(ran["git_dirty"].eq(True).sum())
    if dirty:
        sentences.append(f"{dirty} of {len(ran)} trials ran with uncommitted changes (dirty).")
    return sentences


def missing(trials: pd.DataFrame) -> HtmlTable | None:
    rows = trials[trials["missing_because"].notna()].to_dict("records")
    columns = "trial_id experiments status missing_because log"
    return cells.listed("Trials without an outcome", rows, columns)


def cut_short(trials: pd.DataFrame) -> HtmlTable | None:
    """Out of memory, time limit, diverged: measured results, with rank and phase."""
    rows = trials[trials["status"].isin(MEASURED_ENDS[1:])].to_dict("records")
    return cells.listed(
        "Trials that ended early: measured results, not failures",
        (row | {"limit": _limit(row)} for row in rows),
        "trial_id status reason_rank reason_phase limit reason_message",
    )


def far_off(trials: pd.DataFrame, epochs: pd.DataFrame) -> HtmlTable | None:
    """Flagged repeats, and trials with flagged epochs; all of them stay in every figure."""
    found = trials[trials["epoch_time_outlier"].eq(True)].rename(columns={"epoch_time_s": "time_s"})
    rows = found.assign(what="time per epoch, among the repeats").to_dict("records")
    for trial, group in epochs[epochs["time_outlier"].eq(True)].groupby("trial_id"):
        which = f"epoch {', '.join(map(str, group['epoch']))}, among the trial's own"
        rows.append({"trial_id": trial, "what": which, "time_s": group["time_s"].max()})
    return cells.listed("Times far from the others", rows, "trial_id what time_s")


def configurations(trials: pd.DataFrame, experiment: dict[str, Any]) -> HtmlTable | None:
    """A row for every configuration of an experiment: repeats, medians, ranges."""
    axis = experiment["axis"]
    found = of_axis(among(trials, "experiments", experiment["name"]), axis)
    rows = _configurations(found, axis)
    interval = "interval" if any(row["n"] >= INTERVAL_FROM_N for row in rows) else ""
    speed_up = "speed_up" if axis == "ranks" else ""
    columns = f"series {' '.join(keys_of(axis))} n epoch_time_s range {interval} peak_memory_bytes"
    columns += f" {evaluation(found)} {speed_up} ended"
    return cells.listed("Configurations (medians of completed repeats)", rows, columns)


def top_fanouts(trials: pd.DataFrame) -> HtmlTable | None:
    """The five best by median test accuracy, as in the slides."""
    found = of_axis(trials, "fanout")
    accuracy = evaluation(found)
    rows = [row for row in _configurations(found, "fanout") if row[accuracy] is not None]
    return cells.listed(
        f"The {TOP} most accurate fanouts ({EVALUATIONS[accuracy]} evaluation, medians)",
        sorted(rows, key=lambda row: -row[accuracy])[:TOP],
        f"fanout series n {accuracy} accuracy_range epoch_time_s training_s peak_memory_bytes",
    )


def _configurations(rows: pd.DataFrame, axis: str) -> list[dict[str, Any]]:
    found = []
    groups = rows.groupby(["series", *keys_of(axis)], sort=False, dropna=False)
    for place, ((series, *values), group) in enumerate(groups):
        done = group[group["status"].eq(Status.COMPLETED)]
        ends = ", ".join(
            f"{count} {status.replace('_', ' ')}" for status, count in counts(group).items()
        )
        row = {"series": series, **dict(zip(keys_of(axis), values, strict=True)), "n": len(done)}
        if axis == "fanout":
            row["fanout"] = cells.fanout(row["fanout"], place)
        for column in ("epoch_time_s", "training_s", "peak_memory_bytes", "speed_up", *EVALUATIONS):
            row[column] = median(done[column])
        row["range"], row["interval"] = _ranges(done["epoch_time_s"].dropna().tolist())
        reached = done[evaluation(rows)].dropna()
        between = f"{reached.min():.4f} to {reached.max():.4f}"
        row["accuracy_range"] = between if len(reached) > 1 else None
        row["ended"] = cells.text(ends, "" if len(done) == len(group) else "odd")
        found.append(row)
    return found


def _ranges(times: list[float]) -> tuple[Cell, Cell]:
    """Range, and interval of the median; a dash for what the number of repeats does not give."""
    if len(times) < 2:
        return cells.NOTHING, cells.NOTHING
    interval = bootstrap_interval(times)
    shown = cells.time_range(*interval) if interval else cells.NOTHING
    return cells.time_range(min(times), max(times)), shown


def all_trials(trials: pd.DataFrame) -> HtmlTable | None:
    sampled = ["test_accuracy_sampled", "test_sampled_standard_error"]
    rows = trials.assign(
        energy_kj=trials["energy_nvml_j"] / 1000,
        test_accuracy_sampled=[_sampled(*values) for values in trials[sampled].to_numpy()],
    )
    usual = "engine batch_size accumulation fanout ranks seed"
    axes = {axis for axes in rows["axes"].dropna() for axis in axes.split(";")}
    studied = {key for axis in axes for key in keys_of(axis)}.intersection(rows)
    return cells.listed(
        "Every trial",
        rows.to_dict("records"),
        f"trial_id experiments status {' '.join(sorted(studied - set(usual.split())))} {usual} "
        "epoch_time_s peak_memory_bytes test_accuracy_full test_accuracy_sampled energy_kj",
    )


def _sampled(accuracy: float, standard_error: float) -> Cell:
    """The error is shown where not all test nodes were sampled."""
    cell = cells.accuracy(accuracy)
    return replace(cell, text=f"{cell.text} ± {standard_error:.4f}") if standard_error > 0 else cell


def _ran(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials with an outcome, and how they ran in words. Without an image is a way of running;
    a host that a trial which ended early did not record is not."""
    ran = trials[trials["status"].isin(MEASURED_ENDS)]
    words = {
        "expandable_segments": ran["expandable_segments"].map(SEGMENTS),
        "last_hop": ran["last_hop"].map(LAST_HOPS),
    }
    for column, none in WITHOUT.items():
        shown = ran[column].map(cells.short, na_action="ignore")
        words[column] = shown.astype(object).fillna(none)
    return ran.assign(**words)


def _limit(row: dict[str, Any]) -> Cell:
    if cells.is_missing(row["limit_kind"]):
        return cells.NOTHING
    value = row["limit_value"]
    amount = "" if cells.is_missing(value) else f" {significant(value)} {row['limit_unit']}"
    return cells.text(row["limit_kind"].replace("_", " ") + amount)


def _versions(rows: pd.DataFrame) -> list[str]:
    return [column for column in rows if column.startswith("version_")]


def _dataset(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    values = json.loads(first["dataset"])
    more = ", ".join(f"{key} {value}" for key, value in values.items() if key != "name")
    return (
        f"{values['name']} ({more}): {first['num_nodes']:,.0f} nodes, "
        f"{first['num_edges']:,.0f} directed edges, split {first['train_nodes']:,.0f} / "
        f"{first['valid_nodes']:,.0f} / {first['test_nodes']:,.0f}; "
        f"checksum {cells.short(str(first['store_checksum']))}"
    )
