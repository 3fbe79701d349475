"""Slurm's accounting beside what was measured: columns of the trials, and the report's figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from sagebench.analysis.columns import SLURM_COLUMNS
from sagebench.page import cells
from sagebench.units import duration, significant

TEXTS = ("trial_id", "slurm_job_id", "state", "node_names", "attempt_status", "reason")


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
            **{one.name: _value(row[one.source]) for one in SLURM_COLUMNS if one.source},
            "slurm_gpu_hours_allocated_total": _value(total[row["trial_id"]]),
        }
        for row in last.to_dict("records")
    }


def summary(attempts: pd.DataFrame) -> tuple[list[tuple[str, str]], list[str]]:
    """What all attempts took: topics with their figures, and sentences on what is missing."""
    known = attempts[attempts["state"].notna()]
    jobs = known.drop_duplicates(["slurm_job_id", "started_at"])
    topics = [("Jobs", _jobs(jobs))] if len(jobs) else []
    allocated = known["gpu_hours_allocated"].sum()
    if allocated:
        used = known["gpu_hours_used"].sum()
        failed = known.loc[known["failed"].eq(True), "gpu_hours_allocated"].sum()
        topics += [
            ("GPU-hours used", f"{_hours(used)} of {_hours(allocated)} allocated"),
            ("By attempts that failed", f"{_hours(failed)} GPU-hours allocated"),
        ]
    elif len(jobs):
        topics += [("Node-hours", _hours((jobs["nodes"] * jobs["elapsed_s"]).sum() / 3600))]
    waits = jobs["queue_s"].dropna()
    if len(waits):
        middle, longest = duration(waits.median()), duration(waits.max())
        topics += [("Time in the queue", f"{middle} (median), {longest} at most")]
    energy = known["energy_j"].dropna()
    if len(energy):
        share = "" if len(energy) == len(known) else f" ({len(energy)} of {len(known)} attempts)"
        topics += [("Energy of the nodes", f"{significant(energy.sum() / 3.6e6)} kWh{share}")]
    elif len(jobs):
        topics += [("Energy of the nodes", "not recorded by the site")]
    return topics, _missing(attempts)


def _jobs(jobs: pd.DataFrame) -> str:
    words = jobs["state"].str.replace("_", " ").str.lower()
    return ", ".join(f"{count} {word}" for word, count in words.value_counts().items())


def _missing(attempts: pd.DataFrame) -> list[str]:
    if attempts.empty:
        return ["No attempt was recorded."]
    return [
        f"{count} of {len(attempts)} attempts have no accounting of their own: {reason}."
        for reason, count in attempts["reason"].value_counts().items()
    ]


def _hours(hours: float) -> str:
    return significant(float(hours))


def _value(value: Any) -> Any:
    return None if cells.is_missing(value) else value
