"""What a killed Snakemake leaves in its folder: its lock, and marks of what it was making."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import sys
from pathlib import Path
from typing import TextIO

FOLDER = Path(".snakemake")


def hold_folder(folder: Path) -> TextIO:
    """Say that this process works in `folder`, for as long as what this returns is open; where no
    other does, take away the lock that a killed Snakemake left there.

    The kernel's locks end with their process, Snakemake's does not. They may reach no further than
    one machine, so what another one left is not touched; nor is anything where the file system has
    no such locks.
    """
    path = folder / FOLDER / "sagebench" / "in-use"
    path.parent.mkdir(parents=True, exist_ok=True)
    mark = path.open("a+")
    with contextlib.suppress(OSError):  # another process works here
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _clear(folder, mark)
    with contextlib.suppress(OSError):
        fcntl.flock(mark, fcntl.LOCK_SH)
    return mark


def keep_finished(folder: Path) -> None:
    """Take away the marks of outcomes that came to be all the same: Snakemake would delete them as
    incomplete and run their trials again. An outcome is there whole or not at all."""
    marks = folder / FOLDER / "incomplete"
    for mark in [path for path in marks.rglob("*") if path.is_file()]:
        # The path in base64, which may be too long for one name.
        encoded = "".join(part.removeprefix("@") for part in mark.relative_to(marks).parts)
        try:
            path = Path(base64.urlsafe_b64decode(encoded).decode())
        except ValueError:
            continue
        if path.name == "outcome.json" and (folder / path).exists():
            mark.unlink(missing_ok=True)


def _clear(folder: Path, mark: TextIO) -> None:
    mark.seek(0)
    here, last = os.uname().nodename, mark.read()
    locks = list((folder / FOLDER / "locks").glob("*.lock"))
    if locks and last == here:
        print("an earlier run here was killed: its lock is taken away", file=sys.stderr)
        for lock in locks:
            lock.unlink(missing_ok=True)
    if last != here and not locks:
        mark.truncate(0)
        mark.write(here)
        mark.flush()
