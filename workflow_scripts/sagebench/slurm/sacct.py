"""What Slurm's accounting says of jobs that ran: one `Allocation` for each time a job started."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from sagebench.slurm.commands import ask

# None of these can hold the separator |.
FIELDS = [
    *("JobIDRaw", "State", "ExitCode", "Submit", "Start", "End", "ElapsedRaw"),
    *("NNodes", "NodeList", "AllocTRES", "ConsumedEnergyRaw"),
]
LIMIT_S = 120.0
JOBS_A_CALL = 8000
"""whose numbers fit into one argument"""
UNFINISHED = {"PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "RESIZING"}
NOT_RECORDED_J = 2**32 - 2
"""from here on an energy is one of Slurm's words for none"""


@dataclass(frozen=True)
class Allocation:
    """A job from one start to its end; a requeued job has several. Times are ISO texts in UTC.

    state: Slurm's word, e.g. COMPLETED or NODE_FAIL. queue_s: from being submitted, or put back
    into the queue, to the start. node_names: as Slurm writes them, e.g. tb[1-2]. gpus_allocated:
    None where Slurm does not count them. energy_j: of the nodes; None where none is recorded.
    """

    slurm_job_id: str
    state: str
    exit_code: str
    submitted_at: str | None
    started_at: str | None
    finished_at: str | None
    elapsed_s: int
    queue_s: int | None
    nodes: int
    node_names: str
    gpus_allocated: int | None
    energy_j: float | None = None

    @property
    def finished(self) -> bool:
        return self.state not in UNFINISHED


def allocations(job_ids: Iterable[str], limit_s: float = LIMIT_S) -> dict[str, list[Allocation]]:
    """Of the jobs, by id and in the order of time; raises NoAnswer."""
    ids = sorted(set(job_ids))  # without any, sacct would tell of all of today's jobs
    command = ["sacct", "--parsable2", "--noheader", "--duplicates", "--format", ",".join(FIELDS)]
    found: dict[str, list[Allocation]] = {}
    for first in range(0, len(ids), JOBS_A_CALL):
        asked = ",".join(ids[first : first + JOBS_A_CALL])
        found |= parse(ask([*command, "--jobs", asked], limit_s))
    return found


def parse(text: str) -> dict[str, list[Allocation]]:
    """The allocations in sacct's answer. A job's steps follow its own line; lines that are not
    whole are left out."""
    found: dict[str, list[Allocation]] = {}
    for line in text.splitlines():
        values = line.split("|")
        if len(values) != len(FIELDS):
            continue
        row = dict(zip(FIELDS, values, strict=True))
        job_id, _, step = row["JobIDRaw"].partition(".")
        if not step:
            found.setdefault(job_id, []).append(_allocation(row))
        elif same := found.get(job_id):
            # Where only steps have an energy, that of the one that saw most: all read the counters
            # of their nodes, so adding them up would count a node twice.
            energy_j = max(same[-1].energy_j or 0.0, _joules(row)) or None
            same[-1] = replace(same[-1], energy_j=energy_j)
    for same in found.values():
        same.sort(key=lambda one: one.started_at or "later")
    return found


def _allocation(row: dict[str, str]) -> Allocation:
    nowhere = row["NodeList"] == "None assigned"
    submitted, ended = _time(row["Submit"]), _time(row["End"])
    # Of a job that was cancelled while it waited, sacct may call that moment the start.
    started = None if nowhere else _time(row["Start"])
    return Allocation(
        slurm_job_id=row["JobIDRaw"],
        state=(row["State"].split() or ["UNKNOWN"])[0],  # without the user in "CANCELLED by 1000"
        exit_code=row["ExitCode"],
        submitted_at=submitted and submitted.isoformat(),
        started_at=started and started.isoformat(),
        finished_at=ended and ended.isoformat(),
        elapsed_s=int(row["ElapsedRaw"] or 0),
        queue_s=int((started - submitted).total_seconds()) if started and submitted else None,
        nodes=int(row["NNodes"] or 0),
        node_names="" if nowhere else row["NodeList"],
        gpus_allocated=_gpus(row["AllocTRES"]),
        energy_j=_joules(row) or None,
    )


def _joules(row: dict[str, str]) -> float:
    joules = float(row["ConsumedEnergyRaw"] or 0)
    return joules if joules < NOT_RECORDED_J else 0.0


def _gpus(tres: str) -> int | None:
    """ "cpu=64,gres/gpu=4,node=1" -> 4; with types only, e.g. gres/gpu:a100=4, their sum."""
    counts = re.findall(r"gres/gpu=(\d+)", tres) or re.findall(r"gres/gpu:[^=]+=(\d+)", tres)
    return sum(map(int, counts)) if counts else None


def _time(text: str) -> datetime | None:
    """None for "Unknown", "None" and the like."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)
    except ValueError:
        return None
