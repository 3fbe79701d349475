"""What a study's trials took of the cluster: a row an attempt, from Slurm's accounting.

The rows are results/<study>/accounting.csv. Slurm forgets its jobs after some months, so a row that
is final stays as it is, and only the other jobs are asked for.
"""

from __future__ import annotations

import csv
import io
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sagebench.attempts import Attempt, read_attempts
from sagebench.cluster import sacct
from sagebench.cluster.commands import NoAnswer
from sagebench.records import Damaged, read_outcome

SETTLE_S = 30.0
"""how long to wait for the end of a job whose trial has ended: Slurm notes it a moment later"""
ASK_AGAIN_S = 3.0
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


def collect(
    trials: Iterable[Asked], before: Iterable[Row] = (), settle_s: float = SETTLE_S
) -> list[Row]:
    """The rows of all attempts at the trials. before: the rows of an earlier call."""
    known = {_key(row): row for row in before if _is_final(row)}
    rows = []
    to_ask: list[tuple[Asked, Attempt, Row]] = []
    for trial in trials:
        for attempt in attempts_of(trial.folder):
            row = _row(trial, attempt)
            rows.append(known.get(_key(row), row))
            if rows[-1] is row and attempt.slurm_job_id:
                to_ask.append((trial, attempt, row))
    attempts = [attempt for _, attempt, _ in to_ask]
    try:
        answer = _ask(attempts, settle_s)
    except NoAnswer as error:
        for _, _, row in to_ask:
            row["reason"] = str(error)
        return rows
    found = [_allocation_of(attempt, answer) for attempt in attempts]
    attempts_in = Counter((one.job_id, one.started_s) for one in found if one is not None)
    for (trial, _, row), allocation in zip(to_ask, found, strict=True):
        if allocation is None:
            row["reason"] = "Slurm's accounting knows no such job"
            continue
        row |= _figures(trial, allocation)
        row["failed"] = row["failed"] and allocation.finished
        others = attempts_in[allocation.job_id, allocation.started_s] - 1
        if others:
            row |= dict.fromkeys(("gpu_hours_allocated", "gpu_hours_used", "energy_j"))
            row["reason"] = f"its job ran {others} other attempts: no share is its own"
    return rows


def attempts_of(folder: Path) -> list[Attempt]:
    """A trial's attempts; where their records are gone, the one that its outcome tells of."""
    attempts = read_attempts(folder)
    if attempts or not (folder / "outcome.json").exists():
        return attempts
    try:
        outcome = read_outcome(folder / "outcome.json", folder.name)
    except Damaged:
        return []
    ids = (rank.get("slurm") or {} for rank in outcome.ranks)
    job_id = next((found["slurm_job_id"] for found in ids if "slurm_job_id" in found), None)
    number = outcome.attempts or 1
    return [Attempt(number, outcome.started_at, slurm_job_id=job_id, status=outcome.status)]


def as_csv(rows: Iterable[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_text(row[name]) for name in COLUMNS] for row in rows)
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


def _figures(trial: Asked, allocation: sacct.Allocation) -> Row:
    gpus = trial.gpus if allocation.gpus is None else allocation.gpus
    hours = allocation.elapsed_s / 3600
    return {
        "state": allocation.state,
        "exit_code": allocation.exit_code,
        "submitted_at": _iso(allocation.submitted_s),
        "started_at": _iso(allocation.started_s),
        "finished_at": _iso(allocation.ended_s),
        "elapsed_s": allocation.elapsed_s,
        "queue_s": allocation.queue_s,
        "nodes": allocation.nodes,
        "node_names": allocation.node_names,
        "gpus_allocated": gpus or None,
        "gpu_hours_allocated": gpus * hours if gpus else None,
        "gpu_hours_used": min(trial.ranks, gpus) * hours if gpus else None,
        "energy_j": allocation.energy_j,
    }


def _ask(attempts: Sequence[Attempt], settle_s: float) -> dict[str, list[sacct.Allocation]]:
    """Slurm's answer, once the jobs of the attempts that have ended are over, or settle_s later."""
    answer = sacct.allocations(attempt.slurm_job_id or "" for attempt in attempts)
    running = {attempt.slurm_job_id or "" for attempt in attempts if attempt.status is not None}
    until = time.monotonic() + settle_s
    while time.monotonic() < until:
        running = {job for job in running if not all(one.finished for one in answer.get(job, []))}
        if not running:
            break
        time.sleep(ASK_AGAIN_S)
        answer |= sacct.allocations(running)
    return answer


def _allocation_of(
    attempt: Attempt, answer: Mapping[str, Sequence[sacct.Allocation]]
) -> sacct.Allocation | None:
    """The allocation that the attempt began in: Slurm uses a number again after a requeue, and for
    another job after years."""
    held = list(answer.get(attempt.slurm_job_id or "", []))
    if (began_s := attempt.started_unix_s) is not None:
        held = [
            one
            for one in held
            if one.started_s is not None
            and one.started_s - CLOCKS_APART_S <= began_s
            and (one.ended_s is None or began_s <= one.ended_s + CLOCKS_APART_S)
        ]
    return held[-1] if held else None


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else f"{value:.10g}" if isinstance(value, float) else str(value)


def _iso(unix_s: float | None) -> str | None:
    if unix_s is None:
        return None
    return datetime.fromtimestamp(unix_s, timezone.utc).isoformat(timespec="seconds")
