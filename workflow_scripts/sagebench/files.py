"""Atomic writes, file locks, and the end of a log."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

LOG_TAIL_BYTES = 20_000


Content = str | bytes | Callable[[IO[bytes]], object]
"""of a file, or what writes it"""


def write_atomic(path: str | os.PathLike[str], content: Content) -> None:
    """Write `content` to `path` through a temporary file beside it, so no reader sees half of it.

    The data reaches the disk before the rename: a full disk raises OSError and leaves what was
    there before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~umask())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)  # a signal's exception may come after the rename
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a full disk does not say which
        raise


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as readable JSON, atomically. NaN is refused: it is not JSON."""
    write_atomic(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    return json.loads(Path(path).read_text())


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None if the file does not exist."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def tail(path: Path) -> str:
    """The end of a log; nothing where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


@contextmanager
def hold(
    path: str | os.PathLike[str],
    waiting: str | None = None,
    *,
    flags: int = os.O_RDWR | os.O_CREAT,
) -> Iterator[int]:
    """Holds an flock on a file, released when the process ends; yields its descriptor.

    waiting: what to say, and then wait, where another holds it; None: BlockingIOError. flags: to
    open it; a folder can be read only.
    """
    descriptor = os.open(path, flags, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is None:
                raise
            print(waiting, file=sys.stderr, flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
