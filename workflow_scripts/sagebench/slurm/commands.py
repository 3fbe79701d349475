"""Asking Slurm: a command answers within a time limit, or there is a sentence that says why not."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

FOR_PEOPLE = ("SQUEUE_", "SACCT_")
"""variables with which users change what these commands print"""


class NoAnswer(Exception):
    """Slurm did not answer; the text says why."""


def ask(command: Sequence[str], limit_s: float) -> str:
    """What the command prints, its times in UTC; raises NoAnswer."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(FOR_PEOPLE)}
    environment |= {"TZ": "UTC0", "SLURM_TIME_FORMAT": "standard"}
    name = command[0]
    try:
        finished = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_s,
        )
    except FileNotFoundError:
        raise NoAnswer(f"{name} is not installed here") from None
    except OSError as error:
        raise NoAnswer(f"{name} cannot be run ({error.strerror})") from None
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"{name} did not answer within {limit_s:.0f} s") from None
    if finished.returncode != 0:
        said = finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"]
        raise NoAnswer(f"{name} failed: {said[-1].removeprefix(f'{name}: ')}")
    return finished.stdout
