"""Work on a CUDA stream of its own, so that it overlaps what the default stream does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")


class SideStream:
    """On a CPU, `run` simply runs and `take` simply returns."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def follow(self) -> None:
        """What is run from now on comes after what the caller's stream has been given so far."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))

    def run(self, work: Callable[[Item], Result], item: Item) -> tuple[Result, Any]:
        """`work(item)` on the side stream, by any thread; `take` is to have what it returns."""
        if self._stream is None:
            return work(item), None
        with torch.cuda.stream(self._stream):
            return work(item), self._stream.record_event()

    def take(self, done: tuple[Result, Any]) -> Result:
        """The result, for use on the caller's stream from now on."""
        result, event = done
        if event is not None:
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
