"""Recorder of a step: allocations and frees, FLOPs, bytes moved.

It sees every operation that torch dispatches, autograd's backward pass too, and knows nothing of
models. On device `meta` nothing is computed and no memory is taken: a step of 30 GB is recorded in
a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import flop_counter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from sagebench.estimate.allocator import AllocationTrace
from sagebench.operations import COSTS, Cost

SMALLEST_BYTES = 4096
"""what is less is left out: vectors of a channel's length, single numbers"""


class Recorder(TorchDispatchMode):
    """Records what runs within it; what was there before is not counted. costs: launches and bytes
    by the operation's name.

    Not seen is what an operation takes for itself and gives back before it ends. On a GPU that is
    little (sorting takes some 20 bytes an edge). A CPU also casts operands of another type first
    (TensorIterator), where a GPU's kernel casts as it reads: PyG's max takes 4 to 7 % more there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trace = AllocationTrace()
        self.flops = 0
        self.costs: dict[str, Cost] = {}
        self._storages: dict[int, tuple[StorageWeakRef, int]] = {}
        self._zeros: int | None = None  # the storage that was made last, if of zeros

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None) -> Any:
        kwargs = kwargs or {}
        self._find_freed()  # nothing is taken but by an operation, so it is early enough
        if torch._C._current_graph_task_id() >= 0:
            operation = self._of_backward(operation, args)
        out = operation(*args, **kwargs)
        read, written = tensors_in((args, kwargs)), tensors_in(out)
        known = {tensor.untyped_storage()._cdata for tensor in read}
        new = [tensor for tensor in written if tensor.untyped_storage()._cdata not in known]
        for tensor in new:
            self._note(tensor.untyped_storage())
        name = operation._overloadpacket.__name__
        if new:
            self._zeros = new[0].untyped_storage()._cdata if name in ZEROS else None
        if new or operation._schema.is_mutable:  # else a view
            self.flops += _flops(operation, args, kwargs, out)
            if declared := COSTS.get(name) if operation.namespace == "sagebench" else None:
                cost = declared(*args, **kwargs)
            else:
                moved = moved_bytes(name, read, written, in_place=not new)
                cost = Cost(int(name not in RESERVES), moved)
            self.costs[name] = Cost.sum([self.costs.get(name, Cost(0, 0)), cost])
        return out

    @property
    def cost(self) -> Cost:
        return Cost.sum(self.costs.values())

    def _of_backward(self, operation: Any, args: Any) -> Any:
        """The in-place operation that autograd uses when nothing is recorded.

        Where two gradients of a tensor meet it adds the second to the first, if nothing else holds
        that one, and it adds to zeros that it made for this; but where anything is recorded, and
        on device `meta`, it writes to no tensor and takes a new one.
        """
        if operation not in IN_PLACE:
            return operation
        storage = args[0].untyped_storage()
        free = _is_alone(args[0]) if operation is ADD else storage._cdata == self._zeros
        return IN_PLACE[operation] if free else operation

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self._find_freed()
        for _, handle in self._storages.values():
            self.trace.free(handle)

    def _note(self, storage: torch.UntypedStorage) -> None:
        if storage.nbytes() >= SMALLEST_BYTES and storage._cdata not in self._storages:
            handle = self.trace.alloc(storage.nbytes())
            self._storages[storage._cdata] = StorageWeakRef(storage), handle

    def _find_freed(self) -> None:
        for key, (reference, handle) in list(self._storages.items()):
            if reference.expired():
                del self._storages[key]
                self.trace.free(handle)


ADD = torch.ops.aten.add.Tensor
IN_PLACE = {
    ADD: torch.ops.aten.add_.Tensor,
    torch.ops.aten.index_add.default: torch.ops.aten.index_add_.default,
    torch.ops.aten.index_put.default: torch.ops.aten.index_put_.default,
    torch.ops.aten.scatter_add.default: torch.ops.aten.scatter_add_.default,
}
"""see Recorder._of_backward"""


def _is_alone(tensor: Tensor) -> bool:
    """Whether no other tensor shares its storage."""
    both = tensor, torch.empty(1, device="meta")
    holders, of_one = (torch._C._storage_Use_Count(t.untyped_storage()._cdata) for t in both)
    return holders <= of_one


RESERVES = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"})
"""operations that only take memory"""
FILLS = frozenset({"full_like", "new_full", "new_ones", "new_zeros", "ones_like", "zeros_like"})
"""operations that of their argument take the kind alone"""
ZEROS = frozenset({"new_zeros", "zeros", "zeros_like"})
GATHERS = frozenset({"embedding", "gather", "index", "index_select"})
"""operations that read of their first tensor as many values as they write"""
BAGS = frozenset({"_embedding_bag", "_embedding_bag_forward_only"})
"""operations that read a row of their first tensor for every element of their second"""
SCATTERS = frozenset(
    {"index_add", "index_put", "scatter", "scatter_add", "scatter_reduce", "_index_put_impl"}
)
"""operations that write or add their last tensor to places of their first; in place too, with an
underscore at their end"""


def moved_bytes(
    name: str, read: Sequence[Tensor], written: Sequence[Tensor], *, in_place: bool = False
) -> int:
    """Bytes that an operation reads and writes, as if no cache held any of them.

    In general those of all tensors, in and out, an expanded dimension once; what works in place
    reads and writes its tensor. Of a table that is indexed, only the rows that are read count,
    each as often as it is read; of one that is added to, only the rows that are added to, each
    read and written as often. in_place: the result is the first tensor itself.
    """
    if name in RESERVES:
        return 0
    if name in FILLS:
        return _sizes(written)
    if name in GATHERS:
        return _sizes(read[1:]) + 2 * _sizes(written)
    if name in BAGS:
        table, indices = read[:2]
        row = table.shape[1] * table.element_size()
        return indices.numel() * row + _sizes(read[1:]) + _sizes(written)
    if name.rstrip("_") in SCATTERS:
        copied = 0 if in_place else _sizes(read[:1]) + _sizes(written)
        return copied + _sizes(read[1:]) + 2 * _sizes(read[-1:])
    return _sizes(read) + _sizes(written)


_FORMULAS = dict(getattr(flop_counter, "flop_registry", None) or vars(flop_counter)["flop_mapping"])
_FORMULAS[torch.ops.aten.addmm_] = _FORMULAS[torch.ops.aten.addmm]
_FORMULAS[torch.ops.aten.baddbmm_] = _FORMULAS[torch.ops.aten.baddbmm]
"""torch's own, and those of the same operations in place, which it leaves out"""


def _flops(operation: Any, args: Any, kwargs: Any, out: Any) -> int:
    formula = _FORMULAS.get(operation._overloadpacket)
    if formula is None:
        return 0
    if hasattr(formula, "__wrapped__"):  # takes tensors
        return formula(*args, **kwargs, out_val=out)
    args, kwargs, out_shape = tree_map(  # torch 2.1
        lambda value: value.shape if isinstance(value, Tensor) else value, (args, kwargs, out)
    )
    return formula(*args, **kwargs, out_shape=out_shape)


def tensors_in(values: Any) -> list[Tensor]:
    """The tensors in nested values, in their order, each once."""
    leaves, _ = tree_flatten(values)
    return list({id(leaf): leaf for leaf in leaves if isinstance(leaf, Tensor)}.values())


def _sizes(tensors: Sequence[Tensor]) -> int:
    """Bytes, of an expanded dimension once."""
    total = 0
    for tensor in tensors:
        sizes = zip(tensor.shape, tensor.stride(), strict=True)
        lengths = (length if stride else min(length, 1) for length, stride in sizes)
        total += tensor.element_size() * prod(lengths)
    return total
