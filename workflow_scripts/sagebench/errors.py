"""UserError, the exception for a user's mistake, and how scripts report it."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sagebench import __version__

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class UserError(Exception):
    """A user's mistake, in one sentence: what is wrong, where, what to write instead."""


@contextmanager
def full_disk_as_user_error() -> Iterator[None]:
    """Turns a full disk (ENOSPC, EDQUOT) into a UserError."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        where = f" of {error.filename}" if error.filename else ""
        raise UserError(
            f"no space left on the disk{where}: free some, and call the same command again"
        ) from error


def script_parser(docstring: str | None) -> argparse.ArgumentParser:
    """The parser of a script's options, which describes it by its docstring."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=docstring, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"sagebench {__version__}")
    return parser


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's `main`; a UserError becomes one line on stderr and exit code 2."""
    try:
        with full_disk_as_user_error():
            sys.exit(main() or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # whoever reads the output, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
