"""Status of every trial of a study, from its folder, Slurm's queue and local processes."""

from __future__ import annotations

import os
import textwrap
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

from sagebench.attempts import Attempt, measured_path, read_attempts, read_measurements
from sagebench.files import tail
from sagebench.grid.expansion import Study
from sagebench.grid.freeze import outcome_path
from sagebench.records import MEASURED_ENDS, Damaged, Status, read_outcome
from sagebench.slurm import commands
from sagebench.slurm.commands import NoAnswer
from sagebench.units import csv_text, duration, text_table

STATES = (
    Status.RUNNING,
    Status.QUEUED,
    Status.TO_BE_CONTINUED,
    Status.FAILED,
    Status.DAMAGED,
    Status.INTERRUPTED,
    Status.OUT_OF_MEMORY,
    Status.TIME_LIMIT,
    Status.DIVERGED,
    Status.COMPLETED,
    Status.SKIPPED,
    Status.NOT_STARTED,
)
"""in the order in which they are shown"""

NO_EXIT_RECORD = "terminated without an exit record (SIGKILL or node failure)"
JUST_NOW_S = 5.0
ENDED_AFTER_S = 300.0
"""past its walltime an attempt of another machine is over, whatever it noted"""

WIDTH = 100
ROWS_SHOWN = 200
QUIET = (Status.COMPLETED, Status.SKIPPED, Status.NOT_STARTED)
"""states that a long list leaves out"""
EXPLAINED = (Status.FAILED, Status.DAMAGED, Status.INTERRUPTED)


@dataclass(frozen=True)
class TrialState:
    """state: one of STATES. said: more of it in a few words or a sentence. log: of a failure.

    epoch: how many are trained, of `epochs`; left_s: about how long the rest will take. Both of a
    running trial only.
    """

    trial_id: str
    state: Status
    said: str = ""
    attempt: int | None = None
    slurm_job_id: str | None = None
    epoch: int | None = None
    epochs: int | None = None
    left_s: float | None = None
    log: str | None = None


class Queue(NamedTuple):
    """Slurm's queue: the study's jobs by trial, and the ids of all that run, wherever submitted."""

    asked_s: float
    jobs: Mapping[str, commands.Job]
    running_ids: set[str]


def look(study: Study) -> tuple[list[TrialState], str | None]:
    """The state of every trial, in the study's order; and why nobody knows Slurm's queue."""
    trials = Path(outcome_path(study.results, "ID")).parents[1]
    queue, reason, asked_s = None, None, time.time()
    if study.site.launcher == "slurm":
        try:
            owner = trials.stat().st_uid if trials.exists() else os.geteuid()
            jobs = commands.queued_jobs({os.geteuid(), owner})
            ours = {job.trial_id: job for job in commands.of_trials(jobs, Path.cwd())}
            queue = Queue(asked_s, ours, {job.job_id for job in jobs if not job.waits})
        except NoAnswer as error:
            reason = str(error)
    states = [
        TrialState(trial_id, Status.SKIPPED, "predicted to run out of memory")
        if trial_id in study.skipped
        else state_of(trials / trial_id, request.trial.epochs, queue)
        for trial_id, request in study.requests.items()
    ]
    return states, reason


def state_of(folder: Path, epochs: int, queue: Queue | None) -> TrialState:
    """The state of the trial in `folder`. queue: None without Slurm, or an answer of it."""
    trial_id, log, path = folder.name, folder / "log.txt", folder / "outcome.json"
    if path.exists():
        try:
            outcome = read_outcome(path, trial_id)
        except Damaged as damaged:
            return TrialState(trial_id, Status.DAMAGED, damaged.remedy, log=str(path))
        why = outcome.reason
        said = f"rank {why.rank}, {why.phase}" if why else ""
        return TrialState(trial_id, outcome.status, said, outcome.attempts)
    last = next(reversed(read_attempts(folder)), None)
    job = queue.jobs.get(trial_id) if queue else None
    if job is not None and job.waits:
        return TrialState(trial_id, Status.QUEUED, job.reason, slurm_job_id=job.job_id)
    if last is not None and last.status is None and _alive(last, trial_id, queue):
        epoch, left_s = _progress(folder / "attempts" / str(last.attempt), epochs)
        numbers = last.attempt, last.slurm_job_id, epoch, epochs, left_s
        return TrialState(trial_id, Status.RUNNING, "", *numbers)
    if job is not None and (last is None or last.slurm_job_id != job.job_id):
        return TrialState(trial_id, Status.RUNNING, "starting", slurm_job_id=job.job_id)
    last_line = tail(log).strip().rpartition("\n")[2]
    error = last_line.removeprefix("error: ") if last_line.startswith("error: ") else ""
    if last is None:
        state = Status.FAILED if error else Status.NOT_STARTED
        return TrialState(trial_id, state, error, log=str(log) if error else None)
    ended = TrialState(trial_id, Status.FAILED, last.why, last.attempt, last.slurm_job_id)
    if last.status in (None, Status.CONTINUES) and (folder / "checkpoint.pt").exists():
        return replace(ended, state=Status.TO_BE_CONTINUED, said="")
    if last.status in MEASURED_ENDS:
        return TrialState(trial_id, Status.NOT_STARTED, "its outcome was set aside")
    if last.status is None:
        ranks_log = folder / "attempts" / str(last.attempt) / "rank-0.log"
        silent_log = log if error or not ranks_log.exists() else ranks_log
        return replace(ended, said=error or NO_EXIT_RECORD, log=str(silent_log))
    interrupted = last.status is Status.INTERRUPTED
    return replace(ended, state=last.status if interrupted else Status.FAILED, log=last.log)


def _alive(attempt: Attempt, trial_id: str, queue: Queue | None) -> bool:
    """Whether an attempt that noted no end still runs, as far as can be known here."""
    if attempt.slurm_job_id and queue is not None:
        just_began = (attempt.started_unix_s or 0.0) > queue.asked_s - JUST_NOW_S
        return attempt.slurm_job_id in queue.running_ids or just_began
    if attempt.host not in (None, os.uname().nodename):
        limit_s = attempt.walltime_s or float("inf")
        return time.time() < (attempt.started_unix_s or 0.0) + limit_s + ENDED_AFTER_S
    try:
        command = Path(f"/proc/{attempt.pid}/cmdline").read_bytes()
    except OSError:
        return False
    return trial_id.encode() in command  # and no later process of the same number


def _progress(directory: Path, epochs: int) -> tuple[int, float | None]:
    """Epochs done in an attempt, and about how long the others will take."""
    done = read_measurements(directory).epochs
    if not 0 < len(done) < epochs:
        return len(done), None
    mean_s = sum(epoch.time_s + (epoch.evaluation_s or 0.0) for epoch in done) / len(done)
    since_s = time.time() - measured_path(directory).stat().st_mtime
    return len(done), max(0.0, (epochs - len(done)) * mean_s - since_s)


def as_text(title: str, states: Sequence[TrialState], queue_unknown: str | None = None) -> str:
    """Totals, a row a trial, and the failures' reasons and logs. title: of what study."""
    counts = Counter(one.state for one in states)
    totals = ", ".join(f"{counts[name]} {name.words}" for name in STATES if counts[name])
    lines = textwrap.wrap(f"{title}: {len(states)} trials: {totals}", WIDTH)
    if queue_unknown:
        lines += [f"What waits in Slurm's queue is unknown: {queue_unknown}."]
    shown = sorted(states, key=lambda one: STATES.index(one.state))
    if len(shown) > ROWS_SHOWN:
        shown = [one for one in shown if one.state not in QUIET][:ROWS_SHOWN]
        lines += [f"Below are {len(shown)} of them; --csv lists all."]
    if shown:
        cells = [[one.state.words, one.trial_id, _short(one)] for one in shown]
        progress = any(one.epoch is not None for one in shown)
        head = ["state", "trial", "epoch, time left" if progress else ""]
        lines += ["", *map(_cut, text_table(head, cells, left={0, 1, 2}))]
    alike: dict[tuple[Status, str], list[TrialState]] = {}
    for one in shown:
        if one.state in EXPLAINED:
            alike.setdefault((one.state, one.said), []).append(one)
    for (state, said), trials in alike.items():
        why = "" if said in ("", state) else f": {said}"
        lines += ["", *textwrap.wrap(f"{state.words}{why}", WIDTH)]
        lines += [f"  {one.log or one.trial_id}" for one in trials]
    return "\n".join(lines)


def as_csv(states: Sequence[TrialState]) -> str:
    return csv_text([entry.name for entry in fields(TrialState)], map(astuple, states))


def _short(one: TrialState) -> str:
    if one.epoch is not None:
        left = f", {duration(one.left_s, digits=2)}" if one.left_s is not None else ""
        return f"epoch {one.epoch}/{one.epochs}{left}"
    if one.state in EXPLAINED:
        job = f", job {one.slurm_job_id}" if one.slurm_job_id else ""
        return f"attempt {one.attempt}{job}" if one.attempt else ""
    return one.said


def _cut(line: str) -> str:
    return line.rstrip() if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
