"""Placement of graph and features, decided from sizes, and the loader of mini-batches for each."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sagebench import registry
from sagebench.graph.store import GraphStore
from sagebench.grid.trial import Trial
from sagebench.models.base import layer_class
from sagebench.sampling.blocks import Blocks
from sagebench.units import GIB

RESERVE_BYTES = 4 * GIB
"""left for weights, the sampler's scratch, the batches ahead and a step's activations ..."""
RESERVE_SHARE = 0.5
"""... and no more than this share of what is available"""
Inputs = tuple[Tensor, Blocks] | tuple[Tensor, Blocks, bool, Tensor | None]
"""arguments of the forward pass of `Network`"""


def torch_view(array: np.ndarray) -> Tensor:
    """The (memory-mapped, read-only) array as a CPU tensor, without a copy. Never write to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(array)


@dataclass(frozen=True)
class Placement:
    """chosen: `device`: graph and features resident there, sampled there; `host`: sampled and
    gathered on the host, copied batch by batch; `mapped`: a CPU reads the store where it lies.

    available_bytes: what the device had to give, None on a CPU.
    """

    chosen: str
    graph_bytes: int
    features_bytes: int
    available_bytes: int | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        """The choice and the sizes that led to it."""
        sizes = {
            "graph": self.graph_bytes,
            "features": self.features_bytes,
            "available": self.available_bytes,
        }
        known = (f"{name} {size / GIB:.2f} GiB" for name, size in sizes.items() if size is not None)
        return f"{self.chosen}: {', '.join(known)}"


def choose_placement(
    wanted: str, graph_bytes: int, features_bytes: int, available_bytes: int | None
) -> Placement:
    """wanted: `device` and `host` are fixed; `auto` takes the device if all of it fits there
    beside the reserve, and `mapped` where there is no device (available_bytes None)."""
    if wanted != "auto":
        chosen = wanted
    elif available_bytes is None:
        chosen = "mapped"
    else:
        reserve = min(RESERVE_BYTES, RESERVE_SHARE * available_bytes)
        chosen = "device" if graph_bytes + features_bytes + reserve <= available_bytes else "host"
    return Placement(chosen, graph_bytes, features_bytes, available_bytes)


def placement_of(wanted: str, store: GraphStore, available_bytes: int | None) -> Placement:
    graph_bytes = store.colptr.nbytes + store.row.nbytes
    return choose_placement(wanted, graph_bytes, store.features.nbytes, available_bytes)


def available_bytes(device: torch.device, memory_limit_gib: float | None) -> int | None:
    """Bytes that this process may still allocate on a CUDA device, None on a CPU."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    allocated = torch.cuda.memory_allocated(device)
    free += torch.cuda.memory_reserved(device) - allocated
    return free if memory_limit_gib is None else min(free, int(memory_limit_gib * GIB) - allocated)


class Loader:
    """Samples neighborhoods and makes of them what the forward pass of `Network` takes.

    colptr, row, features: the store's, where they are kept; here a CPU reads the memory-mapped
    store where it lies, and nothing is copied. degrees: float32 in-degrees [N] there, for a model
    that needs them. gathers: whether a batch has the features of its own nodes; otherwise the
    model reads those of the whole graph. Any number of threads may sample.
    """

    always_gathers = False

    def __init__(self, trial: Trial, store: GraphStore, device: torch.device) -> None:
        layer = layer_class(trial.model)
        self.gathers = self.always_gathers or not layer.reads_features
        # Evaluation samples here whatever samples for training.
        own = registry.declared("sampler", trial.sampler)["GIVES"] == "blocks"
        self.sampler, self.fanout = trial.sampler if own else "uniform", trial.fanout
        self.device = device
        self.colptr, self.row, self.features = (
            self._keep(torch_view(array)) for array in (store.colptr, store.row, store.features)
        )
        self.degrees = self.colptr.diff().float() if layer.needs_degrees else None
        # A sampler serves one caller at a time: one for each worker, one for this thread.
        self._samplers: SimpleQueue[Any] = SimpleQueue()
        for _ in range(trial.sampling_workers + 1):
            self._samplers.put(self._make_sampler(store))

    def sample(self, seeds: np.ndarray, key: int) -> Blocks:
        """seeds: int64 [B] distinct node ids. key: 64-bit key of the sample."""
        sampler = self._samplers.get()
        try:
            return sampler.sample(seeds, self.fanout, key, relabel_last=self.gathers)
        finally:
            self._samplers.put(sampler)

    def load(self, blocks: Blocks) -> Inputs:
        """The arguments of the network's forward pass, on the device."""
        if not self.gathers:
            return self.features, blocks
        return self.features[blocks.node_ids], *self._gathered(blocks)

    def _gathered(self, blocks: Blocks) -> tuple[Blocks, bool, Tensor | None]:
        """What goes with gathered features, where graph and features are."""
        degrees = None if self.degrees is None else self.degrees[blocks.node_ids]
        # The model reads local numbers alone: global ones of the sources need not travel.
        return blocks._replace(neighbors=blocks.neighbors[:0]), True, degrees

    def _keep(self, array: Tensor) -> Tensor:
        return array

    def _make_sampler(self, store: GraphStore) -> Any:
        sampler = registry.load("sampler", self.sampler)  # needs numba, which a GPU can do without
        return sampler.Sampler(store.colptr, store.row)


class DeviceLoader(Loader):
    """Graph and features are resident on the device; sampling never leaves it."""

    def _keep(self, array: Tensor) -> Tensor:
        return array.to(self.device)

    def _make_sampler(self, store: GraphStore) -> Any:
        return registry.load("device sampler", self.sampler).Sampler(self.colptr, self.row)


class PinnedBuffers:
    """Pinned host memory that copies to a GPU are made from: one buffer for each thread that copies
    at a time, grown as needed.

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
        """Return a buffer for reuse, once the copies queued on the current stream are done."""
        copied = torch.cuda.Event()
        copied.record()
        whole = torch.empty(0, dtype=torch.uint8).set_(taken.untyped_storage())
        self._free.put((whole, copied))


class HostLoader(Loader):
    """Graph and features stay on the host; a batch's features are gathered there and copied."""

    always_gathers = True

    def __init__(self, trial: Trial, store: GraphStore, device: torch.device) -> None:
        super().__init__(trial, store, device)
        self._pinned = PinnedBuffers()

    def load(self, blocks: Blocks) -> Inputs:
        if self.device.type == "cpu":
            return super().load(blocks)
        shape = len(blocks.node_ids), self.features.shape[1]
        buffer = self._pinned.take(shape, self.features.dtype)
        torch.index_select(self.features, 0, blocks.node_ids, out=buffer)
        features = buffer.to(self.device, non_blocking=True)
        self._pinned.give_back(buffer)
        blocks, gathered, degrees = self._gathered(blocks)
        if degrees is not None:
            degrees = degrees.pin_memory().to(self.device, non_blocking=True)
        return features, blocks.pin_memory().to(self.device), gathered, degrees


LOADERS: dict[str, Callable[[Trial, GraphStore, torch.device], Loader]] = {
    "mapped": Loader,
    "device": DeviceLoader,
    "host": HostLoader,
}
