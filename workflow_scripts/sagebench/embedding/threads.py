"""The threads of the compiled loops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

_pool = cache(ThreadPoolExecutor)
"""one of each number of threads, as long as the process"""


class Threads:
    """Runs a task over pieces of a range. The pieces do not depend on how many threads there
    are."""

    def __init__(self, threads: int) -> None:
        self._pool = _pool(threads) if threads > 1 else None

    def start(self, count: int, size: int, task: Callable[[int, int], None]) -> Iterator[None]:
        """Begin `task(first, last)` over pieces of range(count), each of `size` but the last; the
        iterator's end waits for all."""
        run = map if self._pool is None else self._pool.map
        return iter(run(lambda first: task(first, min(first + size, count)), range(0, count, size)))

    def over(self, count: int, size: int, task: Callable[[int, int], None]) -> None:
        list(self.start(count, size, task))
