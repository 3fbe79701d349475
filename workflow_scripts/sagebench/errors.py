"""The one exception that a user's mistake raises."""

from __future__ import annotations

import sys
from collections.abc import Callable


class UserError(Exception):
    """A user's mistake, in one sentence: what is wrong, where, what to write instead."""


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's `main`; a UserError becomes one line on stderr and exit code 2."""
    try:
        sys.exit(main() or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
