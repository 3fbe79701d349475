"""The CUDA caching allocator, simulated: reserved bytes for the allocations of recorded steps.

It keeps freed memory for later requests, and so reserves more than is in use: a request that fits
no free block takes new memory, however much lies free in smaller ones.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate, count

from sagebench.operations import Cost
from sagebench.units import MIB


class AllocationTrace:
    """Allocations and frees of a step, in order.

    events: for an allocation its bytes, whose handle is the number of those before; for its end
    -(handle + 1). So it is in a probe.
    """

    def __init__(self, events: Iterable[int] = ()) -> None:
        self.events = list(events)
        self._allocations = 0

    def alloc(self, size_bytes: int) -> int:
        self.events.append(size_bytes)
        self._allocations += 1
        return self._allocations - 1

    def free(self, handle: int) -> None:
        self.events.append(-(handle + 1))

    @property
    def peak_bytes(self) -> int:
        """The most that is in use at a time."""
        sizes = [event for event in self.events if event > 0]
        changes = (event if event > 0 else -sizes[-event - 1] for event in self.events)
        return max(accumulate(changes, initial=0))


@dataclass(frozen=True)
class RecordedStep:
    """One micro-step: forward, loss and backward.

    batch_bytes: of every tensor of the batch, which is there before the step and after it; what a
    rank holds in any case (the graph's features) is not in it. trace: what the step itself takes.
    costs: by the operations' names; their bytes as `moved_bytes` has them.
    """

    batch_bytes: tuple[int, ...]
    trace: AllocationTrace
    flops: int
    costs: Mapping[str, Cost]

    @property
    def cost(self) -> Cost:
        return Cost.sum(self.costs.values())

    @property
    def peak_bytes(self) -> int:
        return sum(self.batch_bytes) + self.trace.peak_bytes

    def scaled(self, share: float) -> RecordedStep:
        """The trace with every allocation times `share`, and none of nothing."""

        def times(size: int) -> int:
            return max(1, round(share * size))

        events = (times(event) if event > 0 else event for event in self.trace.events)
        batch_bytes = tuple(map(times, self.batch_bytes))
        return replace(self, batch_bytes=batch_bytes, trace=AllocationTrace(events))


class FreePieces:
    """Free address ranges; neighbors become one."""

    def __init__(self) -> None:
        self._by_size: list[tuple[int, int]] = []
        self._end_of: dict[int, int] = {}
        self._start_of: dict[int, int] = {}

    def add(self, start: int, end: int) -> None:
        if start in self._start_of:
            start = self.remove(self._start_of[start])[0]
        if end in self._end_of:
            end = self.remove(end)[1]
        self._end_of[start], self._start_of[end] = end, start
        insort(self._by_size, (end - start, start))

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


def replay(allocator: CudaAllocator, steps: Iterable[RecordedStep], *, batches: bool) -> int:
    """The most that the allocator holds over these steps. batches: whether their batches come from
    it too, each before the one of the step before has gone."""
    handles = count(-1, -1)
    batch: list[int] = []
    for step in steps:
        earlier, batch = batch, [next(handles) for _ in step.batch_bytes if batches]
        for handle, size in zip(batch, step.batch_bytes, strict=False):
            allocator.take(handle, size)
        for handle in earlier:
            allocator.give(handle)
        taken = count()
        for event in step.trace.events:
            if event > 0:
                allocator.take(next(taken), event)
            else:
                allocator.give(-event - 1)
    return allocator.peak
