"""Phase clock: times of sampling, data, forward, backward, synchronisation, optimizer."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median


class PhaseClock:
    """Knows which phase the rank is in, and times phases while `timed` is set.

    The phase in hand names the place of a failure (`phase`). Timing synchronises the device at
    both ends of a phase, so it is set only in a window of its own, never in timed epochs.
    """

    def __init__(self, synchronise: Callable[[], None] = lambda: None) -> None:
        self.phase = "setup"
        self.timed = False
        self._synchronise = synchronise
        self._seconds: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """`with clock("forward"): ...`. After an exception the phase stays: it is the place."""
        before, self.phase = self.phase, phase
        if not self.timed:
            yield
        else:
            self._synchronise()
            start = time.perf_counter()
            yield
            self._synchronise()
            self._seconds[phase].append(time.perf_counter() - start)
        self.phase = before

    def medians_s(self) -> dict[str, float]:
        """Median seconds of every phase that was timed."""
        return {phase: median(times) for phase, times in self._seconds.items()}
