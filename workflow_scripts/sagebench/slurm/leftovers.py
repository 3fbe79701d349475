"""What a killed Snakemake leaves: jobs that run on, its lock, marks of what it was making."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from sagebench.errors import UserError
from sagebench.slurm.commands import NoAnswer, ask, of_trials, queued_jobs

FOLDER = Path(".snakemake")
CANCEL_LIMIT_S = 60
END_LIMIT_S = 180
AGAIN = "call the same command again"


def cancel_orphans(folder: Path, trial_ids: Iterable[str]) -> list[str]:
    """Cancel this user's jobs for `trial_ids` that were submitted from `folder`, which would run
    beside the new run's, wait for their end, and return their ids. Snakemake's lock on the folder
    tells that nobody else does.

    Raises UserError where one does not end, or Slurm does not answer.
    """
    wanted = set(trial_ids)

    def left() -> list[str]:
        jobs = of_trials(queued_jobs([os.getuid()]), folder) if wanted else []
        return [job.job_id for job in jobs if job.trial_id in wanted]

    try:
        orphans = left()
        if orphans:
            said = f"cancelling {len(orphans)} jobs that an earlier run left: {', '.join(orphans)}"
            print(said, file=sys.stderr)
            with contextlib.suppress(NoAnswer):  # of one that has ended meanwhile it complains
                ask(["scancel", *orphans], CANCEL_LIMIT_S)
        until = time.monotonic() + END_LIMIT_S
        while orphans and (running := left()):
            if time.monotonic() > until:
                raise UserError(
                    f"job {running[0]} of an earlier run still runs: see squeue; {AGAIN}"
                )
            time.sleep(1)
    except NoAnswer as error:
        raise UserError(
            f"whether jobs of an earlier run are left is unknown: {error}; {AGAIN}"
        ) from None
    return orphans


def hold_folder(folder: Path) -> TextIO:
    """Say that this process works in `folder`, for as long as what this returns is open; where no
    other does, take away the lock that a killed Snakemake left there.

    The kernel's locks end with their process, Snakemake's does not. They may reach no further than
    one machine, so what another one left is not touched; nor is anything where the file system has
    no such locks.
    """
    path = folder / FOLDER / "sagebench" / "in-use"
    path.parent.mkdir(parents=True, exist_ok=True)
    mark = path.open("a+")
    with contextlib.suppress(OSError):  # another process works here
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mark.seek(0)
        here, last = os.uname().nodename, mark.read()
        locks = list((folder / FOLDER / "locks").glob("*.lock"))
        if locks and last == here:
            print("an earlier run here was killed: its stale lock is removed", file=sys.stderr)
            for lock in locks:
                lock.unlink(missing_ok=True)
        elif not locks:
            mark.truncate(0)
            mark.write(here)
            mark.flush()
    with contextlib.suppress(OSError):
        fcntl.flock(mark, fcntl.LOCK_SH)
    return mark


def keep_finished(folder: Path) -> None:
    """Take away the marks of outcomes that came to be all the same: Snakemake would delete them as
    incomplete and run their trials again. An outcome is there whole or not at all."""
    marks = folder / FOLDER / "incomplete"
    for mark in [path for path in marks.rglob("*") if path.is_file()]:
        # The path in base64, which may be too long for one name.
        encoded = "".join(part.removeprefix("@") for part in mark.relative_to(marks).parts)
        try:
            path = Path(base64.urlsafe_b64decode(encoded).decode())
        except ValueError:
            continue
        if path.name == "outcome.json" and (folder / path).exists():
            mark.unlink(missing_ok=True)
