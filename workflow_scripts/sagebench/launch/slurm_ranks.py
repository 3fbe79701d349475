"""A trial's ranks as one job step of Slurm: srun starts them, in the container, over the nodes."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sagebench.cluster.commands import NoAnswer, ask
from sagebench.launch.processes import die_with_parent, tail
from sagebench.launch.rank_end import log_path, read_ends
from sagebench.launch.rank_group import RankGroup
from sagebench.launch.verdict import RankEnd

START_RANK = Path(__file__).resolve().parents[2] / "start_rank.py"
SEEN_AFTER_SUCCESS_S, SEEN_AFTER_FAILURE_S = 60.0, 10.0
"""how long it may take until what another node wrote is seen here; after a failure less, since a
rank whose node went has written nothing"""
OUT_OF_MEMORY_WORDS = ("oom_kill event", "oom-kill event", "out of memory")
"""what slurmstepd and srun say, in any case of letters"""
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


class SlurmRanks(RankGroup):
    """`with SlurmRanks(...) as ranks: ends = ranks.wait(...)`; leaving ends what still runs.

    command: what one rank runs, container and all. environment: of all ranks, whole. directory: for
    the ranks' logs and ends, and `srun.log`, what Slurm said. The ranks' numbers are Slurm's.
    """

    # srun ends a bad rank's peers itself; between SIGTERM and SIGKILL sites leave up to a minute.
    grace_after_failure_s = 90.0
    poll_s = 0.25
    steps_killed = 0  # of this process's job, for memory, as far as sacct was asked

    def __init__(
        self,
        command: list[str],
        environment: dict[str, str],
        directory: Path,
        place: Mapping[str, Any],
        site: Mapping[str, Any],
    ) -> None:
        super().__init__(directory)
        self.command = [
            *srun_command(place, site),
            *(sys.executable, str(START_RANK), "--directory", str(directory), "--", *command),
        ]
        self.environment = without_step(environment)
        self.count = place["nodes"] * place["ranks_per_node"]

    @property
    def srun_log(self) -> Path:
        return self.directory / "srun.log"

    def __enter__(self) -> SlurmRanks:
        with self.srun_log.open("wb") as log:
            log.write(f"{shlex.join(self.command)}\n".encode())
            log.flush()
            srun = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stderr=log,
                # A session of its own: Ctrl-C reaches the launcher, which ends the ranks.
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self.processes.append(srun)
        return self

    def killed_for_memory(self) -> bool:
        """By what Slurm said here, else by sacct, where it can tell already: by one more of the
        job's steps than were known to have ended so."""
        said = tail(self.srun_log).lower()
        if any(words in said for words in OUT_OF_MEMORY_WORDS):
            return True
        job = os.environ.get("SLURM_JOB_ID")
        try:
            states = ask(["sacct", "-n", "-P", "-j", str(job), "-o", "State"], SACCT_LIMIT_S)
        except NoAnswer:
            return False
        before, SlurmRanks.steps_killed = SlurmRanks.steps_killed, states.count("OUT_OF_ME")
        return SlurmRanks.steps_killed > before

    def _signal(self, process: subprocess.Popen[bytes], number: int) -> None:
        process.send_signal(number)  # srun kills its ranks at once when it is told to end

    def _codes(self) -> dict[int, int]:
        ends = read_ends(self.directory, self.count)
        return {end.rank: end.code for end in ends if end.code is not None}

    def _ends(self, stopped: bool) -> list[RankEnd]:
        if not stopped:
            failed = self.processes[0].returncode
            seen_s = SEEN_AFTER_FAILURE_S if failed else SEEN_AFTER_SUCCESS_S
            until = time.monotonic() + seen_s
            while len(self._codes()) < self.count and time.monotonic() < until:
                time.sleep(self.poll_s)
        return [
            replace(
                end,
                log_tail=tail(log_path(self.directory, end.rank) if end.told else self.srun_log),
                stopped=stopped and end.rank not in self.ended,
            )
            for end in read_ends(self.directory, self.count)
        ]
