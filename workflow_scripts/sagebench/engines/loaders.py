"""Loading of mini-batches: placement of graph and features, decided from sizes, the loader that
samples and gathers there, and prefetching in background threads, on a CUDA stream of its own."""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from sagebench import registry
from sagebench.engines.aggregated_features import open_table
from sagebench.engines.precision import compute_dtype
from sagebench.graph.store import GraphStore
from sagebench.grid.last_hop import aggregates_features, table_aggregator
from sagebench.grid.trial import Trial
from sagebench.models.base import layer_class
from sagebench.sampling.blocks import Blocks, torch_view
from sagebench.units import GIB

RESERVE_BYTES = 4 * GIB
"""left for weights, the sampler's scratch, the batches ahead and a step's activations ..."""
RESERVE_SHARE = 0.5
"""... and no more than this share of what is available"""
ROWS_A_COPY = 1 << 20
Inputs = tuple[Tensor, Blocks, bool, Tensor | None, Tensor | None]
"""arguments of the forward pass of `Network`"""
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Placement:
    """chosen: `device`: graph and features resident there, sampled there; `host`: sampled and
    gathered on the host, copied batch by batch; `mapped`: a CPU reads the store where it lies.

    features_dtype: in which the features are kept on the device. features_bytes: there, with the
    table of aggregated ones, where the trial reads it. available_bytes: what the device had to
    give, None on a CPU.
    """

    chosen: str
    features_dtype: str
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


def choose_placement(trial: Trial, store: GraphStore, available_bytes: int | None) -> Placement:
    """The trial's placement: `device` and `host` are fixed; `auto` takes the device if all of it
    fits there beside the reserve, and `mapped` where there is no device (available_bytes None)."""
    wanted, graph_bytes = trial.placement, store.colptr.nbytes + store.row.nbytes
    tables = 2 if table_aggregator(trial) else 1

    def features_bytes(placement: str) -> int:
        return store.features.nbytes * tables * features_dtype(trial, placement).itemsize // 4

    if wanted != "auto":
        chosen = wanted
    elif available_bytes is None:
        chosen = "mapped"
    else:
        reserve = min(RESERVE_BYTES, RESERVE_SHARE * available_bytes)
        resident = graph_bytes + features_bytes("device")
        chosen = "device" if resident + reserve <= available_bytes else "host"
    dtype = str(features_dtype(trial, chosen)).removeprefix("torch.")
    return Placement(chosen, dtype, graph_bytes, features_bytes(chosen), available_bytes)


def available_bytes(device: torch.device, memory_limit_gib: float | None) -> int | None:
    """Bytes that this process may still allocate on a CUDA device, None on a CPU."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    allocated = torch.cuda.memory_allocated(device)
    free += torch.cuda.memory_reserved(device) - allocated
    return free if memory_limit_gib is None else min(free, int(memory_limit_gib * GIB) - allocated)


def features_dtype(trial: Trial, placement: str) -> torch.dtype:
    """dtype in which a placement keeps the features: on a device that of the arithmetic, which in
    bf16 takes half the memory and traffic; evaluation reads the same, and computes in float32."""
    resident = placement == "device" and trial.samples_where_placed
    return compute_dtype(trial) if resident else torch.float32


def gathers(trial: Trial, placement: str) -> bool:
    """Whether a batch has the features of its own nodes; otherwise the model reads those of the
    whole graph. placement: as Placement.chosen has it."""
    return placement == "host" or aggregates_features(trial) is None


class Loader:
    """Samples neighborhoods and makes of them what the forward pass of `Network` takes.

    colptr, row, features: the store's, where they are kept: on the device with placement `device`,
    the features there of `features_dtype`; else memory-mapped where they lie, without a copy.
    degrees: float32 in-degrees [N] there, for a model that needs them. table: of aggregated
    features, kept as they are, where the last hop is read from one. Any number of threads may
    sample.
    """

    def __init__(
        self, trial: Trial, store: GraphStore, device: torch.device, placement: str
    ) -> None:
        """placement: as Placement.chosen has it."""
        self.device = device
        self.fanout = trial.fanout
        self.gathers = gathers(trial, placement)
        self._trial, self._resident = trial, placement == "device"
        home = device if self._resident else torch.device("cpu")
        dtype = features_dtype(trial, placement)
        self.features = kept(store.features, home, dtype)
        aggregator = table_aggregator(trial)
        self.table: Tensor | None = None
        if aggregator is not None:
            self.table = kept(open_table(store, aggregator), home, dtype)
        self._pinned = PinnedBuffers() if placement == "host" and device.type == "cuda" else None
        self._take_graph(store)

    def _take_graph(self, store: GraphStore) -> None:
        trial, home = self._trial, self.features.device
        self.colptr, self.row = (torch_view(array).to(home) for array in (store.colptr, store.row))
        needs_degrees = layer_class(trial.model).needs_degrees
        self.degrees = self.colptr.diff().float() if needs_degrees else None
        # Evaluation samples here whatever samples for training.
        own = registry.declared("sampler", trial.sampler)["GIVES"] == "blocks"
        kind = "device sampler" if self._resident else "sampler"
        sampler = registry.load(kind, trial.sampler if own else "uniform").Sampler
        graph = (self.colptr, self.row) if self._resident else (store.colptr, store.row)
        # A sampler serves one caller at a time: one for each worker, one for this thread.
        self._samplers: SimpleQueue[Any] = SimpleQueue()
        for _ in range(trial.sampling_workers + 1):
            self._samplers.put(sampler(*graph))

    def over(self, store: GraphStore) -> Loader:
        """A loader of the same features over the graph of another store, whose last hop is sampled:
        a table is of one graph."""
        other = copy.copy(self)
        other.table = None
        other._take_graph(store)
        return other

    def sample(self, seeds: np.ndarray, key: int) -> Blocks:
        """seeds: int64 [B] distinct node ids. key: 64-bit key of the sample."""
        sampler = self._samplers.get()
        try:
            if self.table is None:
                return sampler.sample(seeds, self.fanout, key, relabel_last=self.gathers)
            return sampler.sample(seeds, self.fanout[:-1], key).with_last_hop_known()
        finally:
            self._samplers.put(sampler)

    def load(self, blocks: Blocks) -> Inputs:
        """The arguments of the network's forward pass, on the device."""
        if not self.gathers:
            return self.features, blocks, False, None, self.table
        wanted = [(self.features, blocks.node_ids)]
        if self.table is not None:
            wanted.append((self.table, blocks.node_ids[len(blocks.rowptr) - 1 :]))
        features, *known = self._rows_of(wanted)
        # The model reads local numbers alone: global ones of the sources need not travel.
        gathered = blocks._replace(neighbors=blocks.neighbors[:0])
        degrees = None if self.degrees is None else self.degrees[blocks.node_ids]
        if self._pinned is not None:
            gathered = gathered.pin_memory().to(self.device)
            if degrees is not None:
                degrees = degrees.pin_memory().to(self.device, non_blocking=True)
        return features, gathered, True, degrees, known[0] if known else None

    def _rows_of(self, wanted: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """Some rows of matrices that are kept here, on the device."""
        if self._pinned is None:
            return [matrix[ids] for matrix, ids in wanted]
        buffers, found = [], []
        for matrix, ids in wanted:
            buffer = self._pinned.take((len(ids), matrix.shape[1]), matrix.dtype)
            torch.index_select(matrix, 0, ids, out=buffer)
            found.append(buffer.to(self.device, non_blocking=True))
            buffers.append(buffer)
        for buffer in buffers:  # only now: a buffer that is taken again is waited for
            self._pinned.give_back(buffer)
        return found


def kept(array: np.ndarray, home: torch.device, dtype: torch.dtype) -> Tensor:
    """The array on a device: itself where nothing changes, else copied piece by piece, for torch
    casts all that it is given on the host first."""
    view = torch_view(array)
    if home.type == "cpu" and dtype == view.dtype:
        return view
    found = torch.empty(view.shape, dtype=dtype, device=home)
    for piece, there in zip(view.split(ROWS_A_COPY), found.split(ROWS_A_COPY), strict=True):
        there.copy_(piece)
    return found


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
            for leaf in tree_flatten(result)[0]:
                # Its memory is not to be taken anew before this stream is done.
                if isinstance(leaf, Tensor) and leaf.is_cuda:
                    leaf.record_stream(current)
        return result
