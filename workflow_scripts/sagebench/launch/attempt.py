"""The launcher's current attempt: its start record, its end and its outcome."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sagebench import registry
from sagebench.attempts import STARTED_ONLY, Attempt, Measurements
from sagebench.files import write_json
from sagebench.grid.trial import Trial
from sagebench.launch.container import ROOT, image_digest
from sagebench.launch.ends import Verdict
from sagebench.launch.job import Job
from sagebench.records import Epoch, HopMeans, Measured, Outcome, Timing


@dataclass(frozen=True)
class CurrentAttempt:
    """home: the trial's folder. begun: what is noted of it when it begins."""

    home: Path
    started_at_unix_s: float
    begun: Attempt

    @classmethod
    def begin(cls, home: Path, walltime_s: float | None) -> CurrentAttempt:
        """The next attempt: makes its folder, and notes there that it began."""
        before = (home / "attempts").glob("*")
        now = time.time()
        begun = Attempt(
            attempt=1 + max((int(path.name) for path in before if path.name.isdigit()), default=0),
            started_at=iso(now),
            slurm_job_id=os.environ.get("SLURM_JOB_ID"),
            host=os.uname().nodename,
            pid=os.getpid(),
            walltime_s=walltime_s,
        )
        attempt = cls(home, now, begun)
        attempt.directory.mkdir(parents=True)
        noted = ("attempt", "started_at", "slurm_job_id", *STARTED_ONLY)
        write_json(
            attempt.directory / "started.json", {name: getattr(begun, name) for name in noted}
        )
        return attempt

    @property
    def directory(self) -> Path:
        return self.home / "attempts" / str(self.begun.attempt)

    def ended(self, verdict: Verdict) -> Attempt:
        """The attempt as it ended, for attempts.jsonl."""
        log = self.directory / f"rank-{verdict.rank or 0}.log"
        return replace(
            self.begun,
            finished_at=iso(time.time()),
            status=verdict.status,
            reason=verdict.reason,
            message=verdict.message,
            predicted_walltime_too_short=verdict.too_short,
            # Where no rank was started, what the rule itself said.
            log=str(log if log.exists() else self.home / "log.txt"),
        )


def compose_outcome(
    trial: Trial, measured: Measurements, attempt: Attempt, provenance: dict[str, Any]
) -> Outcome:
    """A trial's one outcome, from what its ranks measured and how they ended.

    attempt: the one that ended with the trial's status.
    """
    assert attempt.status is not None
    parts = {entry.name: getattr(measured, entry.name) for entry in fields(Measured)}
    start_s = measured.start_to_first_step_s
    if measured.timing or start_s is not None:
        parts["timing"] = replace(measured.timing or Timing(), start_to_first_step_s=start_s)
    return Outcome(
        trial_id=trial.id,
        trial=trial.to_json(),
        status=attempt.status,
        reason=attempt.reason,
        started_at=attempt.started_at,
        finished_at=attempt.finished_at,
        attempts=attempt.attempt,
        sample=hop_means(measured.epochs),
        provenance={**provenance, "versions": measured.versions},
        **parts,
    )


def collect_provenance(job: Job) -> dict[str, Any]:
    """Commit and dirtiness of the checkout, the image's digest, and how the ranks were told to take
    memory; null where there is none."""
    status = _git("status", "--porcelain", "--untracked-files=no")
    image = job.site["image"] if job.by_slurm else None
    return {
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": None if status is None else bool(status),
        "image_digest": None if image is None else image_digest(Path(image)),
        "expandable_segments": job.expandable_segments,
        "command": shlex.join(sys.argv),
        "plugins": {
            str(entry or path): hashlib.sha256(path.read_bytes()).hexdigest()
            for path, entry in registry.plugin_files(registry.plugins())
        },
    }


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(ROOT), *arguments]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.check_output(
            command, stderr=subprocess.DEVNULL, text=True, timeout=30
        ).strip()
    return None


def hop_means(epochs: Sequence[Epoch]) -> HopMeans | None:
    if not epochs:
        return None
    nodes = zip(*(epoch.nodes_per_hop for epoch in epochs), strict=True)
    edges = zip(*(epoch.edges_per_hop for epoch in epochs), strict=True)
    return HopMeans(
        [sum(hop) / len(epochs) for hop in nodes], [sum(hop) / len(epochs) for hop in edges]
    )


def iso(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, timezone.utc).isoformat(timespec="seconds")
