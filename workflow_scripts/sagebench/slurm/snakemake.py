"""What Snakemake and its Slurm plugin do not do by themselves: end what a killed run left (jobs,
lock and marks), and stop waiting for a job that is lost.

Plugin 2.8.0 waits for every job whose state it does not take for an end: one that sacct calls
"CANCELLED by 1000", one that was preempted and that the site does not start again, and one that
Slurm has forgotten, since nobody asked in time. Its question is answered here in its own words.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import inspect
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, TextIO

from sagebench.errors import UserError
from sagebench.slurm.commands import NoAnswer, ask, of_trials, queued_jobs

FOLDER = Path(".snakemake")
CANCEL_LIMIT_S = 60
END_LIMIT_S = 180
AGAIN = "call the same command again"

LOST_AFTER_S = 600.0
"""how long a job may be gone; the site starts a preempted one again in less"""
RESTARTED_BY_SITE = ("PREEMPTED", "NODE_FAIL", "REQUEUED")
GONE = "UNKNOWN"
"""the plugin's word for a job that is no more: Snakemake looks whether it left its outputs"""

Query = Callable[[str, Any], Awaitable[tuple[dict[str, str] | None, float | None]]]


def cancel_orphans(folder: Path, trial_ids: Iterable[str]) -> None:
    """Cancel this user's jobs for `trial_ids` that were submitted from `folder`, which would run
    beside the new run's, and wait for their end. Snakemake's lock on the folder tells that nobody
    else does.

    Raises UserError where one does not end, or Slurm does not answer.
    """
    wanted, until = set(trial_ids), None
    try:
        while wanted:
            jobs = of_trials(queued_jobs([os.getuid()]), folder)
            left = [job.job_id for job in jobs if job.trial_id in wanted]
            if not left:
                return
            if until is None:
                said = f"cancelling {len(left)} jobs that an earlier run left: {', '.join(left)}"
                print(said, file=sys.stderr)
                with contextlib.suppress(NoAnswer):  # of one that has ended meanwhile it complains
                    ask(["scancel", *left], CANCEL_LIMIT_S)
                until = time.monotonic() + END_LIMIT_S
            elif time.monotonic() > until:
                raise UserError(f"job {left[0]} of an earlier run still runs: see squeue; {AGAIN}")
            else:
                time.sleep(1)
    except NoAnswer as error:
        raise UserError(
            f"whether jobs of an earlier run are left is unknown: {error}; {AGAIN}"
        ) from None


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
    """Take away the marks of what came to be all the same: Snakemake would delete it as incomplete,
    make it once more, and ask for nothing that is made of it."""
    marks = folder / FOLDER / "incomplete"
    for mark in [path for path in marks.rglob("*") if path.is_file()]:
        # The path in base64, which may be too long for one name.
        encoded = "".join(part.removeprefix("@") for part in mark.relative_to(marks).parts)
        try:
            path = Path(base64.urlsafe_b64decode(encoded).decode())
        except ValueError:
            continue
        if written_whole(path) and (folder / path).exists():
            mark.unlink(missing_ok=True)


def written_whole(path: Path) -> bool:
    """Whether a file is written atomically, as the last of its job: an outcome, the manifest of a
    graph store, or that of a table of aggregated features."""
    of_table = path.suffix == ".json" and path.parent.suffix == ".extra"
    return of_table or path.name in ("outcome.json", "manifest.json")


def bound_waits() -> None:
    """Have the plugin of this process ask by way of `bounded`; where it has no such function to ask
    with any more, say so, loudly."""
    import snakemake_executor_plugin_slurm as plugin  # here: a plan needs none of it

    query = getattr(plugin, "query_job_status", None)
    loop = inspect.getsource(plugin.Executor.check_active_jobs)
    if not inspect.iscoroutinefunction(query) or "await query_job_status(" not in loop:
        print(
            "WARNING: Snakemake's Slurm plugin of this version asks for its jobs in another way "
            "than that of envs/requirements.txt: one that Slurm forgets may be waited for for ever",
            file=sys.stderr,
        )
        return
    plugin.query_job_status = bounded(query)


def bounded(query: Query, clock: Callable[[], float] = time.monotonic) -> Query:
    """`query`, with states of one word, and GONE for a job that is lost."""
    gone_since: dict[str, float] = {}  # by job; inf for one that was there at the last look

    async def bounded_query(
        command: str, logger: Any
    ) -> tuple[dict[str, str] | None, float | None]:
        answer, took_s = await query(command, logger)
        if answer is None:
            return None, took_s
        states = {job: state.split()[0] for job, state in answer.items() if state}
        for job in {*gone_since, *states}:
            if job not in states or states[job] in RESTARTED_BY_SITE:
                gone_since[job] = min(gone_since.get(job, clock()), clock())
            else:
                gone_since[job] = float("inf")
        for job, since in gone_since.items():
            if clock() - since > LOST_AFTER_S:
                states[job] = GONE
        return states, took_s

    return bounded_query
