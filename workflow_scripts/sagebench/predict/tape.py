"""A training step as its allocator sees it: what is taken and given back, in order."""

from __future__ import annotations

from collections import Counter

SMALLEST_BYTES = 4096
"""what is less is left out: vectors of a channel's length, single numbers"""


class Tape:
    """events: (handle, bytes) for what is taken, (handle, 0) for what is given back."""

    def __init__(self) -> None:
        self.events: list[tuple[int, int]] = []
        self._named: list[tuple[str, int]] = []
        self._live: set[int] = set()

    def take(self, size: float, name: str) -> int:
        """Allocate `size` bytes, called `name` among the parts of the peak."""
        handle = len(self._named)
        self._named.append((name, round(size)))
        if size >= SMALLEST_BYTES:
            self.events.append((handle, round(size)))
            self._live.add(handle)
        return handle

    def drop(self, *handles: int | None) -> None:
        """Free these; one that is free already, or None, stays so."""
        for handle in handles:
            if handle in self._live:
                self._live.remove(handle)
                self.events.append((handle, 0))

    def drop_all(self) -> None:
        self.drop(*sorted(self._live))

    def peak(self) -> tuple[int, dict[str, int]]:
        """The most bytes that are taken at a time, and of what they are."""
        now = most = place = 0
        for k, (handle, size) in enumerate(self.events):
            now += size or -self._named[handle][1]
            if now > most:
                most, place = now, k + 1
        parts: Counter[str] = Counter()
        for handle, size in self.events[:place]:
            name, taken = self._named[handle]
            parts[name] += size or -taken
        return most, {name: size for name, size in parts.items() if size}
