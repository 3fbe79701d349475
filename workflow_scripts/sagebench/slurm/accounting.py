"""Accounting of a study's trials on the cluster: a row an attempt, from Slurm's sacct.

The rows are results/<study>/accounting.csv. Slurm forgets its jobs after some months, so a row that
is final stays as it is, and only the other jobs are asked for, all in one call.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from sagebench.attempts import Attempt, read_attempts
from sagebench.slurm.commands import NoAnswer, ask
from sagebench.units import csv_text

COLUMNS = [
    "trial_id",
    "attempt",
    "attempt_status",  # how it ended; empty where nobody noted it
    "failed",  # nothing came of it: no outcome, and no checkpoint to go on from
    "ranks",
    "slurm_job_id",
    "state",  # Slurm's word for how the job ended
    "exit_code",
    "submitted_at",  # UTC, as the others
    "started_at",
    "finished_at",
    "elapsed_s",
    "queue_s",  # from being submitted, or put back into the queue, to the start
    "nodes",
    "node_names",  # as Slurm writes them, e.g. tb[1-2]
    "gpus_allocated",  # all of a node's where the site gives whole nodes
    "gpu_hours_allocated",
    "gpu_hours_used",  # what the ranks took of them
    "energy_j",  # of the job's nodes
    "reason",  # why the figures are missing
]
# None of these can hold the separator |.
FIELDS = [
    *("JobIDRaw", "State", "ExitCode", "Submit", "Start", "End", "ElapsedRaw"),
    *("NNodes", "NodeList", "AllocTRES", "ConsumedEnergyRaw"),
]
SACCT = ("sacct", "--parsable2", "--noheader", "--duplicates", "--format", ",".join(FIELDS))
LIMIT_S = 120.0
UNFINISHED = {"PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "RESIZING"}
NOT_RECORDED_J = 2**32 - 2
"""from here on an energy is one of Slurm's words for none"""
CLOCKS_APART_S = 60.0
"""how far a node's clock and the controller's may differ"""

Row = dict[str, Any]


class TrialJob(NamedTuple):
    """A trial: its folder, its ranks, and the GPUs that its job is given by the site's word; None
    where it computes on none."""

    folder: Path
    ranks: int
    gpus: int | None


def collect(trials: Iterable[TrialJob], before: Iterable[Row] = ()) -> list[Row]:
    """The rows of all attempts at the trials. before: the rows of an earlier call."""
    known = {_key(row): row for row in before if not row["reason"] and finished(row)}
    rows: list[Row] = []
    to_ask: list[tuple[Row, Attempt, TrialJob]] = []
    unknown = "Slurm's accounting knows no such job"
    for trial in trials:
        for attempt in read_attempts(trial.folder):
            row = dict.fromkeys(COLUMNS) | {
                "trial_id": trial.folder.name,
                "attempt": attempt.attempt,
                "attempt_status": attempt.status,
                "failed": attempt.failed,
                "ranks": trial.ranks,
                "slurm_job_id": attempt.slurm_job_id or "",
                "reason": None if attempt.slurm_job_id else "no Slurm job ran it",
            }
            rows.append(known.get(_key(row), row))
            if rows[-1] is row and attempt.slurm_job_id:
                to_ask.append((row, attempt, trial))
    try:
        answer = allocations(row["slurm_job_id"] for row, _, _ in to_ask)
    except NoAnswer as error:
        answer, unknown = {}, str(error)
    found = [_begun_in(answer.get(row["slurm_job_id"], []), one) for row, one, _ in to_ask]
    attempts_in = Counter(map(id, found))
    for (row, attempt, trial), allocation in zip(to_ask, found, strict=True):
        if allocation is None:
            row["reason"] = unknown
            continue
        row |= allocation
        row["failed"] = row["failed"] and finished(row)
        if attempt.status is not None and not finished(row):
            row["reason"] = "Slurm has not recorded the end of the job yet: collect again later"
            continue
        row["gpus_allocated"] = gpus = row["gpus_allocated"] or trial.gpus
        if others := attempts_in[id(allocation)] - 1:
            row["energy_j"] = None
            row["reason"] = f"its job ran {others} other attempts: no share is its own"
        elif gpus:
            row["gpu_hours_allocated"] = gpus * row["elapsed_s"] / 3600
            row["gpu_hours_used"] = min(trial.ranks, gpus) * row["elapsed_s"] / 3600
    return rows


def allocations(job_ids: Iterable[str], limit_s: float = LIMIT_S) -> dict[str, list[Row]]:
    """Records of the jobs in sacct, by id and in the order of time; raises NoAnswer."""
    ids = sorted(set(job_ids))  # without any, sacct would tell of all of today's jobs
    return parse(ask([*SACCT, "--jobs", ",".join(ids)], limit_s)) if ids else {}


def parse(text: str) -> dict[str, list[Row]]:
    """The jobs in sacct's answer, each from one start to its end: a requeued one has several. A
    job's steps follow its own line; lines that are not whole are left out."""
    found: dict[str, list[Row]] = {}
    lines = (line.split("|") for line in text.splitlines())
    for values in (one for one in lines if len(one) == len(FIELDS)):
        said = dict(zip(FIELDS, values, strict=True))
        job_id, _, step = said["JobIDRaw"].partition(".")
        joules = float(said["ConsumedEnergyRaw"] or 0)
        joules = joules if joules < NOT_RECORDED_J else 0.0
        if not step:
            found.setdefault(job_id, []).append(_allocation(said) | {"energy_j": joules or None})
        elif same := found.get(job_id):
            # Where only steps have an energy, that of the one that saw most: all read the counters
            # of their nodes, so adding them up would count a node twice.
            same[-1]["energy_j"] = max(same[-1]["energy_j"] or 0.0, joules) or None
    for same in found.values():
        same.sort(key=lambda one: one["started_at"] or "later")
    return found


def _allocation(said: dict[str, str]) -> Row:
    nowhere = said["NodeList"] == "None assigned"
    # Of a job that was cancelled while it waited, sacct may call that moment the start.
    submitted, started = _time(said["Submit"]), None if nowhere else _time(said["Start"])
    # With types of GPUs only, e.g. gres/gpu:a100=4, their sum.
    tres = said["AllocTRES"]
    gpus = re.findall(r"gres/gpu=(\d+)", tres) or re.findall(r"gres/gpu:[^=]+=(\d+)", tres)
    return {
        "slurm_job_id": said["JobIDRaw"],
        "state": (said["State"].split() or ["UNKNOWN"])[0],  # of "CANCELLED by 1000"
        "exit_code": said["ExitCode"],
        "submitted_at": submitted,
        "started_at": started,
        "finished_at": _time(said["End"]),
        "elapsed_s": int(said["ElapsedRaw"] or 0),
        "queue_s": int(_unix_s(started) - _unix_s(submitted)) if started and submitted else None,
        "nodes": int(said["NNodes"] or 0),
        "node_names": "" if nowhere else said["NodeList"],
        "gpus_allocated": sum(map(int, gpus)) if gpus else None,
    }


def _time(text: str) -> str | None:
    """ISO text in UTC; None for "Unknown", "None" and the like."""
    return f"{text}+00:00" if text[:1].isdigit() else None


def _unix_s(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def finished(row: Row) -> bool:
    return bool(row["state"]) and row["state"] not in UNFINISHED


def _begun_in(found: Sequence[Row], attempt: Attempt) -> Row | None:
    """The last of a job number's allocations that started before the attempt: a requeued job has
    several, and Slurm uses a number again after years."""
    until_s = (attempt.started_unix_s or float("inf")) + CLOCKS_APART_S
    started = (one for one in reversed(found) if one["started_at"])
    return next((one for one in started if _unix_s(one["started_at"]) <= until_s), None)


def as_csv(rows: Iterable[Row]) -> str:
    return csv_text(COLUMNS, ([row[name] for name in COLUMNS] for row in rows))


def read_rows(path: Path) -> list[Row]:
    """The rows of an accounting.csv, as texts; none where there is no such file, or an old one."""
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            return list(reader) if reader.fieldnames == COLUMNS else []
    except FileNotFoundError:
        return []


def _key(row: Row) -> tuple[str, str, str]:
    return row["trial_id"], str(row["attempt"]), row["slurm_job_id"]
