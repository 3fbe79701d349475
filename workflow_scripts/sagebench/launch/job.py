"""A trial to run: its files and its site, its walltime, and what must not run beside it."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sagebench import registry
from sagebench.errors import UserError
from sagebench.files import hold, read_json
from sagebench.grid.trial import Trial, read_trial
from sagebench.launch.container import ROOT
from sagebench.measure.allocator import expandable_segments
from sagebench.slurm.commands import NoAnswer, ask

TRAINING_SCRIPT = ROOT / "workflow_scripts" / "train_graphsage_ddp.py"

MARGIN = 0.05
MARGIN_MAX_S = 60.0
"""share of the walltime, up to a minute, that is left for writing the outcome"""
HAND_BACK_S = 10.0
"""what the job needs after the trial: a job that Slurm ends has failed, with an outcome or not"""
SCONTROL_LIMIT_S = 30


@dataclass(frozen=True)
class Job:
    """A trial to run: its files, and how the study's site starts its ranks.

    site, place: the site and the trial's geometry, as JSON. continues: past its walltime it goes
    on in another job. runtime_predicted: its walltime may be shorter than the study's
    `walltime_min`. program: the script that a rank runs, and its own options.
    """

    trial: Trial
    trial_path: Path
    store: Path
    outcome_path: Path
    site: Mapping[str, Any]
    place: Mapping[str, Any]
    continues: bool = False
    walltime_min: int | None = None
    runtime_predicted: bool = False
    program: tuple[str, ...] = (str(TRAINING_SCRIPT),)

    @classmethod
    def read(cls, trial_path: Path, store: Path, outcome_path: Path, study: Path | None) -> Job:
        """study: the frozen one, whose plug-ins are used; None: the ranks are processes here.
        Raises UserError where it does not ask for the trial."""
        frozen = None if study is None else read_json(study)
        if frozen is not None:
            registry.use(frozen.get("plugins", []))
        trial = read_trial(trial_path)
        files = trial, trial_path, store, outcome_path
        if frozen is None:
            return cls(*files, local_site(trial.device), {"ranks_per_node": trial.ranks})
        request = frozen["requests"].get(trial.id)
        if request is None:
            raise UserError(
                f"{trial.id} is no trial of the study in {study}: give --study another one"
            )
        walltime = request["continues"], request["walltime_min"], "runtime_min" in request
        return cls(*files, frozen["site"], frozen["places"][str(trial.ranks)], *walltime)

    @property
    def home(self) -> Path:
        """The trial's folder."""
        return self.outcome_path.parent

    @property
    def checkpoint(self) -> Path:
        return self.home / "checkpoint.pt"

    @property
    def by_slurm(self) -> bool:
        return self.site["launcher"] == "slurm"

    @property
    def expandable_segments(self) -> bool | None:
        """Whether the ranks take their GPU's memory in such; None: they have no GPU."""
        if self.trial.device != "cuda":
            return None
        environment = {**os.environ, **self.site["environment"]}
        return expandable_segments(environment, self.site["expandable_segments"])


def local_site(device: str) -> dict[str, Any]:
    """A site that asks for nothing of its own."""
    return {"launcher": "local", "device": device, "environment": {}, "expandable_segments": False}


@dataclass(frozen=True)
class Walltime:
    """asked_s: what the trial was given; None: no limit. end_unix_s: when it is used up."""

    asked_s: float | None
    end_unix_s: float | None

    @classmethod
    def of_job(cls, asked_s: float | None, started_at_unix_s: float) -> Walltime:
        """Walltime from the trial's start, cut to the end of its Slurm job, which began earlier."""
        if asked_s is None:
            return cls(None, None)
        end = started_at_unix_s + asked_s
        return cls(asked_s, min(end, slurm_job_end_unix_s() or end))

    @property
    def deadline_unix_s(self) -> float | None:
        """When the ranks stop by themselves."""
        return self._before_end(1.0)

    @property
    def last_resort_unix_s(self) -> float | None:
        """When ranks that did not look at the clock are ended."""
        return self._before_end(0.5)

    def _before_end(self, margins: float) -> float | None:
        if self.asked_s is None or self.end_unix_s is None:
            return None
        return self.end_unix_s - margins * min(MARGIN_MAX_S, MARGIN * self.asked_s)


def slurm_job_end_unix_s() -> float | None:
    """When a trial has to be done in the Slurm job that this process runs in; None outside of one,
    or of one without a limit."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return None
    try:
        said = ask(["scontrol", "show", "job", "--oneliner", job], SCONTROL_LIMIT_S)
        end = datetime.fromisoformat(re.findall(r" EndTime=(\S+)", said)[0])
    except (NoAnswer, IndexError, ValueError):
        return None
    return end.replace(tzinfo=timezone.utc).timestamp() - HAND_BACK_S


@contextmanager
def trial_lock(home: Path, wait: bool) -> Iterator[None]:
    """Hold the lock of a trial or a pilot, by its folder; its file says who holds it.

    wait: until whoever holds it lets go; else that is a UserError.
    """
    home.mkdir(parents=True, exist_ok=True)
    path = home / ".lock"
    holder = path.read_text(errors="replace").strip() if path.exists() else ""
    running = f"{home.name} is being run already ({holder or 'by another process'})"
    job = os.environ.get("SLURM_JOB_ID")
    name = f"process {os.getpid()} on {os.uname().nodename}" + (f", job {job}" if job else "")
    with ExitStack() as held:
        try:
            waiting = f"{running}: waiting for its end" if wait else None
            lock = held.enter_context(hold(path, waiting))
            with contextlib.suppress(OSError):  # a full disk
                os.ftruncate(lock, 0)
                os.pwrite(lock, name.encode(), 0)
        except BlockingIOError:
            raise UserError(f"{running}: wait for that run, or stop it") from None
        except OSError as error:  # some parallel file systems are mounted without locks
            print(
                f"{home} cannot be locked ({error.strerror}): run nothing beside", file=sys.stderr
            )
        yield


def machine_lock() -> AbstractContextManager[int]:
    """Wait until no other trial runs on this machine, whoever started it: it would be timed too."""
    path = Path(tempfile.gettempdir(), "sagebench-machine.lock")
    with contextlib.suppress(FileExistsError):
        path.touch(exist_ok=False)
        path.chmod(0o644)  # whatever the umask is
    if not os.access(path, os.R_OK):
        raise UserError(
            f"{path} keeps trials of several users apart and is not readable: ask its owner to "
            "remove it"
        )
    # Read only: the file may be another user's.
    return hold(path, "waiting for another trial on this machine to end", flags=os.O_RDONLY)
