"""Ends of ranks: noted by the process that ran each, since srun tells only the worst exit code of
all; and the verdict on their trial, by the first cause."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sagebench.attempts import EARLY_END_CODE, RankEarlyEnd
from sagebench.files import read_json, write_json
from sagebench.measure.allocator import ALLOCATOR_MESSAGES, exhausted_limit
from sagebench.records import Limit, Reason, Status

CONSEQUENCES = ("Connection closed by peer", "Connection reset by peer", "NCCL communicator was")
"""what a rank says whose peer went first"""
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
NOT_FOUND_CODE = 127
COPY_LIMIT_S = 10.0
"""for the rest of the output, once the rank has ended: what it started may hold its end open"""
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class RankEnd:
    """End of one rank's process.

    code: exit code, negative for a signal; None where nothing noted it. order: 0 for the first that
    ended. early_end: what it wrote about one. stopped: the launcher ended it.
    """

    rank: int
    code: int | None
    order: int
    log_tail: str = ""
    early_end: RankEarlyEnd | None = None
    stopped: bool = False

    @property
    def has_exit_record(self) -> bool:
        """Whether the rank left an exit record (not after a node failure)."""
        return self.code is not None


@dataclass(frozen=True)
class Verdict:
    """status: an end of an attempt; `message` says why it leaves no outcome, where it does not.
    too_short: a failure for which a predicted walltime was too short. signal: the one that asked
    the launcher to end, if one did."""

    status: Status
    message: str = ""
    reason: Reason | None = None
    rank: int | None = None
    too_short: bool = False
    signal: int | None = None


def decide(
    ends: list[RankEnd],
    *,
    complete: bool,
    limit_gib: float | None,
    device: str = "cpu",
    killed_for_memory: Callable[[], bool] = lambda: False,
    walltime_s: float | None = None,
) -> Verdict:
    """The verdict over all ranks.

    complete: rank 0 wrote its last measurements. limit_gib: the trial's own memory cap.
    killed_for_memory: tells whether the kernel or Slurm ended one for its memory; asked where that
    matters. walltime_s: given where the launcher ended the ranks for their used up walltime.
    """
    records = [end.early_end for end in ends if end.early_end and end.code == EARLY_END_CODE]
    if records:
        first_record = min(records, key=lambda early_end: early_end.at_unix_s)
        why = first_record.reason
        return Verdict(first_record.status, why.message, why, why.rank)
    bad = sorted((end for end in ends if end.code != 0), key=_causality)
    if not bad:
        if complete:
            return Verdict(Status.COMPLETED)
        message = "every rank ended with exit code 0 but the measurements are not whole"
        return Verdict(Status.FAILED, message)
    first = bad[0]
    if first.stopped and walltime_s is not None:
        message = f"the walltime of {walltime_s:.0f} s was used up"
        reason = Reason(first.rank, "unknown", message, Limit("walltime", walltime_s, "s"))
        return Verdict(Status.TIME_LIMIT, message, reason, first.rank)
    lines = last_lines(first.log_tail.lower())
    said = [(text, line) for text in ALLOCATOR_MESSAGES for line in lines if text in line]
    killed = not first.has_exit_record or first.code == -signal.SIGKILL
    if said:
        message = f"{said[0][0]}, then {ending(first)}"
        limit = exhausted_limit(said[0][1], device, limit_gib)
    elif killed and not first.stopped and killed_for_memory():
        message, limit = "killed by the out-of-memory killer", Limit("host_memory", None, "GiB")
    else:
        return Verdict(Status.FAILED, f"rank {first.rank} {ending(first)}", rank=first.rank)
    reason = Reason(first.rank, "unknown", message, limit)
    return Verdict(Status.OUT_OF_MEMORY, message, reason, first.rank)


def last_lines(log: str) -> list[str]:
    """Last lines of a log, the only ones searched for an error."""
    return [line.strip() for line in log.splitlines() if line.strip()][-5:]


def _causality(end: RankEnd) -> tuple[bool, bool, int]:
    """Causes before consequences, then by time. srun ends the peers of a bad rank with SIGTERM."""
    peer_went = any(text in end.log_tail for text in CONSEQUENCES)
    return end.stopped, peer_went or end.code == -signal.SIGTERM, end.order


def ending(end: RankEnd) -> str:
    """Description of a rank's end: exit code or signal, last line of its log."""
    if end.code is not None and end.code < 0:
        return f"was ended by {signal.Signals(-end.code).name}"
    lines = last_lines(end.log_tail)
    last = f": {lines[-1]}" if lines else ""
    if end.code is None:
        return f"left no exit record{last}"
    return f"failed with exit code {end.code}{last}"


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
    values = {"code": code, "ended_at_unix_s": time.time()}
    write_json(directory / f"rank-{rank}.end.json", values)
    return code if code >= 0 else 128 - code


def exit_code(code: int) -> int:
    """Negative for a signal, also where a shell or a container says it as 128 + its number."""
    return 128 - code if 128 < code < 128 + signal.NSIG else code


def read_ends(directory: Path, ranks: int) -> list[RankEnd]:
    """Exit records of the ranks; code None for a rank without one."""
    # Listing a folder shows what another node wrote sooner than asking for the file by name.
    names = {path.name for path in directory.iterdir()}
    paths = {rank: directory / f"rank-{rank}.end.json" for rank in range(ranks)}
    noted = {rank: read_json(path) for rank, path in paths.items() if path.name in names}
    ends = [RankEnd(rank, None, order=ranks) for rank in range(ranks)]
    by_time = sorted(noted, key=lambda rank: noted[rank]["ended_at_unix_s"])
    for order, rank in enumerate(by_time):
        ends[rank] = RankEnd(rank, noted[rank]["code"], order)
    return ends


def die_with_parent() -> None:
    """Have the child end with its parent, even if that is killed outright; called before exec."""
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
