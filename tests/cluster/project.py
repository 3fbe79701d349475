"""A checkout whose studies run on the test cluster, and the eyes and hands of its tests.

Every wait has a limit, and one that is reached fails the test: a hang is a failure.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

ROOT = Path(__file__).resolve().parents[2]
SNAKEMAKE = Path(__file__).with_name("impatient.py")
RUN_LIMIT_S = 1200
DEMO = "config/testbed.yaml"
POLL_S = 0.2

# 18,217 training nodes in 9 steps of one rank: an epoch takes a second, the start of a trial more.
TINY = {
    "study": "tiny",
    "dataset": {"name": "pubmed", "source": "pubmed", "split": "large"},
    "defaults": {
        "layers": 2, "fanout": [3, 2], "hidden_channels": 16, "batch_size": 2048,
        "accumulation": 1, "epochs": 2, "learning_rate_scaling": "none", "sampling_workers": 0,
        "phase_window_steps": 2, "walltime_min": 5,
    },
    "experiments": {"scaling": {"axis": "ranks", "product": {"ranks": [1]}}},
}  # fmt: skip

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """One Slurm job of a project, as sacct tells. state: one word, e.g. COMPLETED."""

    id: str
    rule: str
    partition: str
    state: str
    nodes: str


class Project:
    """A clone of this checkout with its uncommitted changes; `with` or `close` ends its jobs.

    prepared: a project to take the graph stores from.
    """

    def __init__(self, folder: Path, prepared: Project | None = None) -> None:
        self.folder = folder
        self.runs: list[Run] = []
        _clone(folder)
        self._site_text = self._site_file.read_text()
        self.configure(TINY)
        if prepared is not None:
            shutil.copytree(prepared.results / "stores", self.results / "stores")

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def trials(self) -> Path:
        return self.results / "trials"

    @property
    def site(self) -> dict[str, Any]:
        return yaml.safe_load(self._site_file.read_text())

    @property
    def _site_file(self) -> Path:
        return self.folder / "profiles/testbed/site.yaml"

    def configure(self, values: dict[str, Any]) -> None:
        """Write the study's configuration, study.yaml."""
        (self.folder / "study.yaml").write_text(yaml.safe_dump(values, sort_keys=False))

    def change_site(self, **values: Any) -> None:
        """Change keys of this project's profiles/testbed/site.yaml."""
        self._site_file.write_text(yaml.safe_dump({**self.site, **values}))

    def forget(self) -> None:
        """As if nothing had run here; the stores stay, and what the ranks compiled."""
        self.close()
        self._site_file.write_text(self._site_text)
        for folder in (self.trials, self.folder / ".snakemake" / "slurm_logs"):
            shutil.rmtree(folder, ignore_errors=True)

    def start(
        self,
        *arguments: str,
        configfile: str = "study.yaml",
        environment: dict[str, str] | None = None,
    ) -> Run:
        """Call Snakemake with the test cluster's profile, and do not wait for its end."""
        words = [sys.executable, str(SNAKEMAKE), *arguments, "--profile", "profiles/testbed"]
        words += ["--configfile", configfile]
        self.runs.append(Run(self.folder, words, {**os.environ, **(environment or {})}))
        return self.runs[-1]

    def finish(self, *arguments: str, limit_s: float = RUN_LIMIT_S, **options: Any) -> Run:
        """Call Snakemake and wait for its end, whatever that is."""
        run = self.start(*arguments, **options)
        run.wait(limit_s)
        return run

    def run(self, *arguments: str, limit_s: float = RUN_LIMIT_S, **options: Any) -> Run:
        """Call Snakemake, which has to succeed."""
        run = self.finish(*arguments, limit_s=limit_s, **options)
        assert run.returncode == 0, f"exit code {run.returncode}:\n{run.said}\n{self.logs()}"
        return run

    def outcomes(self) -> dict[str, dict[str, Any]]:
        """The outcomes that are there, by the trial's id."""
        paths = sorted(self.trials.glob("*/outcome.json"))
        return {path.parent.name: json.loads(path.read_text()) for path in paths}

    def outcome(self, **values: Any) -> dict[str, Any]:
        """The one outcome whose trial has these values."""
        found = [
            outcome
            for outcome in self.outcomes().values()
            if all(outcome["trial"][name] == value for name, value in values.items())
        ]
        assert len(found) == 1, f"{len(found)} outcomes with {values}"
        return found[0]

    def attempts(self, trial_id: str) -> list[dict[str, Any]]:
        """The lines of a trial's attempts.jsonl."""
        path = self.trials / trial_id / "attempts.jsonl"
        return [json.loads(line) for line in path.open()] if path.exists() else []

    def trained(self, pattern: str = "*", attempt: int = 1) -> Path | None:
        """The folder of that attempt at a trial whose id matches, once it has done an epoch."""
        for path in self.trials.glob(f"{pattern}/attempts/{attempt}/measured.json"):
            if json.loads(path.read_text())["epochs"]:
                return path.parent
        return None

    def wait_for_epoch(self, pattern: str = "*", attempt: int = 1, limit_s: float = 120) -> Path:
        """`trained`, waited for."""
        return wait_for(f"an epoch of {pattern}", lambda: self.trained(pattern, attempt), limit_s)

    def log(self, pattern: str = "*") -> str:
        """The log of the one trial whose id matches."""
        (path,) = self.trials.glob(f"{pattern}/log.txt")
        return path.read_text(errors="replace")

    def slurm_logs(self) -> str:
        """What all jobs said, also what their own logs could not take."""
        paths = sorted(self.folder.glob(".snakemake/slurm_logs/**/*.log"))
        return "\n".join(path.read_text(errors="replace") for path in paths)

    def jobs(self) -> list[Job]:
        """All Slurm jobs that were submitted for this project, in their order."""
        logs = self.folder.glob(".snakemake/slurm_logs/rule_*/**/*.log")
        rules = {path.stem: path.relative_to(self.folder).parts[2] for path in logs}
        if not rules:
            return []
        fields = "JobID,Partition,State,NodeList"
        said = slurm("sacct", "-X", "-n", "-P", "-j", ",".join(rules), "-o", fields)
        rows = [line.split("|") for line in said.splitlines()]
        return [
            Job(row[0], rules[row[0]].removeprefix("rule_"), row[1], row[2].split()[0], row[3])
            for row in sorted(rows, key=lambda row: int(row[0]))
        ]

    def waiting_or_running(self) -> list[str]:
        """The ids of this project's jobs that have not ended."""
        rows = [line.split("\t") for line in slurm("squeue", "-h", "-o", "%i\t%Z").splitlines()]
        return [job for job, folder in rows if Path(folder) == self.folder]

    def logs(self) -> str:
        """What the trials' logs end with, for the message of a failed test."""
        paths = sorted(self.trials.glob("*/log.txt"))
        return "\n".join(f"{path}:\n{path.read_text()[-1500:]}" for path in paths)

    def close(self) -> None:
        """End what still runs: Snakemake and the jobs."""
        for run in self.runs:
            run.kill()
        if jobs := self.waiting_or_running():
            slurm("scancel", *jobs)
            wait_for("the end of the jobs", lambda: not self.waiting_or_running(), 120)

    def __enter__(self) -> Project:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Run:
    """One call of Snakemake, in a session of its own. said: what it printed, both streams."""

    def __init__(self, folder: Path, words: Sequence[str], environment: dict[str, str]) -> None:
        self._log = folder / f"run-{time.time_ns()}.txt"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                words,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def returncode(self) -> int | None:
        return self.process.poll()

    def wait(self, limit_s: float = RUN_LIMIT_S) -> int:
        """The exit code; fails where the end does not come in time."""
        try:
            return self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"no end within {limit_s} s:\n{self.said}") from None

    def kill(self) -> None:
        """SIGKILL to Snakemake and what it started here; its jobs go on."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def wait_for(what: str, look: Callable[[], T], limit_s: float) -> T:
    """The first true value of `look()`; fails after `limit_s`."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        if found := look():
            return found
        time.sleep(POLL_S)
    raise AssertionError(f"{what}: not within {limit_s:.0f} s")


def command(words: Sequence[str | Path], limit_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a command; stdout holds what it said on both streams."""
    return subprocess.run(
        [str(word) for word in words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit_s,
    )


def slurm(*words: str) -> str:
    """What a command of Slurm's prints; fails where that fails."""
    done = command(words)
    assert done.returncode == 0, f"{' '.join(words)}:\n{done.stdout}"
    return done.stdout


def _clone(folder: Path) -> None:
    """Clone this checkout, and copy what is not committed over it."""
    command(["git", "clone", "--quiet", ROOT, folder]).check_returncode()
    names = ["git", "-C", ROOT, "ls-files", "-z", "--modified", "--others", "--exclude-standard"]
    for name in command(names).stdout.split("\0"):
        source, copy = ROOT / name, folder / name
        if not name:
            continue
        if source.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy)
        else:
            copy.unlink(missing_ok=True)
