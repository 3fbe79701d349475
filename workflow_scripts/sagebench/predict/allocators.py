"""What an allocator holds for what a program has taken of it, by the allocator's own rules.

Both keep freed memory for later requests, and hold more than is in use: a request that fits no
free piece takes new memory, however much lies free in smaller pieces.
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Iterable

from sagebench.predict.tape import Tape

KIB, MIB = 1 << 10, 1 << 20
PINNED_SHARE = 0.2
"""counted in all mallocs and frees of two trainings on 98,000 nodes, [8,8,8], batch 96: at 25 %
(`reference`) and 16 % (`blocks`) of the ends of tensors lay a small object when they were freed"""


class FreePieces:
    """Free address ranges; neighbors become one."""

    def __init__(self) -> None:
        self._by_size: list[tuple[int, int]] = []
        self._end_of: dict[int, int] = {}
        self._start_of: dict[int, int] = {}

    def add(self, start: int, end: int) -> tuple[int, int]:
        """Add a range; returns the one that it is now part of."""
        if start in self._start_of:
            start = self.remove(self._start_of[start])[0]
        if end in self._end_of:
            end = self.remove(end)[1]
        self._end_of[start], self._start_of[end] = end, start
        insort(self._by_size, (end - start, start))
        return start, end

    def remove(self, start: int) -> tuple[int, int]:
        end = self._end_of.pop(start)
        del self._start_of[end]
        self._by_size.pop(bisect_left(self._by_size, (end - start, start)))
        return start, end

    def smallest(self, size: int) -> tuple[int, int] | None:
        """Take the smallest range of at least `size`."""
        place = bisect_left(self._by_size, (size, 0))
        return self.remove(self._by_size[place][1]) if place < len(self._by_size) else None

    def is_free(self, start: int, end: int) -> bool:
        return self._end_of.get(start) == end


class CudaAllocator:
    """torch's caching allocator (c10/cuda/CUDACachingAllocator.cpp), at its default settings.

    Sizes are rounded up to 512 bytes. Up to 1 MiB comes from segments of 2 MiB, less than 10 MiB
    from segments of 20 MiB, more from segments of its own size rounded up to 2 MiB. The smallest
    free block that fits is taken, and its rest kept where it is more than 1 MiB (small ones: 512
    bytes). Neighbors in a segment are joined. frugal: segments that are free as a whole are
    given back before more is held than ever before, as on a card with just enough memory; the peak
    is then about the least that the steps run with.
    """

    def __init__(self, *, frugal: bool = False) -> None:
        self._frugal = frugal
        self.held = self.peak = 0
        self._free = {True: FreePieces(), False: FreePieces()}  # small ones, large ones
        self._segments: dict[int, tuple[int, bool]] = {}
        self._used: dict[int, tuple[int, int, bool]] = {}
        self._next = 0

    def take(self, handle: int, size: int) -> None:
        size = -(-size // 512) * 512
        small = size <= MIB
        start, end = self._free[small].smallest(size) or self._new_segment(size, small)
        if end - start - size >= (512 if small else MIB + 1):
            self._free[small].add(start + size, end)
            end = start + size
        self._used[handle] = start, end, small

    def give(self, handle: int) -> None:
        start, end, small = self._used.pop(handle)
        self._free[small].add(start, end)

    def _new_segment(self, size: int, small: bool) -> tuple[int, int]:
        wanted = (
            2 * MIB if small else 20 * MIB if size < 10 * MIB else -(-size // (2 * MIB)) * 2 * MIB
        )
        if self._frugal and self.held + wanted > self.peak:
            self._give_back()
        start = self._next
        self._next += wanted + 1  # no neighbor of another segment
        self._segments[start] = start + wanted, small
        self.held += wanted
        self.peak = max(self.peak, self.held)
        return start, start + wanted

    def _give_back(self) -> None:
        for start, (end, small) in list(self._segments.items()):
            if self._free[small].is_free(start, end):
                self._free[small].remove(start)
                del self._segments[start]
                self.held -= end - start


class GlibcHeap:
    """glibc's heap as the launcher sets it: everything in one heap, nothing given back or cached.

    torch asks for memory aligned to 64 bytes. malloc then looks for 96 bytes more, so a piece that
    just became free fits a request of its own size only when the bytes that were cut off before
    and after it are joined with it. These are free at once, but for a share of them: there small
    objects lie until the step's last tensor is freed. seed: decides which ones. The smallest free
    piece that fits is taken; else the heap grows.
    """

    ALIGNMENT, HEADER, EXTRA, SMALL = 64, 16, 96, 128
    """in bytes. SMALL: what is cut off and longer is the rest of a large piece, and stays free"""

    def __init__(self, seed: int = 0, pinned_share: float = PINNED_SHARE) -> None:
        self.held = self.peak = 0
        self._free = FreePieces()
        self._used: dict[int, tuple[int, int]] = {}
        self._pinned: list[tuple[int, int]] = []
        self._pinned_share = pinned_share
        self._draw = random.Random(seed).random

    def take(self, handle: int, size: int) -> None:
        size = -(-(size + 8) // 16) * 16
        start, end = self._free.smallest(size + self.EXTRA) or self._grow(size + self.EXTRA)
        first = start + (-(start + self.HEADER)) % self.ALIGNMENT
        if 0 < first - start < 32:  # too few bytes for a chunk of their own
            first += self.ALIGNMENT
        self._used[handle] = first, first + size
        for piece in ((start, first), (first + size, end)):
            length = piece[1] - piece[0]
            if 0 < length <= self.SMALL and self._draw() < self._pinned_share:
                self._pinned.append(piece)
            elif length:
                self._release(*piece)

    def give(self, handle: int) -> None:
        self._release(*self._used.pop(handle))
        if not self._used:
            while self._pinned:
                self._release(*self._pinned.pop())

    def _grow(self, size: int) -> tuple[int, int]:
        start = self.held
        self.held += size
        self.peak = max(self.peak, self.held)
        return start, self.held

    def _release(self, start: int, end: int) -> None:
        start, end = self._free.add(start, end)
        if end == self.held:
            self._free.remove(start)
            self.held = start


def replay(allocator: CudaAllocator | GlibcHeap, steps: Iterable[Tape]) -> int:
    """The most that the allocator holds over these steps; what it held before counts."""
    for tape in steps:
        for handle, size in tape.events:
            if size:
                allocator.take(handle, size)
            else:
                allocator.give(handle)
    return allocator.peak
