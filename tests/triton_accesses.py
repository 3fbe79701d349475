"""Memory that kernels access in Triton's interpreter: outside of their tensors, and races."""

from __future__ import annotations

import numpy as np
from triton.runtime.interpreter import GridExecutor, InterpreterBuilder

READ_STALE = {"_expand_kernel"}
"""kernels whose programs may read what another one stores: all of them store the same mark, and who
reads it too early stores it once more"""


class Accesses:
    """Context in which every launch is checked; `found` says in a line each what is wrong."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.launches = 0

    def __enter__(self) -> Accesses:
        self._kept = GridExecutor.__call__, *map(InterpreterBuilder.__dict__.get, METHODS)
        launch, load, store = self._kept

        def launched(executor, *args, **kwargs):
            self._begin([*args, *kwargs.values()])
            launch(executor, *args, **kwargs)
            self._end(executor.fn.__name__)

        def loaded(builder, ptrs, mask, *others):
            self._note(builder.grid_idx, ptrs, mask, None)
            return load(builder, ptrs, mask, *others)

        def stored(builder, ptrs, value, mask, *others):
            self._note(builder.grid_idx, ptrs, mask, value)
            return store(builder, ptrs, value, mask, *others)

        GridExecutor.__call__ = launched
        for name, method in zip(METHODS, (loaded, stored), strict=True):
            setattr(InterpreterBuilder, name, method)
        return self

    def __exit__(self, *_: object) -> None:
        GridExecutor.__call__ = self._kept[0]
        for name, method in zip(METHODS, self._kept[1:], strict=True):
            setattr(InterpreterBuilder, name, method)

    def _begin(self, arguments: list[object]) -> None:
        self.launches += 1
        self._outside = 0
        self._loads: list[np.ndarray] = []  # addresses and programs
        self._stores: list[np.ndarray] = []  # addresses, programs, and the values' bits
        extents = []
        for tensor in arguments:
            if hasattr(tensor, "data_ptr") and tensor.numel():
                steps = zip(tensor.shape, tensor.stride(), strict=True)
                values = 1 + sum((size - 1) * stride for size, stride in steps)
                start = tensor.data_ptr()
                extents.append((start, start + values * tensor.element_size()))
        merged: list[list[int]] = []
        for start, end in sorted(extents):
            if merged and start < merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], end)
            else:
                merged.append([start, end])
        self._starts, self._ends = np.array(merged, np.int64).reshape(-1, 2).T

    def _note(self, program, ptrs, mask, value) -> None:
        pointers, inside = np.broadcast_arrays(ptrs.data, mask.data.astype(bool))
        addresses = pointers[inside].astype(np.int64)
        width = -(-ptrs.get_element_ty().primitive_bitwidth // 8)
        at = np.searchsorted(self._starts, addresses, "right") - 1
        legal = (at >= 0) & (addresses + width <= self._ends[at])
        self._outside += int((~legal).sum())
        programs = np.full_like(addresses, program[0])
        if value is None:
            self._loads.append(np.stack([addresses, programs]))
            return
        values = np.broadcast_to(value.data, pointers.shape)[inside]
        bits = values.view(f"u{values.itemsize}").astype(np.int64)
        self._stores.append(np.stack([addresses, programs, bits]))

    def _end(self, kernel: str) -> None:
        if self._outside:
            self.found.append(f"{kernel}: {self._outside} accesses outside of its tensors")
        if not self._stores:
            return
        addresses, programs, bits = np.concatenate(self._stores, axis=1)
        places, first = np.unique(np.sort(addresses), return_index=True)
        order = np.argsort(addresses, kind="stable")

        def differ(values: np.ndarray) -> np.ndarray:
            ordered = values[order]
            return np.minimum.reduceat(ordered, first) != np.maximum.reduceat(ordered, first)

        shared = differ(programs)
        if (shared & differ(bits)).any():
            self.found.append(f"{kernel}: programs store different values to one place")
        if kernel in READ_STALE or not self._loads:
            return
        loaded, by = np.concatenate(self._loads, axis=1)
        at = np.searchsorted(places, loaded).clip(max=len(places) - 1)
        stored = places[at] == loaded
        if (stored & (shared[at] | (programs[order][first[at]] != by))).any():
            self.found.append(f"{kernel}: a program reads what another one stores")


METHODS = ("create_masked_load", "create_masked_store")
