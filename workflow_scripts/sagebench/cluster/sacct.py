"""What Slurm's accounting says of jobs that ran: one `Allocation` for each time a job started."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

from sagebench.cluster.commands import NoAnswer, ask

# None of these can hold the separator |.
FIELDS = [
    *("JobIDRaw", "State", "ExitCode", "Submit", "Start", "End", "ElapsedRaw"),
    *("NNodes", "NodeList", "AllocTRES", "ConsumedEnergyRaw"),
]
JOBS_A_CALL = 500
LIMIT_S = 60.0

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


@dataclass
class Answer:
    """What was learnt: allocations by job id, in the order of time. Of the jobs in `unanswered`
    nothing is known, because of `reason`."""

    allocations: dict[str, list[Allocation]] = field(default_factory=dict)
    unanswered: set[str] = field(default_factory=set)
    reason: str | None = None


def allocations(job_ids: Iterable[str], limit_s: float = LIMIT_S) -> Answer:
    """Ask sacct for the jobs, in few calls; once one fails, the rest is not asked for."""
    ids = sorted(set(job_ids))
    answer = Answer()
    for first in range(0, len(ids), JOBS_A_CALL):
        batch = ids[first : first + JOBS_A_CALL]
        command = ["sacct", "--parsable2", "--noheader", "--duplicates"]
        command += ["--format", ",".join(FIELDS), "--jobs", ",".join(batch)]
        try:
            answer.allocations |= parse(ask(command, limit_s))
        except NoAnswer as error:
            answer.unanswered = set(ids[first:])
            answer.reason = str(error)
            break
    return answer


def parse(text: str) -> dict[str, list[Allocation]]:
    """The allocations in sacct's answer. A job's steps follow its own line; lines that are not
    whole are left out."""
    jobs: list[tuple[dict[str, str], list[dict[str, str]]]] = []
    for line in text.splitlines():
        values = line.split("|")
        if len(values) != len(FIELDS):
            continue
        row = dict(zip(FIELDS, values, strict=True))
        if "." not in row["JobIDRaw"]:
            jobs.append((row, []))
        elif jobs:
            jobs[-1][1].append(row)
    found: dict[str, list[Allocation]] = {}
    for job, steps in jobs:
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
        elapsed_s=_number(job["ElapsedRaw"]) or 0.0,
        nodes=int(_number(job["NNodes"]) or 0),
        node_names="" if nowhere else job["NodeList"],
        gpus=_gpus(job["AllocTRES"]),
        energy_j=_energy(job, steps),
    )


def _energy(job: dict[str, str], steps: Sequence[dict[str, str]]) -> float | None:
    """Joules of the job; where only its steps have them, those of the steps that saw most.

    Steps read their nodes' counters: .batch the first node's, .extern all of them, and both beside
    the numbered ones. Adding all up would count a node twice.
    """
    numbered, others = 0.0, [_joules(job)]
    for step in steps:
        if step["JobIDRaw"].rpartition(".")[2].isdigit():
            numbered += _joules(step)
        else:
            others.append(_joules(step))
    return others[0] or max(numbered, *others) or None


def _joules(row: dict[str, str]) -> float:
    joules = _number(row["ConsumedEnergyRaw"]) or 0.0
    return joules if 0 < joules < NOT_RECORDED_J else 0.0


def _gpus(tres: str) -> int | None:
    """ "cpu=64,gres/gpu=4,node=1" -> 4; with types only, e.g. gres/gpu:a100=4, their sum."""
    counts = dict(part.split("=", 1) for part in tres.split(",") if "=" in part)
    if "gres/gpu" in counts:
        return int(_number(counts["gres/gpu"]) or 0)
    typed = [_number(count) for name, count in counts.items() if name.startswith("gres/gpu:")]
    return int(sum(count or 0 for count in typed)) if typed else None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _time(text: str) -> float | None:
    """Unix seconds of a time in UTC; None for "Unknown", "None" and the like."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()
    except ValueError:
        return None
