"""Base of the CPU samplers: hop loop, relabelling of nodes, threads.

The loops are compiled at run time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numba
import numpy as np
import torch

from sagebench.sampling.blocks import Blocks
from sagebench.sampling.random import MULTIPLIER_1, MULTIPLIER_2

UNSEEN, NUMBERED, FOUND = 0, 1, 2
"""states of a node in the dense map: not in the sample, has a local number, new in this hop"""

FOUND_IN_WORD = 0x0202020202020202
ROWS_PER_TASK = 2048
NODES_PER_TASK = 1 << 18
compiled = numba.njit(nogil=True, cache=True, boundscheck=False)


class CpuSampler(ABC):
    """Base of a CPU sampler: neighborhoods of a graph in CSC (colptr int64 [N + 1], row int32 or
    int64 [E]). A sampler says how many edges a row has, and which.

    Holds 5 bytes a node of scratch, so one instance serves one caller at a time.
    """

    @abstractmethod
    def row_ends(self, frontier: np.ndarray, k: int, hop: int, key: int) -> np.ndarray:
        """Sampled edges of the rows 0 to i, int64 [rows].

        frontier: int64 [rows] global ids. k: neighbors of the hop, -1 for every one. hop: from 1.
        key: 64-bit key of the micro-batch.
        """

    @abstractmethod
    def sample_rows(
        self, frontier: np.ndarray, k: int, hop: int, key: int, first: int, last: int,
        ends: np.ndarray, out: np.ndarray,
    ) -> None:  # fmt: skip
        """Sample the neighbors of the rows [first, last) into `out`, in the order of `row`."""

    def __init__(self, colptr: np.ndarray, row: np.ndarray, threads: int = 1) -> None:
        self.colptr = colptr
        self.row = row
        self.threads = threads
        nodes = len(colptr) - 1
        self._state = np.zeros(-(-nodes // 8) * 8, np.uint8)
        self._local = np.empty(nodes, np.int32)
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def sample(
        self, seeds: np.ndarray, fanout: Sequence[int], key: int, *, relabel_last: bool = True
    ) -> Blocks:
        """Sample the neighborhood of `seeds`.

        seeds: int64 [B] distinct node ids. fanout: neighbors a hop, -1 for every one. key: 64-bit
        key of the micro-batch. relabel_last: number the nodes of the last hop too; the first
        layer of the `blocks` engine reads the global features and does not need it.
        """
        state, local = self._state, self._local
        state[:] = UNSEEN
        local[seeds] = np.arange(len(seeds), dtype=np.int32)
        state[seeds] = NUMBERED

        frontier = np.ascontiguousarray(seeds, dtype=np.int64)
        nodes, rowptrs = [frontier], [np.zeros(1, np.int64)]
        neighbors: list[np.ndarray] = []
        cols: list[np.ndarray] = []
        edge_base, node_base = 0, len(seeds)
        for hop, k in enumerate(fanout):
            relabel = relabel_last or hop < len(fanout) - 1
            ends = self.row_ends(frontier, k, hop + 1, key)
            edges = int(ends[-1]) if len(ends) else 0
            found = np.empty(edges, self.row.dtype)

            def rows(first, last, frontier=frontier, k=k, hop=hop, ends=ends, out=found, r=relabel):
                self.sample_rows(frontier, k, hop + 1, key, first, last, ends, out)
                if r:
                    _mark_found(state, out, ends, first, last)

            self._over(len(frontier), ROWS_PER_TASK, rows)
            new = self._number_found(node_base) if relabel else frontier[:0]
            if relabel:
                col = np.empty(edges, np.int32)
                self._over(edges, ROWS_PER_TASK * 32, partial(_relabel, local, found, col))
                cols.append(col)
            rowptrs.append(ends + edge_base)
            neighbors.append(found)
            nodes.append(new)
            edge_base += edges
            node_base += len(new)
            frontier = new
        return Blocks(
            node_ids=torch.from_numpy(np.concatenate(nodes)),
            rowptr=torch.from_numpy(np.concatenate(rowptrs)),
            neighbors=torch.from_numpy(_concatenate(neighbors, self.row.dtype)),
            cols=torch.from_numpy(_concatenate(cols, np.dtype(np.int32))),
            nodes_per_hop=tuple(len(part) for part in nodes),
            edges_per_hop=tuple(len(part) for part in neighbors),
            key=key,
        )

    def _number_found(self, base: int) -> np.ndarray:
        """Give the nodes found in this hop local numbers from `base`, in ascending id; int64."""
        state, nodes = self._state, len(self._state)
        starts = range(0, nodes, NODES_PER_TASK)
        counts = np.zeros(len(starts) + 1, np.int64)

        def count(first: int, last: int) -> None:
            counts[first // NODES_PER_TASK + 1] = _count_found(state, first, last)

        self._over(nodes, NODES_PER_TASK, count)
        ends = counts.cumsum()
        new = np.empty(ends[-1], np.int64)
        self._over(
            nodes,
            NODES_PER_TASK,
            lambda first, last: _number_found(
                state, self._local, base, first, last, ends[first // NODES_PER_TASK], new
            ),
        )
        return new

    def _over(self, count: int, size: int, task: Callable[[int, int], None]) -> None:
        """Run `task(first, last)` over pieces of range(count), in the threads."""
        if self._pool is None or count <= size:
            task(0, count)
            return
        pieces = range(0, count, size)
        list(self._pool.map(lambda first: task(first, min(first + size, count)), pieces))


def _concatenate(parts: list[np.ndarray], dtype: np.dtype) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, dtype)


@compiled
def mix64(z):
    """`random.mix64` of a uint64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(MULTIPLIER_1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(MULTIPLIER_2)
    return z ^ (z >> np.uint64(31))


@compiled
def _mark_found(state, found, ends, first, last):
    """Note which nodes the rows [first, last) found that are not in the sample yet."""
    for e in range(ends[first - 1] if first > 0 else 0, ends[last - 1] if last > 0 else 0):
        v = found[e]
        if state[v] == UNSEEN:
            state[v] = FOUND


@compiled
def _count_found(state, first, last):
    """Number of the nodes [first, last) that are new in this hop; first is a multiple of 8."""
    words = state.view(np.uint64)
    count = 0
    for w in range(first // 8, (last + 7) // 8):
        if words[w] & np.uint64(FOUND_IN_WORD):
            for v in range(8 * w, 8 * w + 8):
                count += state[v] == FOUND
    return count


@compiled
def _number_found(state, local, base, first, last, at, new):
    """Number those nodes in ascending id, from `base + at`; list them in new[at:]."""
    words = state.view(np.uint64)
    for w in range(first // 8, (last + 7) // 8):
        if words[w] & np.uint64(FOUND_IN_WORD):
            for v in range(8 * w, 8 * w + 8):
                if state[v] == FOUND:
                    state[v] = NUMBERED
                    local[v] = base + at
                    new[at] = v
                    at += 1


@compiled
def _relabel(local, neighbors, out, first, last):
    for e in range(first, last):
        out[e] = local[neighbors[e]]
