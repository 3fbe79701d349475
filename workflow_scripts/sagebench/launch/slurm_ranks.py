"""A trial's ranks as one job step of Slurm: srun starts them, in the container, over the nodes."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from sagebench.launch.processes import (
    GRACE_AFTER_SIGNAL_S,
    GRACE_AFTER_SUCCESS_S,
    GRACE_FOR_CHECKPOINT_S,
    die_with_parent,
    tail,
)
from sagebench.launch.rank_end import log_path, read_ends
from sagebench.launch.verdict import RankEnd

START_RANK = Path(__file__).resolve().parents[2] / "start_rank.py"
GRACE_AFTER_FAILURE_S = 90.0
"""srun ends a bad rank's peers itself; between SIGTERM and SIGKILL sites leave up to a minute"""
POLL_S = 0.25
SACCT_LIMIT_S = 30


def srun_command(place: Mapping[str, Any], site: Mapping[str, Any]) -> list[str]:
    """srun with the whole geometry: Snakemake's job step takes Slurm's own variables away.

    `place` is a Geometry as JSON, `site` the site. --overlap: a job of a single task already runs
    in a step of its own, which holds all that the job has.
    """
    nodes, ranks_per_node = place["nodes"], place["ranks_per_node"]
    memory = place["memory_mib_per_cpu"]
    return [
        "srun",
        f"--nodes={nodes}",
        f"--ntasks={nodes * ranks_per_node}",
        f"--ntasks-per-node={ranks_per_node}",
        f"--cpus-per-task={place['cpus_per_rank']}",
        *([f"--gres={site['gres']}:{place['devices_per_node']}"] if site["gres"] else []),
        *([f"--mem-per-cpu={memory}"] if memory else []),
        "--overlap",
        "--kill-on-bad-exit=1",
        "--export=ALL",
        *site["srun_options"],
    ]


def without_step(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what Slurm says of the step that this runs in, if it does: srun would
    take it for its own options, such as the CPUs to bind to."""
    kept = ("SLURM_CONF", "SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_JOBID")
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith("SLURM_") or name in kept
    }


class SlurmRanks:
    """`with SlurmRanks(...) as ranks: ends = ranks.wait(...)`; leaving ends what still runs.

    command: what one rank runs, container and all. environment: of all ranks, whole. directory: for
    the ranks' logs and ends, and `srun.log`, what Slurm said. The ranks' numbers are Slurm's.
    """

    def __init__(
        self,
        command: list[str],
        environment: dict[str, str],
        directory: Path,
        place: Mapping[str, Any],
        site: Mapping[str, Any],
        continues: bool = False,
    ) -> None:
        self.command = [
            *srun_command(place, site),
            *(sys.executable, str(START_RANK), "--directory", str(directory), "--", *command),
        ]
        self.environment = without_step(environment)
        self.directory = directory
        self.count = place["nodes"] * place["ranks_per_node"]
        self.continues = continues
        self.timed_out = False
        self.asked_to_stop: int | None = None  # the signal that `stop` was called with, if it was
        self._srun: subprocess.Popen[bytes] | None = None

    @property
    def srun_log(self) -> Path:
        return self.directory / "srun.log"

    def __enter__(self) -> SlurmRanks:
        with self.srun_log.open("wb") as log:
            log.write(f"{shlex.join(self.command)}\n".encode())
            log.flush()
            self._srun = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stderr=log,
                # A session of its own: Ctrl-C reaches the launcher, which ends the ranks.
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def stop(self, signal_number: int) -> None:
        """Ask the ranks to end; `wait` returns once they have. For a signal handler."""
        self.asked_to_stop = signal_number

    def wait(self, until_unix_s: float | None = None) -> list[RankEnd]:
        """Wait for all ranks; once one has ended, for the others only for a while.

        until_unix_s: when to end ranks that have not ended by themselves; `timed_out` then tells.
        """
        assert self._srun is not None
        give_up = until_unix_s or float("inf")
        told_to_stop = one_has_ended = False
        while self._srun.poll() is None:
            if not one_has_ended and (ended := self._ended()):
                one_has_ended = True
                failed = any(end.code for end in ended)
                grace = GRACE_AFTER_FAILURE_S if failed else GRACE_AFTER_SUCCESS_S
                give_up = min(give_up, time.time() + grace)
            if self.asked_to_stop is not None and not told_to_stop:
                if not self.continues:
                    break
                told_to_stop = True
                self._srun.send_signal(signal.SIGUSR1)  # srun hands it on to the ranks
                give_up = min(give_up, time.time() + GRACE_FOR_CHECKPOINT_S)
            if time.time() > give_up:
                break
            time.sleep(POLL_S)
        stopped = self._srun.poll() is None
        ended_before = {end.rank for end in self._ended()}
        self.timed_out = stopped and until_unix_s is not None and time.time() > until_unix_s
        self._end()
        return [
            replace(
                end,
                log_tail=tail(log_path(self.directory, end.rank) if end.told else self.srun_log),
                stopped=stopped and end.rank not in ended_before,
            )
            for end in read_ends(self.directory, self.count)
        ]

    def out_of_memory_kills(self) -> int:
        """Steps of this job that Slurm ended for their memory, by sacct; 0 where it cannot tell."""
        job = os.environ.get("SLURM_JOB_ID")
        try:
            said = subprocess.run(
                ["sacct", "-n", "-P", "-j", str(job), "-o", "State"],
                capture_output=True,
                text=True,
                timeout=SACCT_LIMIT_S,
            ).stdout
        except (OSError, subprocess.TimeoutExpired):
            return 0
        return sum(state.startswith("OUT_OF_ME") for state in said.split())

    def _ended(self) -> list[RankEnd]:
        return [end for end in read_ends(self.directory, self.count) if end.told]

    def _end(self) -> None:
        """SIGTERM to srun, which hands it on to the ranks, then SIGKILL."""
        assert self._srun is not None
        for number, wait_s in ((signal.SIGTERM, GRACE_AFTER_SIGNAL_S), (signal.SIGKILL, None)):
            if self._srun.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    self._srun.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._srun.wait(wait_s)
