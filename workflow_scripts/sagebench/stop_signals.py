"""The signals that ask a trial to stop and be continued, in its ranks and their workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""Slurm's for a job that is to make room, and the one that a job may ask for before its end"""


class StopSignals:
    """Whether this process was asked to stop. From now on that does not end it: rank 0 heeds it,
    the others stop with rank 0."""

    def __init__(self) -> None:
        self.received = False
        for number in STOP_SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True


def checkpoint_path() -> Path | None:
    """Where the launcher wants the state of a trial that is to be continued."""
    path = os.environ.get("SAGEBENCH_CHECKPOINT")
    return Path(path) if path else None


@contextmanager
def stop_signals_held_back() -> Iterator[None]:
    """Around the start of a DataLoader's workers, which begin with torch's own handlers: a SIGTERM
    would end them there. What they are sent waits until they call `survive_stop_signals`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def survive_stop_signals(worker: int) -> None:
    """In a DataLoader's worker: a whole job step is sent the signals, and the rank needs its
    samples until it stops."""
    if checkpoint_path() is not None:
        StopSignals()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
