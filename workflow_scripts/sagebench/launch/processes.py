"""The ranks as processes on this machine."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import BinaryIO

from sagebench.launch.rank_group import GRACE_AFTER_SIGNAL_S, RankGroup
from sagebench.launch.verdict import RankEnd

LOG_TAIL_BYTES = 20_000
PR_SET_PDEATHSIG = 1


class Ranks(RankGroup):
    """`with Ranks(...) as ranks: ends = ranks.wait(...)`; leaving ends what still runs.

    command: what one rank runs. environments: one a rank. directory: for `rank-N.log`; rank 0's
    output is also copied to this process's standard output.
    """

    grace_after_failure_s = 5.0
    poll_s = 0.05

    def __init__(
        self,
        command: list[str],
        environments: list[dict[str, str]],
        directory: Path,
    ) -> None:
        super().__init__(directory)
        self.command = command
        self.environments = environments
        self._copier: threading.Thread | None = None
        self._oom_kills_before = oom_kills()

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
        self._copier = copying(self.processes[0].stdout, self.log_path(0))
        return self

    def killed_for_memory(self) -> bool:
        """Whether the kernel's out-of-memory killer has struck since these ranks were made."""
        return oom_kills() > self._oom_kills_before

    def _codes(self) -> dict[int, int]:
        codes = {rank: process.poll() for rank, process in enumerate(self.processes)}
        return {rank: code for rank, code in codes.items() if code is not None}

    def _signal(self, process: subprocess.Popen[bytes], number: int) -> None:
        os.killpg(process.pid, number)

    def _ends(self, stopped: bool) -> list[RankEnd]:
        if self._copier is not None:
            self._copier.join(timeout=GRACE_AFTER_SIGNAL_S)
        return [
            RankEnd(
                rank=rank,
                code=process.returncode,
                order=self.ended.index(rank) if rank in self.ended else len(self.processes),
                log_tail=tail(self.log_path(rank)),
                stopped=stopped and rank not in self.ended,
            )
            for rank, process in enumerate(self.processes)
        ]


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


def copying(source: BinaryIO, path: Path) -> threading.Thread:
    """`copy_output` beside what this process does: who holds the other end may outlive the rank."""
    thread = threading.Thread(target=copy_output, args=(source, path), daemon=True)
    thread.start()
    return thread


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
