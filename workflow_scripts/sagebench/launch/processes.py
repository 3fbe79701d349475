"""The ranks' processes on this machine: started together, and none outlives the others."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from sagebench.launch.verdict import RankEnd

POLL_S = 0.05
GRACE_AFTER_FAILURE_S = 5.0
GRACE_AFTER_SUCCESS_S = 120.0
GRACE_AFTER_SIGNAL_S = 10.0
GRACE_FOR_CHECKPOINT_S = 25.0
"""of the 30 s that Slurm leaves by default between SIGTERM and SIGKILL"""
LOG_TAIL_BYTES = 20_000
PR_SET_PDEATHSIG = 1


class Ranks:
    """`with Ranks(...) as ranks: ends = ranks.wait(...)`; leaving ends what still runs.

    command: what one rank runs. environments: one a rank. directory: for `rank-N.log`; rank 0's
    output is also copied to this process's standard output. continues: ranks that are asked to
    stop may first write a checkpoint.
    """

    def __init__(
        self,
        command: list[str],
        environments: list[dict[str, str]],
        directory: Path,
        continues: bool = False,
    ) -> None:
        self.command = command
        self.environments = environments
        self.directory = directory
        self.continues = continues
        self.processes: list[subprocess.Popen[bytes]] = []
        self.timed_out = False
        self._copier: threading.Thread | None = None
        self._oom_kills_before = oom_kills()
        self.asked_to_stop: int | None = None  # the signal that `stop` was called with, if it was

    def log_path(self, rank: int) -> Path:
        return self.directory / f"rank-{rank}.log"

    def __enter__(self) -> Ranks:
        for rank, environment in enumerate(self.environments):
            first = rank == 0
            with self.log_path(rank).open("wb") as log:
                process = subprocess.Popen(
                    self.command,
                    env={**os.environ, **environment},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE if first else log,
                    stderr=subprocess.STDOUT,
                    # A session of its own: Ctrl-C reaches the launcher, which ends the ranks.
                    start_new_session=True,
                    preexec_fn=die_with_parent,
                )
            self.processes.append(process)
        assert self.processes[0].stdout is not None
        self._copier = threading.Thread(
            target=copy_output, args=(self.processes[0].stdout, self.log_path(0)), daemon=True
        )
        self._copier.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end_all()

    def stop(self, signal_number: int) -> None:
        """Ask the ranks to end; `wait` returns once they have. For a signal handler."""
        self.asked_to_stop = signal_number

    def wait(self, until_unix_s: float | None = None) -> list[RankEnd]:
        """Wait for all ranks; once one fails, for the others only for seconds.

        until_unix_s: when to end ranks that have not ended by themselves; `timed_out` then tells.
        """
        order: dict[int, int] = {}
        give_up = until_unix_s
        told_to_stop = False
        while len(order) < len(self.processes):
            for rank, process in enumerate(self.processes):
                if rank in order or process.poll() is None:
                    continue
                order[rank] = len(order)
                failed = process.returncode != 0
                grace = GRACE_AFTER_FAILURE_S if failed else GRACE_AFTER_SUCCESS_S
                give_up = min(give_up or float("inf"), time.time() + grace)
            if self.asked_to_stop is not None and not told_to_stop:
                if not self.continues:
                    break
                told_to_stop = True
                self._signal_all(signal.SIGUSR1)
                give_up = min(give_up or float("inf"), time.time() + GRACE_FOR_CHECKPOINT_S)
            if give_up and time.time() > give_up:
                break
            time.sleep(POLL_S)
        stopped = set(range(len(self.processes))) - set(order)
        self.timed_out = bool(stopped) and until_unix_s is not None and time.time() > until_unix_s
        self._end_all()
        if self._copier is not None:
            self._copier.join(timeout=GRACE_AFTER_SIGNAL_S)
        return [
            RankEnd(
                rank=rank,
                code=process.returncode,
                order=order.get(rank, len(self.processes)),
                log_tail=tail(self.log_path(rank)),
                stopped=rank in stopped,
            )
            for rank, process in enumerate(self.processes)
        ]

    def out_of_memory_kills(self) -> int:
        """How often the kernel's out-of-memory killer has struck since these ranks were made."""
        return oom_kills() - self._oom_kills_before

    def _end_all(self) -> None:
        """SIGTERM, then SIGKILL, to every rank that still runs."""
        for number, wait_s in ((signal.SIGTERM, GRACE_AFTER_SIGNAL_S), (signal.SIGKILL, None)):
            running = self._signal_all(number)
            deadline = None if wait_s is None else time.monotonic() + wait_s
            for process in running:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(left)

    def _signal_all(self, number: int) -> list[subprocess.Popen[bytes]]:
        """Signal every rank that still runs; returns those."""
        running = [process for process in self.processes if process.poll() is None]
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        return running


def oom_kills() -> int:
    """How often the kernel's out-of-memory killer struck in this process's cgroup (version 2)."""
    try:
        group = Path("/proc/self/cgroup").read_text().strip().splitlines()[-1].split(":", 2)[2]
        events = Path(f"/sys/fs/cgroup{group}/memory.events").read_text()
    except (OSError, IndexError):
        return 0
    return sum(int(line.split()[1]) for line in events.splitlines() if line.startswith("oom_kill "))


def die_with_parent() -> None:
    """In the child before exec: end with the launcher, even if that is killed outright."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def copy_output(source: BinaryIO, path: Path) -> None:
    """Write all that comes from `source` to `path` and to standard output, as it comes."""
    with path.open("wb", buffering=0) as log:
        while chunk := source.read1(65536):  # type: ignore[attr-defined]
            # On a full disk, too: a rank whose output nobody takes would wait for ever.
            with contextlib.suppress(OSError):
                log.write(chunk)
            # Whoever reads our output may be gone; the trial goes on, its log is the file.
            with contextlib.suppress(OSError):
                sys.stdout.buffer.write(chunk)
                sys.stdout.flush()


def tail(path: Path) -> str:
    """The end of a log; nothing where there is none."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
        return file.read().decode(errors="replace")
