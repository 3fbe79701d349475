"""Records that the attempts at a trial leave in its folder, for the launcher and later readers.

`attempts.jsonl` holds a line for each attempt that reached its end; `attempts/N/started.json` what
each began with, `measured.json` and `rank-R.json` beside it what its ranks noted. Standard library
only.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from sagebench.files import read_json, read_object, write_json
from sagebench.records import MEASURED_ENDS, FromJson, Measured, Reason, Status

EARLY_END_CODE = 86
"""exit code of a rank that ended early and says why in its record"""
PROFILE = ("profile.txt", "trace.json.gz")
"""the files of a trial with `profile_steps`"""


@dataclass(frozen=True)
class Attempt(FromJson):
    """One attempt at a trial: its line in `attempts.jsonl`; of one that noted no end, what
    `attempts/N/started.json` holds.

    status: how it ended; None where nobody noted it. log: that of the rank it ended with.
    host, pid, walltime_s: of the launcher, in started.json alone.
    """

    attempt: int
    started_at: str | None = None
    finished_at: str | None = None
    slurm_job_id: str | None = None
    status: Status | None = None
    reason: Reason | None = None
    message: str = ""
    predicted_walltime_too_short: bool = False
    log: str | None = None
    host: str | None = None
    pid: int | None = None
    walltime_s: float | None = None

    @property
    def started_unix_s(self) -> float | None:
        try:
            return datetime.fromisoformat(self.started_at or "").timestamp()
        except ValueError:
            return None

    @property
    def failed(self) -> bool:
        """Whether the attempt failed: no outcome and no checkpoint."""
        return self.status not in (*MEASURED_ENDS, Status.CONTINUES)

    @property
    def why(self) -> str:
        """ "rank 3, forward: no memory"."""
        if self.reason is None:
            return self.message
        return f"rank {self.reason.rank}, {self.reason.phase}: {self.reason.message}"


STARTED_ONLY = ("host", "pid", "walltime_s")


def log_attempt(home: Path, attempt: Attempt) -> None:
    """Append an attempt that ended to `attempts.jsonl` in the trial's folder."""
    line = {name: value for name, value in asdict(attempt).items() if name not in STARTED_ONLY}
    with (home / "attempts.jsonl").open("a") as log:
        log.write(json.dumps(line) + "\n")


def read_attempts(home: Path) -> list[Attempt]:
    """All attempts at the trial in this folder, oldest first."""
    found = {attempt.attempt: attempt for attempt in read_ended_attempts(home)}
    for path in (home / "attempts").glob("*"):
        if path.name.isdigit() and int(path.name) not in found:
            started = read_object(path / "started.json") or {}
            found[int(path.name)] = Attempt.from_json({**started, "attempt": int(path.name)})
    return [found[number] for number in sorted(found)]


def read_ended_attempts(home: Path) -> list[Attempt]:
    """Finished attempts from `attempts.jsonl`, oldest first; a truncated last line is skipped."""
    try:
        text = (home / "attempts.jsonl").read_text(errors="replace")
    except FileNotFoundError:
        return []
    ended: list[Attempt] = []
    for line in text.splitlines():
        try:
            ended.append(Attempt.from_json({"attempt": len(ended) + 1, **json.loads(line)}))
        except (ValueError, TypeError):
            continue
    return ended


@dataclass(kw_only=True)
class Measurements(Measured):
    """Measurements of rank 0 so far (`attempts/N/measured.json`). complete: the trial is
    through."""

    versions: dict[str, str | None] | None = None
    start_to_first_step_s: float | None = None
    complete: bool = False

    def write(self, directory: Path) -> None:
        write_json(measured_path(directory), asdict(self))


def measured_path(directory: Path) -> Path:
    """directory: of the attempt."""
    return directory / "measured.json"


def read_measurements(directory: Path) -> Measurements:
    """Last measurements of rank 0, with allocator counters of ranks that ended early."""
    path = measured_path(directory)
    measured = Measurements.from_json(read_json(path)) if path.exists() else Measurements()
    for number, rank in enumerate(measured.ranks):
        ended = read_early_end(directory, number)
        rank |= ended.allocator if ended else {}
    return measured


@dataclass(frozen=True)
class RankEarlyEnd(FromJson):
    """Why a rank ended early, as it says itself in `attempts/N/rank-R.json`.

    allocator: its counters then, of machine.collect_allocator.
    """

    status: Status
    at_unix_s: float
    reason: Reason
    allocator: dict[str, int | None] = field(default_factory=dict)

    def write(self, directory: Path) -> None:
        write_json(_early_end_path(directory, self.reason.rank), asdict(self))


def read_early_end(directory: Path, rank: int) -> RankEarlyEnd | None:
    """None where the rank wrote none."""
    path = _early_end_path(directory, rank)
    return RankEarlyEnd.from_json(read_json(path)) if path.exists() else None


def _early_end_path(directory: Path, rank: int) -> Path:
    return directory / f"rank-{rank}.json"
