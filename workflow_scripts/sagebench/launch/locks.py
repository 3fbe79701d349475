"""What must not run twice at a time: a trial anywhere, and any two trials on one machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sagebench.errors import UserError

LOOK_S = 1.0
"""how long the trial's lock may be held by those who only look whether it is (cluster/states.py)"""


@contextmanager
def only_one(home: Path, wait: bool) -> Iterator[None]:
    """Hold the lock of a trial or a pilot, by its folder; the kernel lets go of it with the
    process, however that ends.

    wait: until whoever holds it lets go; else that is a UserError.
    """
    home.mkdir(parents=True, exist_ok=True)
    lock = os.open(home / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            if not _take(lock, LOOK_S):
                running = f"{home.name} is being run already ({_holder(lock)})"
                if not wait:
                    raise UserError(f"{running}: wait for that run, or stop it")
                print(f"{running}: waiting for its end", file=sys.stderr, flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            _sign(lock)
        except OSError as error:  # some parallel file systems are mounted without locks
            print(
                f"{home} cannot be locked ({error.strerror}): run nothing beside", file=sys.stderr
            )
        yield
    finally:
        os.close(lock)


def _take(lock: int, within_s: float) -> bool:
    """Take the lock if it gets free in time."""
    until = time.monotonic() + within_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(0.05)


def _sign(lock: int) -> None:
    """Write into the lock's file who holds it."""
    job = os.environ.get("SLURM_JOB_ID")
    name = f"process {os.getpid()} on {os.uname().nodename}" + (f", job {job}" if job else "")
    with contextlib.suppress(OSError):  # a full disk
        os.ftruncate(lock, 0)
        os.pwrite(lock, name.encode(), 0)


def _holder(lock: int) -> str:
    return os.pread(lock, 200, 0).decode(errors="replace").strip() or "by another process"


@contextmanager
def machine_alone() -> Iterator[None]:
    """Wait until no other trial runs on this machine, whoever started it: it would be timed too."""
    path = Path(tempfile.gettempdir(), "sagebench-machine.lock")
    try:  # read-only and first without O_CREAT: the file may be another user's
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
        os.fchmod(descriptor, 0o644)  # whatever the umask is
    except PermissionError:
        raise UserError(
            f"{path} keeps trials of several users apart and is not readable: ask its owner to "
            "remove it"
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another trial on this machine to end", file=sys.stderr, flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
