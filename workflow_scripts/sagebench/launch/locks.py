"""What must not run twice at a time: a trial anywhere, and any two trials on one machine."""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sagebench.errors import UserError


@contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Hold the trial's lock; the kernel lets go of it with the process, however that ends."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"the trial {home.name} is being run already: wait for that run, or stop it"
            ) from None
        except OSError as error:  # some parallel file systems are mounted without locks
            print(
                f"{home} cannot be locked ({error.strerror}): run nothing beside", file=sys.stderr
            )
        yield


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
