"""Commands with a limit, and errors of one sentence with the end of the log."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

TAIL_LINES = 15


class BedError(Exception):
    """What is wrong, in one sentence, and the end of the log that says more."""


def say(text: str) -> None:
    print(f"testbed: {text}", file=sys.stderr, flush=True)


def tail(text: str) -> str:
    """The last lines of a log, to stand under an error."""
    lines = text.strip().splitlines()[-TAIL_LINES:]
    return "".join(f"\n    {line}" for line in lines)


def log_tail(log: Path) -> str:
    if not log.is_file():
        return ""
    return f"; the end of {log}:{tail(log.read_text(errors='replace'))}"


def run(
    command: Sequence[str | Path],
    *,
    limit_s: float = 60,
    env: Mapping[str, str] | None = None,
    input: str | None = None,
    cwd: Path | None = None,
) -> str:
    """Standard output of a command; raises BedError with the end of what it printed where it fails
    or takes longer than `limit_s`. `env` is added to this process's environment."""
    words = [str(word) for word in command]
    shown = " ".join(words[:6]) + (" ..." if len(words) > 6 else "")
    try:
        done = subprocess.run(
            words,
            input=input if input is not None else "",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_s,
            env={**os.environ, **(env or {})},
            cwd=cwd,
        )
    except FileNotFoundError as error:
        raise BedError(f"{words[0]} is not here: run `testbed.py install` first") from error
    except subprocess.TimeoutExpired as error:
        said = "".join(
            part.decode(errors="replace") if isinstance(part, bytes) else part
            for part in (error.stdout, error.stderr)
            if part
        )
        raise BedError(f"`{shown}` took longer than {limit_s:.0f} s{tail(said)}") from error
    if done.returncode:
        said = done.stderr.strip() or done.stdout
        raise BedError(f"`{shown}` ended with {done.returncode}:{tail(said)}")
    return done.stdout


def wait_until(
    what: str, check: Callable[[], object], *, limit_s: float, alive: Callable[[], bool], log: Path
) -> None:
    """Wait until `check()` raises no BedError; raises one where the process ends before, or after
    `limit_s`."""
    until = time.monotonic() + limit_s
    while True:
        try:
            check()
            return
        except BedError as error:
            if not alive():
                raise BedError(f"{what} ended right after its start{log_tail(log)}") from error
            if time.monotonic() > until:
                raise BedError(
                    f"{what} did not answer within {limit_s:.0f} s: {error}{log_tail(log)}"
                ) from error
        time.sleep(0.1)


def succeeds(command: Sequence[str | Path], *, limit_s: float = 20) -> bool:
    try:
        run(command, limit_s=limit_s)
    except BedError:
        return False
    return True


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file that is whole at any time and never more readable than `mode`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as stream:
        stream.write(text)
    new.replace(path)
