"""How one rank ended, noted by the process that ran it: srun tells only the worst exit code of
all."""

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
from typing import BinaryIO

from sagebench.files import read_json, write_json
from sagebench.launch.verdict import RankEnd

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
NOT_FOUND_CODE = 127
COPY_LIMIT_S = 10.0
"""for the rest of the output, once the rank has ended: what it started may hold its end open"""
PR_SET_PDEATHSIG = 1


def end_path(directory: Path, rank: int) -> Path:
    return directory / f"rank-{rank}.end.json"


def log_path(directory: Path, rank: int) -> Path:
    return directory / f"rank-{rank}.log"


def supervise_rank(rank: int, command: list[str], directory: Path) -> int:
    """Run `command` as one rank, write rank-R.log and rank-R.end.json, and return its exit code.

    Rank 0's output is also copied to standard output. Signals go on to the rank.
    """
    with log_path(directory, rank).open("wb") as log:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if rank == 0 else log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )
        except OSError as error:
            said = f"{command[0]} cannot be run on {os.uname().nodename} ({error.strerror})"
            log.write(f"error: {said}: correct apptainer or modules in site.yaml\n".encode())
            return note_end(rank, NOT_FOUND_CODE, directory)
    for number in FORWARDED:
        signal.signal(number, lambda got, _: process.send_signal(got))
    if process.stdout:
        # In a thread: who holds the other end may outlive the rank.
        copied = process.stdout, log_path(directory, rank)
        copier = threading.Thread(target=copy_output, args=copied, daemon=True)
        copier.start()
    code = process.wait()
    if process.stdout:
        copier.join(COPY_LIMIT_S)
    return note_end(rank, exit_code(code), directory)


def note_end(rank: int, code: int, directory: Path) -> int:
    """Write rank-R.end.json; returns what srun is told."""
    write_json(end_path(directory, rank), {"code": code, "ended_at_unix_s": time.time()})
    return code if code >= 0 else 128 - code


def exit_code(code: int) -> int:
    """Negative for a signal, also where a shell or a container says it as 128 + its number."""
    return 128 - code if 128 < code < 128 + signal.NSIG else code


def read_ends(directory: Path, ranks: int) -> list[RankEnd]:
    """Exit records of the ranks; code None for a rank without one."""
    # Listing a folder shows what another node wrote sooner than asking for the file by name.
    names = {path.name for path in directory.iterdir()}
    paths = {rank: end_path(directory, rank) for rank in range(ranks)}
    noted = {rank: read_json(path) for rank, path in paths.items() if path.name in names}
    ends = [RankEnd(rank, None, order=ranks) for rank in range(ranks)]
    by_time = sorted(noted, key=lambda rank: noted[rank]["ended_at_unix_s"])
    for order, rank in enumerate(by_time):
        ends[rank] = RankEnd(rank, noted[rank]["code"], order)
    return ends


def die_with_parent() -> None:
    """In the child before exec: end with its parent, even if that is killed outright."""
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
