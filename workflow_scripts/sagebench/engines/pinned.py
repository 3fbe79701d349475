"""Pinned host memory that copies to a GPU are made from, used over and over."""

from __future__ import annotations

import math
from queue import Empty, SimpleQueue

import torch
from torch import Tensor


class PinnedBuffers:
    """One buffer for each thread that copies at a time, grown as needed.

    torch's own cache of pinned memory rounds a batch's 545 MB up to 1 GiB and keeps a piece for
    every batch in flight; pinning is slow, too.
    """

    def __init__(self) -> None:
        # Each with the event after which its last copy is done; any number of threads.
        self._free: SimpleQueue[tuple[Tensor, torch.cuda.Event]] = SimpleQueue()

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Pinned memory of this shape and dtype, contents undefined, until `give_back`."""
        size_bytes = math.prod(shape) * dtype.itemsize
        try:
            buffer, copied = self._free.get_nowait()
            copied.synchronize()
        except Empty:
            buffer = torch.empty(0, dtype=torch.uint8)
        if len(buffer) < size_bytes:
            # A little more than asked for: the next batches are a little larger.
            buffer = torch.empty(size_bytes + size_bytes // 8, dtype=torch.uint8, pin_memory=True)
        return buffer[:size_bytes].view(dtype).view(shape)

    def give_back(self, taken: Tensor) -> None:
        """For the next caller, once the copies that the current stream was given are done."""
        copied = torch.cuda.Event()
        copied.record()
        whole = torch.empty(0, dtype=torch.uint8).set_(taken.untyped_storage())
        self._free.put((whole, copied))
