"""All ranks of a trial, however they are started: waiting for them, none outlives another."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import ClassVar

from sagebench.launch.verdict import RankEnd

GRACE_AFTER_SUCCESS_S = 120.0
GRACE_AFTER_SIGNAL_S = 10.0


class RankGroup(ABC):
    """`with ... as ranks: ends = ranks.wait(...)`; leaving ends what still runs.

    directory: for `rank-N.log`. processes: what was started here, ranks or srun.
    """

    grace_after_failure_s: ClassVar[float]
    poll_s: ClassVar[float]

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processes: list[subprocess.Popen[bytes]] = []
        self.timed_out = False
        self.ended: list[int] = []  # ranks, in the order of their ends
        self.asked_to_stop: int | None = None  # the signal that `stop` was called with, if it was

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
        """Wait for all ranks; once one has ended, for the others only for a while.

        until_unix_s: when to end ranks that have not ended by themselves; `timed_out` then tells.
        """
        give_up = until_unix_s or float("inf")
        while self._running() and self.asked_to_stop is None:
            for code in self._newly_ended():
                grace = self.grace_after_failure_s if code else GRACE_AFTER_SUCCESS_S
                give_up = min(give_up, time.time() + grace)
            if time.time() > give_up:
                break
            time.sleep(self.poll_s)
        self._newly_ended()
        stopped = self._running()
        self.timed_out = stopped and until_unix_s is not None and time.time() > until_unix_s
        self._end_all()
        return self._ends(stopped)

    def _newly_ended(self) -> list[int]:
        """The exit codes of those that have ended since this was called before."""
        codes = self._codes()
        new = [rank for rank in codes if rank not in self.ended]
        self.ended += new
        return [codes[rank] for rank in new]

    @abstractmethod
    def killed_for_memory(self) -> bool:
        """Whether the kernel or Slurm ended any of the ranks for its memory."""

    def _running(self) -> bool:
        return any(process.poll() is None for process in self.processes)

    def _end_all(self) -> None:
        """SIGTERM, then SIGKILL, to every process that still runs."""
        for number, wait_s in ((signal.SIGTERM, GRACE_AFTER_SIGNAL_S), (signal.SIGKILL, None)):
            running = self._signal_all(number)
            deadline = None if wait_s is None else time.monotonic() + wait_s
            for process in running:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(left)

    def _signal_all(self, number: int) -> list[subprocess.Popen[bytes]]:
        """Signal every process that still runs; returns those."""
        running = [process for process in self.processes if process.poll() is None]
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                self._signal(process, number)
        return running

    @abstractmethod
    def _signal(self, process: subprocess.Popen[bytes], number: int) -> None: ...

    @abstractmethod
    def _codes(self) -> dict[int, int]:
        """The exit codes of the ranks that have ended."""

    @abstractmethod
    def _ends(self, stopped: bool) -> list[RankEnd]:
        """How they ended. stopped: those that are not in `ended` were made to."""
