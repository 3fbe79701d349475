"""Jobs of a run whose Snakemake was killed: they would run beside the new run's jobs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from sagebench.errors import UserError
from sagebench.slurm import squeue
from sagebench.slurm.commands import NoAnswer

COMMAND_LIMIT_S = 60
END_LIMIT_S = 180
AGAIN = "call the same command again"


def cancel_orphans(folder: Path, trial_ids: Iterable[str]) -> list[str]:
    """Cancel this user's jobs for `trial_ids` that were submitted from `folder`, wait for their
    end, and return their ids. Snakemake's lock on the folder tells that nobody else does.

    Raises UserError where one does not end, or Slurm does not answer.
    """
    wanted = set(trial_ids)
    orphans = _jobs(folder, wanted) if wanted else []
    if not orphans:
        return []
    print(
        f"cancelling {len(orphans)} jobs that an earlier run left: {', '.join(orphans)}",
        file=sys.stderr,
    )
    try:
        subprocess.run(["scancel", *orphans], timeout=COMMAND_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise UserError(f"scancel took longer than {COMMAND_LIMIT_S} s: {AGAIN}") from None
    until = time.monotonic() + END_LIMIT_S
    while left := _jobs(folder, wanted):
        if time.monotonic() > until:
            raise UserError(f"job {left[0]} of an earlier run does not end: see squeue; {AGAIN}")
        time.sleep(1)
    return orphans


def _jobs(folder: Path, trial_ids: set[str]) -> list[str]:
    """The ids of the jobs."""
    try:
        found = squeue.of_trials(squeue.jobs([os.getuid()]), folder)
    except NoAnswer as error:
        raise UserError(
            f"whether jobs of an earlier run are left is unknown: {error}; {AGAIN}"
        ) from None
    return [job.job_id for job in found if job.trial_id in trial_ids]
