"""What must not run twice at a time: a trial anywhere, and any two trials on one machine."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sagebench.errors import UserError
from sagebench.files import hold


@contextmanager
def only_one(home: Path, wait: bool) -> Iterator[None]:
    """Hold the lock of a trial or a pilot, by its folder.

    wait: until whoever holds it lets go; else that is a UserError.
    """
    home.mkdir(parents=True, exist_ok=True)
    path = home / ".lock"
    with ExitStack() as held:
        try:
            try:
                lock = held.enter_context(hold(path))
            except BlockingIOError:
                holder = path.read_text(errors="replace").strip() or "by another process"
                running = f"{home.name} is being run already ({holder})"
                if not wait:
                    raise UserError(f"{running}: wait for that run, or stop it") from None
                lock = held.enter_context(hold(path, f"{running}: waiting for its end"))
            _sign(lock)
        except OSError as error:  # some parallel file systems are mounted without locks
            print(
                f"{home} cannot be locked ({error.strerror}): run nothing beside", file=sys.stderr
            )
        yield


def _sign(lock: int) -> None:
    """Write into the lock's file who holds it."""
    job = os.environ.get("SLURM_JOB_ID")
    name = f"process {os.getpid()} on {os.uname().nodename}" + (f", job {job}" if job else "")
    with contextlib.suppress(OSError):  # a full disk
        os.ftruncate(lock, 0)
        os.pwrite(lock, name.encode(), 0)


@contextmanager
def machine_alone() -> Iterator[None]:
    """Wait until no other trial runs on this machine, whoever started it: it would be timed too."""
    path = Path(tempfile.gettempdir(), "sagebench-machine.lock")
    with contextlib.suppress(FileExistsError):
        path.touch(exist_ok=False)
        path.chmod(0o644)  # whatever the umask is
    if not os.access(path, os.R_OK):
        raise UserError(
            f"{path} keeps trials of several users apart and is not readable: ask its owner to "
            "remove it"
        )
    waiting = "waiting for another trial on this machine to end"
    with hold(path, waiting, flags=os.O_RDONLY):  # the file may be another user's
        yield
