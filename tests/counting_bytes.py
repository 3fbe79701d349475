"""Counts the bytes that torch's operations read and write, as they are called."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class ByteCounter(TorchDispatchMode):
    """Within it every operation's tensors count, in and out; a view moves nothing, and an expanded
    dimension is there once. `operations` is how many did not only make a view or reserve memory."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.operations = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None) -> Any:
        out = operation(*args, **(kwargs or {}))
        read = _tensors((args, kwargs))
        written = _tensors(out)
        known = {tensor.untyped_storage().data_ptr() for tensor in read}
        in_place = operation._schema.is_mutable
        is_view = all(tensor.untyped_storage().data_ptr() in known for tensor in written)
        if written and is_view and not in_place:
            return out
        self.operations += 1
        name = operation.name()
        if "new_" in name or "_like" in name:
            read = []  # of its argument such an operation takes the kind alone
        if "empty" not in name:
            self.bytes += sum(_size(tensor) for tensor in (*read, *written))
        return out


def _tensors(values: Any) -> list[Tensor]:
    found = {id(leaf): leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)}
    return list(found.values())


def _size(tensor: Tensor) -> int:
    count = 1
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= length if stride else 1
    return count * tensor.element_size()
