"""Runs a study's pilots one after the other, each in its own process, started as a trial's."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from sagebench.attempts import log_attempt, read_measurements
from sagebench.errors import UserError
from sagebench.files import read_object, write_json
from sagebench.grid.expansion import Study
from sagebench.grid.freeze import manifest_path
from sagebench.grid.site import geometry
from sagebench.launch.attempt import CurrentAttempt, iso
from sagebench.launch.ends import Verdict
from sagebench.launch.job import (
    Job,
    Walltime,
    machine_lock,
    slurm_job_end_unix_s,
    trial_lock,
)
from sagebench.launch.launcher import (
    Interrupted,
    handling_signals,
    interrupt,
    report_interruption,
    supervise,
)
from sagebench.launch.ranks import RANK_SCRIPT
from sagebench.pilot.records import (
    Pilot,
    Work,
    missing,
    pilots_folder,
    read_pilot,
    read_pilots,
    works_of,
    write_pilot,
)
from sagebench.records import Status
from sagebench.units import duration, significant

say = partial(print, flush=True)


class Series:
    """A study's pilots. Every record is written once its process ends, and never measured again."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.folder = pilots_folder(study.results, study.site.machine)
        self.works = works_of(study)
        self.failed: dict[str, str] = {}  # sentences by key
        self.pilots = read_pilots(study.results, study.site.machine, warn=say)

    def run(self) -> int:
        """Measure what is missing. Returns 0 where all is there, 1 where not, and 128 and the
        signal's number where one ended it."""
        taken = 0
        try:
            while works := missing(self.works, self.pilots, self.failed):
                taken += 1
                say(f"pilot {taken} of {taken - 1 + len(works)}: {works[0].key}")
                with handling_signals(interrupt):
                    self.measure(works[0])
        except Interrupted as interrupted:
            return report_interruption(interrupted.number)
        for failure in self.failed.values():
            print(f"error: {failure}", file=sys.stderr)
        if self.failed:
            return 1
        count = len({work.pilot for work in self.works})
        say(f"{count} configuration{'s' if count > 1 else ''} measured: {self.folder}")
        return 0

    def measure(self, work: Work) -> None:
        """One process and its records, where no other process has measured them meanwhile.

        Raises UserError where no process can be started, or the time of the job is used up, and
        Interrupted where a signal ended it.
        """
        home = self.folder / work.key
        with ExitStack() as held:
            held.enter_context(trial_lock(home, wait=True))  # for a minute at most
            if found := read_pilot(self.folder / f"{work.key}.json"):
                self.pilots[work.key] = found
                return
            if self.study.site.launcher != "slurm":
                held.enter_context(machine_lock())
            began = time.monotonic()
            end_s = slurm_job_end_unix_s()
            walltime = Walltime(None if end_s is None else max(0.0, end_s - time.time()), end_s)
            attempt = CurrentAttempt.begin(home, walltime.asked_s)
            trial_path, site = attempt.directory / "trial.json", self.study.site
            job = Job(
                work.trial,
                trial_path,
                Path(manifest_path(self.study.results, work.store)).parent,
                self.folder / f"{work.key}.json",
                site.model_dump(mode="json"),
                asdict(geometry(1, site)),
                program=(str(RANK_SCRIPT), "pilot", f"--part={work.part}"),
            )
            write_json(trial_path, job.trial.to_json())
            verdict = supervise(job, attempt, walltime, held)
            if record := record_of(work, verdict, attempt.directory):
                write_pilot(self.folder, record)
                self.pilots[work.key] = record
                say(f"{work.key}: {summary(record)}, in {duration(time.monotonic() - began)}")
            ended = attempt.ended(verdict)
            log_attempt(home, ended)
        if verdict.status is Status.TIME_LIMIT:
            left = len(missing(self.works, self.pilots, self.failed))
            raise UserError(
                f"the time of the job was used up, and {left} of its pilots are to be measured "
                "yet: call the same command again"
            )
        if verdict.signal is not None:
            raise Interrupted(verdict.signal)
        if work.key not in self.pilots:
            self.failed[work.key] = f"{work.key}: {verdict.message}; see {ended.log}"


def record_of(work: Work, verdict: Verdict, directory: Path) -> Pilot | None:
    """Pilot that a process leaves; None where it failed. directory: of its attempt. A part that is
    whole counts, however the process ended behind it."""
    values = read_object(directory / work.part)
    if values is None and verdict.status is not Status.OUT_OF_MEMORY:
        return None
    found = read_measurements(directory)
    rank = found.ranks[0] if found.ranks else {}
    about: dict[str, Any] = {
        "key": work.key,
        "trial": work.trial.to_json(),
        "store_checksum": work.store_checksum,
        "device_name": rank.get("device_name"),
        "cpu_model": rank.get("cpu_model"),
        "versions": found.versions,
        "measured_at": iso(time.time()),
    }
    if values is None:
        return Pilot(**about, status=Status.OUT_OF_MEMORY, reason=verdict.reason)
    return Pilot.from_json({**about, "status": Status.COMPLETED, **values})


def summary(record: Pilot) -> str:
    """Result of a pilot as one line for the log."""
    if record.status is Status.OUT_OF_MEMORY:
        return f"{record.status.words} ({record.reason.message if record.reason else ''})"
    if record.evaluation_s is not None and record.test_s is not None:
        return f"validation {duration(record.evaluation_s)}, test {duration(record.test_s)}"
    assert record.step_mean_s is not None
    return f"{significant(1000 * record.step_mean_s)} ms a micro-step of {record.micro_steps}"
