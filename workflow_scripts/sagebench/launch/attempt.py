"""One attempt at a trial: its folder, what it began with, and its line in the log of attempts."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sagebench.files import write_json
from sagebench.launch.verdict import Verdict

INTERRUPTED = "interrupted"
CONTINUES = "continues"
FAILED = "failed"


@dataclass(frozen=True)
class Attempt:
    """home: the trial's folder. started_at_unix_s: when this attempt began."""

    home: Path
    number: int
    started_at_unix_s: float
    slurm_job_id: str | None

    @classmethod
    def begin(cls, home: Path, walltime_s: float | None) -> Attempt:
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

    def record(self, verdict: Verdict, interrupted: bool) -> dict[str, Any]:
        """What came of it, as `attempts.jsonl` holds it."""
        log = self.directory / f"rank-{verdict.rank or 0}.log"
        ended = CONTINUES if verdict.continues else INTERRUPTED if interrupted else FAILED
        return {
            "attempt": self.number,
            "started_at": iso(self.started_at_unix_s),
            "finished_at": iso(time.time()),
            "slurm_job_id": self.slurm_job_id,
            "status": verdict.status.value if verdict.status else ended,
            "reason": verdict.reason,
            "message": verdict.message,
            "predicted_walltime_too_short": verdict.too_short,
            # Where no rank was started, what the rule itself said.
            "log": str(log if log.exists() else self.home / "log.txt"),
        }

    def log(self, record: dict[str, Any]) -> None:
        """Append `record` to the trial's `attempts.jsonl`."""
        with (self.home / "attempts.jsonl").open("a") as log:
            log.write(json.dumps(record) + "\n")


def iso(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, timezone.utc).isoformat(timespec="seconds")
