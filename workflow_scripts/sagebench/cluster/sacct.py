"""What Slurm's accounting says of jobs that ran: one `Allocation` for each time a job started."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from sagebench.cluster.commands import ask

# None of these can hold the separator |.
FIELDS = [
    *("JobIDRaw", "State", "ExitCode", "Submit", "Start", "End", "ElapsedRaw"),
    *("NNodes", "NodeList", "AllocTRES", "ConsumedEnergyRaw"),
]
JOBS_A_CALL = 8000
"""as many as go into one argument of a command"""
LIMIT_S = 120.0

UNFINISHED = {"PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "RESIZING"}

NOT_RECORDED_J = 2**32 - 2
"""from here on an energy is one of Slurm's words for none"""


@dataclass(frozen=True)
class Allocation:
    """A job from one start to its end; a requeued job has several. Times are Unix seconds.

    state: Slurm's word, e.g. COMPLETED or NODE_FAIL. gpus: None where Slurm does not count them.
    node_names: as Slurm writes them, e.g. tb[1-2]. energy_j: None where none is recorded.
    """

    job_id: str
    state: str
    exit_code: str
    submitted_s: float | None
    started_s: float | None
    ended_s: float | None
    elapsed_s: float
    nodes: int
    node_names: str
    gpus: int | None
    energy_j: float | None = None

    @property
    def finished(self) -> bool:
        return self.state not in UNFINISHED

    @property
    def queue_s(self) -> float | None:
        """From being submitted, or put back into the queue, to the start."""
        if self.submitted_s is None or self.started_s is None:
            return None
        return self.started_s - self.submitted_s


def allocations(job_ids: Iterable[str], limit_s: float = LIMIT_S) -> dict[str, list[Allocation]]:
    """Of the jobs, by id and in the order of time; raises NoAnswer."""
    ids = sorted(set(job_ids))
    found = {}
    for first in range(0, len(ids), JOBS_A_CALL):
        command = ["sacct", "--parsable2", "--noheader", "--duplicates", "--format"]
        command += [",".join(FIELDS), "--jobs", ",".join(ids[first : first + JOBS_A_CALL])]
        found |= parse(ask(command, limit_s))
    return found


def parse(text: str) -> dict[str, list[Allocation]]:
    """The allocations in sacct's answer. A job's steps follow its own line; lines that are not
    whole are left out."""
    rows = [line.split("|") for line in text.splitlines()]
    jobs: list[list[dict[str, str]]] = []
    for values in rows:
        if len(values) != len(FIELDS):
            continue
        row = dict(zip(FIELDS, values, strict=True))
        if "." not in row["JobIDRaw"]:
            jobs.append([row])
        elif jobs:
            jobs[-1].append(row)
    found: dict[str, list[Allocation]] = {}
    for job, *steps in jobs:
        found.setdefault(job["JobIDRaw"], []).append(_allocation(job, steps))
    for same in found.values():
        same.sort(key=lambda one: one.started_s or float("inf"))
    return found


def _allocation(job: dict[str, str], steps: Sequence[dict[str, str]]) -> Allocation:
    nowhere = job["NodeList"] == "None assigned"
    return Allocation(
        job_id=job["JobIDRaw"],
        state=(job["State"].split() or ["UNKNOWN"])[0],  # without the user in "CANCELLED by 1000"
        exit_code=job["ExitCode"],
        submitted_s=_time(job["Submit"]),
        # Of a job that was cancelled while it waited, sacct may call that moment the start.
        started_s=None if nowhere else _time(job["Start"]),
        ended_s=_time(job["End"]),
        elapsed_s=_number(job["ElapsedRaw"]),
        nodes=int(_number(job["NNodes"])),
        node_names="" if nowhere else job["NodeList"],
        gpus=_gpus(job["AllocTRES"]),
        energy_j=_energy(job, steps),
    )


def _energy(job: dict[str, str], steps: Sequence[dict[str, str]]) -> float | None:
    """Joules of the job; where only its steps have them, those of the steps that saw most.

    Steps read their nodes' counters: .batch the first node's, .extern all of them, and both beside
    the numbered ones. Adding all up would count a node twice.
    """
    numbered = sum(_joules(step) for step in steps if step["JobIDRaw"][-1].isdigit())
    others = [_joules(step) for step in steps if not step["JobIDRaw"][-1].isdigit()]
    return _joules(job) or max(numbered, *others, 0.0) or None


def _joules(row: dict[str, str]) -> float:
    joules = _number(row["ConsumedEnergyRaw"])
    return joules if joules < NOT_RECORDED_J else 0.0


def _gpus(tres: str) -> int | None:
    """ "cpu=64,gres/gpu=4,node=1" -> 4; with types only, e.g. gres/gpu:a100=4, their sum."""
    counts = re.findall(r"gres/gpu=(\d+)", tres) or re.findall(r"gres/gpu:[^=]+=(\d+)", tres)
    return sum(map(int, counts)) if counts else None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _time(text: str) -> float | None:
    """Unix seconds of a time in UTC; None for "Unknown", "None" and the like."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()
    except ValueError:
        return None
