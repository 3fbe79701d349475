"""The attempt at a trial that this launcher makes: its folder, its beginning and its end."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from sagebench.attempts import Attempt
from sagebench.files import write_json
from sagebench.launch.verdict import Verdict
from sagebench.records import Status


@dataclass(frozen=True)
class CurrentAttempt:
    """home: the trial's folder. started_at_unix_s: when this attempt began."""

    home: Path
    number: int
    started_at_unix_s: float
    slurm_job_id: str | None

    @classmethod
    def begin(cls, home: Path, walltime_s: float | None) -> CurrentAttempt:
        """The next attempt: makes its folder, and notes there that it began."""
        before = (home / "attempts").glob("*")
        number = 1 + max((int(path.name) for path in before if path.name.isdigit()), default=0)
        attempt = cls(home, number, time.time(), os.environ.get("SLURM_JOB_ID"))
        attempt.directory.mkdir(parents=True)
        write_json(
            attempt.directory / "started.json",
            {
                "attempt": number,
                "started_at": iso(attempt.started_at_unix_s),
                "host": os.uname().nodename,
                "pid": os.getpid(),
                "slurm_job_id": attempt.slurm_job_id,
                "walltime_s": walltime_s,
            },
        )
        return attempt

    @property
    def directory(self) -> Path:
        return self.home / "attempts" / str(self.number)

    def ended(self, verdict: Verdict, interrupted: bool = False) -> Attempt:
        """What came of it."""
        log = self.directory / f"rank-{verdict.rank or 0}.log"
        without = Status.INTERRUPTED if interrupted else Status.FAILED
        return Attempt(
            attempt=self.number,
            started_at=iso(self.started_at_unix_s),
            finished_at=iso(time.time()),
            slurm_job_id=self.slurm_job_id,
            status=verdict.status or (Status.CONTINUES if verdict.continues else without),
            reason=verdict.reason,
            message=verdict.message,
            predicted_walltime_too_short=verdict.too_short,
            # Where no rank was started, what the rule itself said.
            log=str(log if log.exists() else self.home / "log.txt"),
        )


def iso(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, timezone.utc).isoformat(timespec="seconds")
