"""What a study's trials took of the cluster: a row an attempt, from Slurm's accounting.

The rows are results/<study>/accounting.csv. Slurm forgets its jobs after some months, so a row that
is final stays as it is, and only the other jobs are asked for.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sagebench.attempts import Attempt, read_attempts
from sagebench.slurm import sacct
from sagebench.slurm.commands import NoAnswer

CLOCKS_APART_S = 60.0
"""how far a node's clock and the controller's may differ"""

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
    "queue_s",
    "nodes",
    "node_names",
    "gpus_allocated",  # all of a node's where the site gives whole nodes
    "gpu_hours_allocated",
    "gpu_hours_used",  # what the ranks took of them
    "energy_j",  # of the job's nodes
    "reason",  # why the figures are missing
]

Row = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """A trial: its folder, its ranks, and the GPUs that its job is given by the site's word; None
    where it computes on none."""

    folder: Path
    ranks: int
    gpus: int | None


def collect(trials: Iterable[Asked], before: Iterable[Row] = ()) -> list[Row]:
    """The rows of all attempts at the trials. before: the rows of an earlier call."""
    known = {_key(row): row for row in before if _is_final(row)}
    rows: list[Row] = []
    to_ask: list[tuple[Asked, Attempt, Row]] = []
    for trial in trials:
        for attempt in read_attempts(trial.folder):
            row = _row(trial, attempt)
            rows.append(known.get(_key(row), row))
            if rows[-1] is row and attempt.slurm_job_id:
                to_ask.append((trial, attempt, row))
    try:
        answer = sacct.allocations(row["slurm_job_id"] for _, _, row in to_ask)
    except NoAnswer as error:
        for _, _, row in to_ask:
            row["reason"] = str(error)
        return rows
    found = [_begun_in(answer.get(row["slurm_job_id"], []), one) for _, one, row in to_ask]
    attempts_in = Counter(found)
    for (trial, attempt, row), allocation in zip(to_ask, found, strict=True):
        if allocation is None:
            row["reason"] = "Slurm's accounting knows no such job"
            continue
        row |= asdict(allocation)
        row["failed"] = row["failed"] and allocation.finished
        if attempt.status is not None and not allocation.finished:
            row["reason"] = "Slurm has not noted the end of its job yet: collect it again"
            continue
        row["gpus_allocated"] = gpus = allocation.gpus_allocated or trial.gpus
        if others := attempts_in[allocation] - 1:
            row["energy_j"] = None
            row["reason"] = f"its job ran {others} other attempts: no share is its own"
        elif gpus:
            hours = allocation.elapsed_s / 3600
            row["gpu_hours_allocated"] = gpus * hours
            row["gpu_hours_used"] = min(trial.ranks, gpus) * hours
    return rows


def as_csv(rows: Iterable[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        values = [row[name] for name in COLUMNS]
        writer.writerow([str(v).lower() if isinstance(v, bool) else v for v in values])
    return text.getvalue()


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


def _is_final(row: Row) -> bool:
    """Whether Slurm has nothing to add to the row."""
    return bool(row["state"]) and row["state"] not in sacct.UNFINISHED and not row["reason"]


def _row(trial: Asked, attempt: Attempt) -> Row:
    return dict.fromkeys(COLUMNS) | {
        "trial_id": trial.folder.name,
        "attempt": attempt.attempt,
        "attempt_status": attempt.status,
        "failed": attempt.failed,
        "ranks": trial.ranks,
        "slurm_job_id": attempt.slurm_job_id or "",
        "reason": None if attempt.slurm_job_id else "no Slurm job ran it",
    }


def _begun_in(allocations: Sequence[sacct.Allocation], attempt: Attempt) -> sacct.Allocation | None:
    """The last of a job number's allocations that started before the attempt: a requeued job has
    several, and Slurm uses a number again after years."""
    began_s = attempt.started_unix_s or float("inf")
    before = [
        one
        for one in allocations
        if one.started_at
        and datetime.fromisoformat(one.started_at).timestamp() - CLOCKS_APART_S <= began_s
    ]
    return before[-1] if before else None
