"""All ranks of a trial: started as processes here, or by srun in the site's container; waited for,
and ended together."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, ClassVar

from sagebench.files import tail
from sagebench.launch.container import ROOT, container_command, loaded_environment
from sagebench.launch.ends import RankEnd, die_with_parent, log_path, read_ends
from sagebench.measure.allocator import allocator_environment
from sagebench.slurm.commands import NoAnswer, ask, srun_command, without_step

RANK_SCRIPT = ROOT / "workflow_scripts" / "rank.py"
SUPERVISOR = (sys.executable, str(RANK_SCRIPT), "start")
"""before a rank's own command: logs the rank, and notes how it ended"""
GRACE_AFTER_SUCCESS_S = 120.0
GRACE_AFTER_SIGNAL_S = 10.0
OUT_OF_MEMORY_WORDS = ("oom_kill event", "oom-kill event", "out of memory")
"""what slurmstepd and srun say, in any case of letters"""
SACCT_LIMIT_S = 30
CPU_HEAP = {
    # Freed memory stays in the process, however much it is: fresh pages cost more than the work
    # done in them.
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_MMAP_MAX_": "0",
    # No cache of small chunks, which would lie between freed tensors and keep them from being
    # joined: a rank's heap would grow up to twice as large, and by another amount in every process.
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",
}
"""of ranks whose tensors lie on the heap; on a GPU's the small objects of every step alone do, and
would come without their cache"""


@dataclass
class Ranks(ABC):
    """`with ... as ranks: ends = ranks.wait(...)`; leaving ends what still runs.

    command: what one rank runs, container and all. environment: of all ranks, whole. processes:
    what was started here: a supervisor a rank, or srun, which starts those.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    directory: Path
    count: int
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    timed_out: bool = False
    ended: list[int] = field(default_factory=list)  # ranks, in the order of their ends
    asked_to_stop: int | None = None  # the signal that `stop` was called with, if it was

    grace_after_failure_s: ClassVar[float]
    poll_s: ClassVar[float]
    # How long it may take until what another node wrote is seen here; after a failure less, since
    # a rank whose node went has written nothing.
    seen_after_success_s: ClassVar[float] = 0.0
    seen_after_failure_s: ClassVar[float] = 0.0

    @abstractmethod
    def __enter__(self) -> Ranks: ...

    def __exit__(self, *_: object) -> None:
        self._end_all()

    @abstractmethod
    def killed_for_memory(self) -> bool:
        """Whether the kernel or Slurm ended any of the ranks for its memory."""

    def stop(self, signal_number: int) -> None:
        """Ask the ranks to end; `wait` returns once they have. For a signal handler."""
        self.asked_to_stop = signal_number

    def wait(self, until_unix_s: float | None = None) -> list[RankEnd]:
        """Wait for all ranks; once one has ended, for the others only for a while.

        until_unix_s: when to end ranks that have not ended by themselves; `timed_out` then tells.
        """
        give_up = until_unix_s or float("inf")
        while self._running() and self.asked_to_stop is None:
            for end in self._newly_ended():
                grace = self.grace_after_failure_s if end.code else GRACE_AFTER_SUCCESS_S
                give_up = min(give_up, time.time() + grace)
            if time.time() > give_up:
                break
            time.sleep(self.poll_s)
        self._newly_ended()
        stopped = bool(self._running())
        self.timed_out = stopped and until_unix_s is not None and time.time() > until_unix_s
        self._end_all()
        if not stopped:
            failed = any(process.returncode for process in self.processes)
            seen_s = self.seen_after_failure_s if failed else self.seen_after_success_s
            until = time.monotonic() + seen_s
            while not all(end.has_exit_record for end in self._ends()) and time.monotonic() < until:
                time.sleep(self.poll_s)
        return [
            replace(end, log_tail=tail(log), stopped=stopped and end.rank not in self.ended)
            for end in self._ends()
            for log in [
                log_path(self.directory, end.rank) if end.has_exit_record else self.srun_log
            ]
        ]

    @property
    def srun_log(self) -> Path:
        """Messages of srun."""
        return self.directory / "srun.log"

    def _start(
        self, command: Sequence[str], environment: Mapping[str, str], log: IO[bytes] | None = None
    ) -> None:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=log,
            # A session of its own: Ctrl-C reaches the launcher, which ends the ranks.
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        self.processes.append(process)

    def _ends(self) -> list[RankEnd]:
        """Ends of the ranks, as far as noted."""
        return read_ends(self.directory, self.count)

    def _newly_ended(self) -> list[RankEnd]:
        """Ranks that have ended since this was called before."""
        new = [end for end in self._ends() if end.has_exit_record and end.rank not in self.ended]
        self.ended += [end.rank for end in new]
        return new

    def _running(self) -> list[subprocess.Popen[bytes]]:
        return [process for process in self.processes if process.poll() is None]

    def _end_all(self) -> None:
        """SIGTERM, then SIGKILL, to every process that still runs."""
        for number, grace_s in (
            (signal.SIGTERM, GRACE_AFTER_SIGNAL_S),
            (signal.SIGKILL, float("inf")),
        ):
            running, until = self._running(), time.monotonic() + grace_s
            for process in running:
                with contextlib.suppress(ProcessLookupError):
                    self._signal(process, number)
            for process in running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, until - time.monotonic()))

    @abstractmethod
    def _signal(self, process: subprocess.Popen[bytes], number: int) -> None: ...


class LocalRanks(Ranks):
    """Ranks as processes of this machine."""

    grace_after_failure_s = 5.0
    poll_s = 0.05

    def __enter__(self) -> LocalRanks:
        self._oom_kills_before = oom_kills()
        for rank in range(self.count):
            self._start(
                [
                    *SUPERVISOR,
                    f"--directory={self.directory}",
                    f"--rank={rank}",
                    "--",
                    *self.command,
                ],
                {**self.environment, **local_environment(self.count, rank)},
            )
        return self

    def killed_for_memory(self) -> bool:
        """Whether the kernel's out-of-memory killer has struck since these ranks were started."""
        return oom_kills() > self._oom_kills_before

    def _ends(self) -> list[RankEnd]:
        """A rank whose supervisor was killed, or found no room on the disk, has a code too."""
        codes = [process.poll() for process in self.processes]  # first: the note precedes the end
        return [
            end if end.has_exit_record else replace(end, code=code)
            for end, code in zip(super()._ends(), codes, strict=True)
        ]

    def _signal(self, process: subprocess.Popen[bytes], number: int) -> None:
        os.killpg(process.pid, number)


class SlurmRanks(Ranks):
    """Ranks as one job step of Slurm: srun starts them over the nodes, and numbers them. command:
    srun's whole."""

    # srun ends a bad rank's peers itself; between SIGTERM and SIGKILL sites leave up to a minute.
    grace_after_failure_s = 90.0
    poll_s = 0.25
    seen_after_success_s, seen_after_failure_s = 60.0, 10.0
    steps_killed = 0  # of this process's job, for memory, as far as sacct was asked

    def __enter__(self) -> SlurmRanks:
        with self.srun_log.open("wb") as log:
            log.write(f"{shlex.join(self.command)}\n".encode())
            log.flush()
            self._start(self.command, self.environment, log)
        return self

    def killed_for_memory(self) -> bool:
        """Whether the step was killed for memory, by srun's messages, else by sacct, if it already
        knows: one more of the job's steps than were known to have ended so."""
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


def rank_group(
    arguments: Sequence[str],
    variables: Mapping[str, str],
    directory: Path,
    folders: Sequence[Path],
    site: Mapping[str, Any],
    place: Mapping[str, Any],
) -> Ranks:
    """Ranks that run Python with `arguments`, in the site's container where it has one.

    variables: of their environment, over what the site's modules make of this one, and under the
    site's own. directory: for logs and ends. folders: what the container shows besides the binds;
    the first is where results lie. Raises UserError where modules or binds are not there.
    """
    command, by_slurm = [sys.executable, *arguments], site["launcher"] == "slurm"
    own = loaded_environment(site["modules"]) if by_slurm else os.environ
    environment = {**own, **variables, **site["environment"]}
    if site["device"] == "cuda":
        environment |= allocator_environment(environment, site["expandable_segments"])
    if not by_slurm:
        return LocalRanks(command, environment, directory, place["ranks_per_node"])
    if site["image"] is not None:
        # Where the files really lie: links may lead out of what is bound.
        seen = {ROOT, Path.cwd(), *(path.resolve() for path in folders)}
        command = container_command(site, ["python", *arguments], sorted(seen))
        # The image's Python keeps its compiled kernels apart from the node's, which may differ.
        environment["NUMBA_CACHE_DIR"] = str(folders[0].resolve() / "cache" / "numba")
    supervised = [*SUPERVISOR, f"--directory={directory}", "--", *command]
    count = place["nodes"] * place["ranks_per_node"]
    command = [*srun_command(place, site), *supervised]
    return SlurmRanks(command, without_step(environment), directory, count)


def shared_environment(
    device: str, threads: int, directory: Path, started_at_unix_s: float
) -> dict[str, str]:
    """Environment of every rank, on any node, with its settings of allocator and threads. The ranks
    rendezvous at a file in `directory`, which all nodes see."""
    return {
        "SAGEBENCH_RENDEZVOUS": str(directory.resolve() / "rendezvous.json"),
        "SAGEBENCH_STARTED_AT": repr(started_at_unix_s),
        "SAGEBENCH_LOAD_1M": repr(os.getloadavg()[0]),
        "OMP_NUM_THREADS": str(threads),
        # Compute threads that wait sleep: spinning, they take the cores from the sampler's threads,
        # and an epoch on a machine with as many threads as cores takes ten times as long.
        "OMP_WAIT_POLICY": "passive",
        "PYTHONUNBUFFERED": "1",
        **(CPU_HEAP if device == "cpu" else {}),
    }


def local_environment(ranks: int, rank: int) -> dict[str, str]:
    """Rank variables of a local rank; under srun Slurm's own take their place."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(ranks),
        "GLOO_SOCKET_IFNAME": "lo",
    }


def oom_kills() -> int:
    """Kills by the kernel's out-of-memory killer in this process's cgroup (version 2)."""
    try:
        group = Path("/proc/self/cgroup").read_text().strip().splitlines()[-1].split(":", 2)[2]
        events = Path(f"/sys/fs/cgroup{group}/memory.events").read_text()
    except (OSError, IndexError):
        return 0
    return sum(int(line.split()[1]) for line in events.splitlines() if line.startswith("oom_kill "))
