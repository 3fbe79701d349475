"""The pilots of a study, one after the other, each in a process that is started as a trial's is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from sagebench.attempts import log_attempt
from sagebench.errors import UserError
from sagebench.files import read_object, write_json
from sagebench.grid.expansion import Study
from sagebench.grid.freeze import manifest_path
from sagebench.grid.resources import geometry
from sagebench.launch.attempt import CurrentAttempt, iso
from sagebench.launch.launcher import (
    Interrupted,
    handling_signals,
    interrupt,
    supervise,
    told_interrupted,
)
from sagebench.launch.locks import machine_alone, only_one
from sagebench.launch.start import ROOT, Job
from sagebench.launch.verdict import Verdict
from sagebench.launch.walltime import Walltime
from sagebench.pilot.records import (
    EVALUATION_PART,
    WINDOW_PART,
    Evaluation,
    EvaluationTimes,
    Measured,
    Pilot,
    Window,
    pilot_trial,
    pilots_folder,
    read_evaluations,
    read_pilots,
    write_record,
)
from sagebench.pilot.work import Work, configurations, missing
from sagebench.rank_records import read_measurements
from sagebench.records import Status
from sagebench.units import duration, significant

RANK_SCRIPT = ROOT / "workflow_scripts" / "pilot_rank.py"


@dataclass(frozen=True)
class End:
    """How a process ended. interrupted: the signal that ended it, if one did."""

    records: list[Measured]
    verdict: Verdict
    log: str
    interrupted: int | None


class Series:
    """A study's pilots. Every record is written once its process ends, and never measured again."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.by_slurm = study.site.launcher == "slurm"
        self.folder = pilots_folder(study.results, study.site.machine)
        self.wanted = configurations(study)
        self.failed: dict[str, str] = {}  # sentences by key
        self._read(warn=say)

    def run(self) -> int:
        """Measure what is missing. Returns 0 where all is there, 1 where not, and 128 and the
        signal's number where one ended it."""
        taken = 0
        try:
            while works := self.missing():
                taken += 1
                say(f"pilot {taken} of {taken - 1 + len(works)}: {works[0].name}")
                with handling_signals(interrupt):
                    end = self.measure(works[0])
                if end is not None and end.interrupted is not None:
                    return told_interrupted(end.interrupted)
        except Interrupted as interrupted:
            return told_interrupted(interrupted.number)
        for failure in self.failed.values():
            print(f"error: {failure}", file=sys.stderr)
        if self.failed:
            return 1
        count = len({one.pilot for one in self.wanted})
        say(f"{count} configuration{'s' if count > 1 else ''} measured: {self.folder}")
        return 0

    def missing(self) -> list[Work]:
        return missing(self.wanted, self.pilots, self.evaluations, self.failed)

    def measure(self, work: Work) -> End | None:
        """One process, and its records; None where another has measured them meanwhile.

        Raises UserError where no process can be started, or the time of the job is used up.
        """
        home = self.folder / work.name
        with ExitStack() as held:
            held.enter_context(only_one(home, wait=True))  # another's pilot takes a minute at most
            self._read()
            if work not in self.missing():
                return None
            if not self.by_slurm:
                held.enter_context(machine_alone())
            began = time.monotonic()
            end = self._measure_alone(work, home, held)
        self._read()
        for record in end.records:
            say(f"{record.key}: {told(record)}, in {duration(time.monotonic() - began)}")
        if end.verdict.status is Status.TIME_LIMIT:
            raise UserError(
                f"the time of the job was used up, and {len(self.missing())} of its pilots are to "
                "be measured yet: call the same command again"
            )
        if end.verdict.status is None and end.interrupted is None:
            measured = work.configuration
            whole = WINDOW_PART in work.parts and measured.pilot not in self.pilots
            key = measured.pilot if whole else measured.evaluation
            self.failed[key] = f"{key}: {end.verdict.message}; see {end.log}"
        return end

    def _measure_alone(self, work: Work, home: Path, held: ExitStack) -> End:
        walltime = Walltime.left_of_job(time.time())
        attempt = CurrentAttempt.begin(home, walltime.asked_s)
        job = self._job(work, attempt.directory / "trial.json")
        write_json(job.trial_path, job.trial.to_json())
        verdict, interrupted = supervise(job, attempt, walltime, held)
        records = records_of(work, verdict, attempt.directory)
        for record in records:
            write_record(self.folder, record)
        ended = attempt.ended(verdict, interrupted is not None)
        log_attempt(home, ended)
        return End(records, verdict, ended.log, interrupted)

    def _job(self, work: Work, trial_path: Path) -> Job:
        measured, site = work.configuration, self.study.site
        return Job(
            measured.trial,
            trial_path,
            Path(manifest_path(self.study.results, measured.store)).parent,
            self.folder / f"{work.name}.json",
            site.model_dump(mode="json"),
            asdict(geometry(1, site)),
            program=(str(RANK_SCRIPT), *(f"--part={part}" for part in work.parts)),
        )

    def _read(self, warn: Callable[[str], None] = lambda _: None) -> None:
        results, machine = self.study.results, self.study.site.machine
        self.pilots = read_pilots(results, machine, warn)
        self.evaluations = read_evaluations(results, machine, warn)


def records_of(work: Work, verdict: Verdict, directory: Path) -> list[Measured]:
    """What a process leaves. directory: of its attempt.

    The evaluation first: whoever is ended between the two measures a pilot once more, but no
    evaluation is left out. A part that is whole counts, however the process ended behind it.
    """
    measured, exhausted = work.configuration, verdict.status is Status.OUT_OF_MEMORY
    parts = {part: read_object(directory / part) for part in work.parts}
    found = read_measurements(directory)
    rank = found.ranks[0] if found.ranks else {}
    common = {
        "store_checksum": measured.store_checksum,
        "device_name": rank.get("device_name"),
        "cpu_model": rank.get("cpu_model"),
        "versions": found.versions,
        "measured_at": iso(time.time()),
    }
    ended = {"status": Status.OUT_OF_MEMORY, "reason": verdict.reason}
    completed = {"status": Status.COMPLETED}
    evaluation = {"key": measured.evaluation, "trial": measured.trial.to_json(), **common}
    pilot = {"key": measured.pilot, "trial": pilot_trial(measured.trial).to_json(), **common}
    records: list[Measured] = []
    if times := parts.get(EVALUATION_PART):
        times = vars(EvaluationTimes.from_json(times))
        records.append(Evaluation(**evaluation, **completed, **times))
    elif EVALUATION_PART in parts and exhausted and parts.get(WINDOW_PART, True):
        records.append(Evaluation(**evaluation, **ended))
    if window := parts.get(WINDOW_PART):
        records.append(Pilot(**pilot, **completed, **vars(Window.from_json(window))))
    elif WINDOW_PART in parts and exhausted:
        records.append(Pilot(**pilot, **ended))
    return records


def told(record: Measured) -> str:
    """What came of it, for people."""
    if record.status is Status.OUT_OF_MEMORY:
        return f"{record.status.words} ({record.reason.message if record.reason else ''})"
    if isinstance(record, Evaluation):
        return f"validation {duration(record.evaluation_s)}, test {duration(record.test_s)}"
    assert isinstance(record, Pilot)
    return f"{significant(1000 * record.step_mean_s)} ms a micro-step of {record.micro_steps}"


def say(text: str) -> None:
    print(text, flush=True)
