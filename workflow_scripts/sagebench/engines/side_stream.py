"""Prefetching in background threads, on a separate CUDA stream; results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")


class SideStream:
    """A high-priority stream, so that its small kernels do not queue behind a step's full grids.

    On a CPU there is none, and the work simply runs in the background threads.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device, priority=-1) if device.type == "cuda" else None

    def ahead(
        self,
        work: Callable[[Item], Result],
        items: Iterable[Item],
        workers: int,
        results_ahead: int = 2,
    ) -> Iterator[Result]:
        """`work(item)` for every item, in order, after what the caller's stream has been given so
        far, by so many threads, each up to `results_ahead` results ahead; the results are for the
        caller's stream.

        No workers: on the caller's thread when asked for. An exception of `work` is raised where
        its result would stand, and ends the work ahead of it.
        """
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        return self._results(work, items, workers, workers * results_ahead)

    def _results(
        self, work: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int
    ) -> Iterator[Result]:
        if workers == 0:
            for item in items:
                yield self._take(self._run(work, item))
            return
        pending: deque[Future[tuple[Result, Any]]] = deque()
        pool = ThreadPoolExecutor(workers)
        try:
            for item in items:
                pending.append(pool.submit(self._run, work, item))
                if len(pending) > ahead:
                    yield self._take(pending.popleft().result())
            while pending:
                yield self._take(pending.popleft().result())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, work: Callable[[Item], Result], item: Item) -> tuple[Result, Any]:
        """`work(item)` on the side stream, by any thread; `_take` is to have what it returns."""
        if self._stream is None:
            return work(item), None
        # A thread starts with device 0 current: leaving the stream's context would go back to it,
        # and make a context of half a gigabyte there for every other rank of the node.
        torch.cuda.set_device(self._stream.device)
        with torch.cuda.stream(self._stream):
            return work(item), self._stream.record_event()

    def _take(self, done: tuple[Result, Any]) -> Result:
        """The result, for use on the caller's stream from now on."""
        result, event = done
        if self._stream is not None:
            current = torch.cuda.current_stream(self._stream.device)
            current.wait_event(event)
            for tensor in tensors_in(result):
                if tensor.is_cuda:  # its memory is not to be taken anew before this stream is done
                    tensor.record_stream(current)
        return result


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from tensors_in(part)
