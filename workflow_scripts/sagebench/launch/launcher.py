"""Launcher: starts a trial's ranks, waits for them, writes the outcome.

Standard library only: this runs outside the container, on whatever Python a node has.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from sagebench.attempts import PROFILE, log_attempt, read_early_end, read_measurements
from sagebench.errors import UserError
from sagebench.launch.attempt import CurrentAttempt, collect_provenance, compose_outcome
from sagebench.launch.ends import Verdict, decide
from sagebench.launch.job import Job, Walltime, machine_lock, trial_lock
from sagebench.launch.ranks import Ranks, rank_group, shared_environment
from sagebench.records import (
    MEASURED_ENDS,
    Damaged,
    Outcome,
    Status,
    read_outcome,
    write_outcome,
)

TO_BE_CONTINUED_CODE = 75
"""exit code of a trial that stopped with a checkpoint: run it again, and it goes on"""


class Interrupted(Exception):
    """Raised by a termination signal while no rank is running."""

    def __init__(self, number: int) -> None:
        super().__init__("interrupted")
        self.number = number


def run_trial(job: Job, walltime_s: float | None) -> int:
    """Run a trial once and return the exit code: 0 where there is an outcome.

    Beside the outcome: `attempts/N/` with the ranks' logs and measurements and once more the
    outcome, `attempts.jsonl` with a line an attempt, `best.pt` and the profile of a completed one.
    A trial that is being run already is waited for, and what it ends with is taken; in a job of
    Slurm, whose devices would wait too, it is a UserError.
    """
    since_unix_s = float(os.environ.get("SAGEBENCH_RUN_BEGAN", time.time()))
    try:
        with handling_signals(interrupt), trial_lock(job.home, wait=not job.by_slurm):
            outcome = outcome_since(job, since_unix_s)
            if outcome is None:
                return run_alone(job, walltime_s)
            write_outcome(job.outcome_path, outcome)
    except Interrupted as interrupted:
        return report_interruption(interrupted.number)
    print(f"{job.trial.id}: {outcome.status}, run by another process")
    return 0


def outcome_since(job: Job, unix_s: float) -> Outcome | None:
    """The outcome of an attempt that ended since then: another process's, such as the launcher
    that a killed Snakemake left. Of the attempt's own file, too: Snakemake deletes what came to be
    in the place of a job's output before it starts the job."""
    for path in (job.outcome_path, *job.home.glob("attempts/*/outcome.json")):
        with suppress(Damaged, ValueError):
            outcome = read_outcome(path, job.trial.id)
            # Noted in whole seconds.
            if datetime.fromisoformat(outcome.finished_at or "").timestamp() >= int(unix_s):
                return outcome
    return None


def run_alone(job: Job, walltime_s: float | None) -> int:
    """Run a trial that nobody else runs, on a machine where no other is run."""
    with ExitStack() as held:
        if not job.by_slurm:
            held.enter_context(machine_lock())
        # Before the attempt begins: a large image that has no record takes a while to read.
        provenance = collect_provenance(job)
        attempt = CurrentAttempt.begin(job.home, walltime_s)
        walltime = Walltime.of_job(walltime_s, attempt.started_at_unix_s)
        verdict = supervise(job, attempt, walltime, held)
        ended = attempt.ended(verdict)
        if verdict.status in MEASURED_ENDS:
            if verdict.status is Status.COMPLETED:
                for name in ("best.pt", *PROFILE):
                    (job.home / name).unlink(missing_ok=True)  # an earlier attempt's
                    if (attempt.directory / name).exists():
                        (attempt.directory / name).replace(job.home / name)
            measured = read_measurements(attempt.directory)
            outcome = compose_outcome(job.trial, measured, ended, provenance)
            write_outcome(attempt.directory / "outcome.json", outcome)
            write_outcome(job.outcome_path, outcome)
            job.checkpoint.unlink(missing_ok=True)
        log_attempt(job.home, ended)
    if verdict.status in MEASURED_ENDS:
        said = f": {verdict.message}" if verdict.message else ""
        print(f"{job.trial.id}: {verdict.status}{said}")
        return 0
    if verdict.status is Status.CONTINUES:
        print(f"{job.trial.id}: {verdict.message}: run it again to go on", file=sys.stderr)
        return TO_BE_CONTINUED_CODE
    if verdict.signal is not None:
        return report_interruption(verdict.signal)
    print(f"error: {verdict.message}; see {ended.log}", file=sys.stderr)
    return 1


def report_interruption(number: int) -> int:
    """Say which signal ended the run; the exit code for it."""
    print(f"interrupted by {signal.Signals(number).name}", file=sys.stderr)
    return 128 + number


def interrupt(number: int) -> None:
    raise Interrupted(number)


def supervise(job: Job, attempt: CurrentAttempt, walltime: Walltime, held: ExitStack) -> Verdict:
    """Start the ranks, wait for their end, and judge it.

    From their start until `held` is closed, a signal ends the ranks and nothing else: what they
    measured is still written.
    """
    checkpoint_before = changed_at(job.checkpoint)
    try:
        ranks = ranks_of(job, attempt, walltime)
    except (UserError, Interrupted) as error:  # the first: no modules or binds
        status = Status.INTERRUPTED if isinstance(error, Interrupted) else Status.FAILED
        log_attempt(attempt.home, attempt.ended(Verdict(status, str(error))))
        raise
    held.enter_context(handling_signals(ranks.stop))
    with ranks:
        ends = ranks.wait(walltime.last_resort_unix_s)
    stopped_by = ranks.asked_to_stop
    ends = [replace(end, early_end=read_early_end(attempt.directory, end.rank)) for end in ends]
    verdict = decide(
        ends,
        complete=read_measurements(attempt.directory).complete,
        limit_gib=job.trial.memory_limit_gib,
        device=job.trial.device,
        killed_for_memory=ranks.killed_for_memory,
        walltime_s=walltime.asked_s if ranks.timed_out else None,
    )
    asked_s, full_min = walltime.asked_s, job.walltime_min
    if verdict.status is Status.TIME_LIMIT:
        # A job that came no further would be followed by one that comes no further either.
        if job.continues and changed_at(job.checkpoint) != checkpoint_before:
            verdict = Verdict(Status.CONTINUES, verdict.message)
        elif job.runtime_predicted and asked_s and full_min and asked_s < 60 * full_min:
            # Shorter than the study's, it is no limit that the user set: a failure, after which
            # the next attempt asks for the whole.
            message = (
                f"the predicted walltime of {asked_s / 60:g} min was too short: run it "
                f"again, which asks for the full {full_min} min"
            )
            verdict = Verdict(Status.FAILED, message, too_short=True)
    # Slurm may warn the ranks alone.
    warned = job.continues and any(end.code == -signal.SIGUSR1 for end in ends)
    if (stopped_by or warned) and verdict.status not in (Status.CONTINUES, Status.COMPLETED):
        if job.continues and job.checkpoint.exists():
            verdict = Verdict(Status.CONTINUES, "stopped with a checkpoint, to be continued")
        else:
            verdict = Verdict(Status.INTERRUPTED, "interrupted")
    return replace(verdict, signal=stopped_by)


def ranks_of(job: Job, attempt: CurrentAttempt, walltime: Walltime) -> Ranks:
    """The trial's ranks, to be started.

    Raises UserError where the site's modules or binds are not there.
    """
    arguments = [*job.program, "--trial", str(job.trial_path), "--store", str(job.store)]
    arguments += ["--out", str(attempt.directory)]
    own = job.trial.device, job.trial.threads_per_rank
    variables = shared_environment(*own, attempt.directory, attempt.started_at_unix_s)
    if walltime.deadline_unix_s is not None:
        variables["SAGEBENCH_DEADLINE"] = repr(walltime.deadline_unix_s)
        variables["SAGEBENCH_WALLTIME_S"] = repr(walltime.asked_s)
    if job.continues:
        variables["SAGEBENCH_CHECKPOINT"] = str(job.checkpoint.resolve())
    folders = job.home.parents[1], job.store
    return rank_group(arguments, variables, attempt.directory, folders, job.site, job.place)


def changed_at(path: Path) -> int | None:
    """Tells whether a file was written anew; None where there is none."""
    return path.stat().st_mtime_ns if path.exists() else None


@contextmanager
def handling_signals(handle: Callable[[int], None]) -> Iterator[None]:
    """Signals that ask to end are not fatal to the launcher but given to `handle`.

    SIGUSR1 is how Slurm can be told to warn a job before its walltime or its preemption.
    """
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
    before = [signal.signal(number, lambda received, _: handle(received)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
