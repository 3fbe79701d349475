"""Jobs of a run whose Snakemake was killed: they would run beside the new run's jobs."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from sagebench.errors import UserError

COMMAND_LIMIT_S = 60
END_LIMIT_S = 180
COMMENT = "rule_trial_wildcards_"
"""how Snakemake's Slurm plugin begins the comment of a trial's job; the trial's id follows"""


def cancel_orphans(folder: Path, trial_ids: Iterable[str]) -> list[str]:
    """Cancel this user's jobs for `trial_ids` that were submitted from `folder`, wait for their
    end, and return their ids. Snakemake's lock on the folder tells that nobody else does.

    Raises UserError where one does not end.
    """
    wanted = set(trial_ids)
    orphans = _jobs(folder, wanted)
    if not orphans:
        return []
    print(
        f"cancelling {len(orphans)} jobs that an earlier run left: {', '.join(orphans)}",
        file=sys.stderr,
    )
    _output("scancel", *orphans)
    until = time.monotonic() + END_LIMIT_S
    while left := _jobs(folder, wanted):
        if time.monotonic() > until:
            raise UserError(
                f"job {left[0]} of an earlier run does not end: see squeue, and call this again"
            )
        time.sleep(1)
    return orphans


def _jobs(folder: Path, trial_ids: set[str]) -> list[str]:
    lines = _output("squeue", "--me", "-h", "-o", "%i\t%k\t%Z").splitlines()
    jobs = [line.split("\t") for line in lines if line.count("\t") == 2]
    return [
        job
        for job, comment, workdir in jobs
        if comment.removeprefix(COMMENT) in trial_ids and Path(workdir) == folder
    ]


def _output(*command: str) -> str:
    """What a command of Slurm prints; nothing without Slurm: the first submission will say so."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_LIMIT_S
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
