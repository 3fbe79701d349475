"""The CPU sampler: uniform without replacement, compiled at run time, any number of threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import torch

from sagebench.sampling.blocks import Blocks
from sagebench.sampling.random import (
    GOLDEN,
    MASK64,
    MULTIPLIER_1,
    MULTIPLIER_2,
    NODE_STRIDE,
    mix64,
)

UNSEEN, NUMBERED, FOUND = 0, 1, 2
"""states of a node in the dense map: not in the sample, has a local number, new in this hop"""

FOUND_IN_WORD = 0x0202020202020202
ROWS_PER_TASK = 2048
NODES_PER_TASK = 1 << 18
compiled = numba.njit(nogil=True, cache=True, boundscheck=False)


class CpuSampler:
    """Samples neighborhoods of a graph in CSC (colptr int64 [N + 1], row int32 or int64 [E]).

    Holds 5 bytes a node of scratch, so one instance serves one caller at a time.
    """

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
            ends = np.empty(len(frontier), np.int64)
            edges = _row_ends(self.colptr, frontier, k, ends)
            found = np.empty(edges, self.row.dtype)
            hop_key = np.uint64(mix64((key + (hop + 1) * GOLDEN) & MASK64))
            self._over(
                len(frontier),
                ROWS_PER_TASK,
                lambda first, last, f=frontier, e=ends, o=found, k=k, q=hop_key, r=relabel: (
                    _sample_rows(self.colptr, self.row, f, e, k, q, first, last, o, state, r)
                ),
            )
            new = self._number_found(node_base) if relabel else frontier[:0]
            if relabel:
                col = np.empty(edges, np.int32)
                self._over(
                    edges,
                    ROWS_PER_TASK * 32,
                    lambda first, last, o=found, c=col: _relabel(local, o, first, last, c),
                )
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
def _row_ends(colptr, frontier, k, ends):
    """ends[i]: sampled edges of the rows 0 to i. Returns their total."""
    total = 0
    for i in range(len(frontier)):
        degree = colptr[frontier[i] + 1] - colptr[frontier[i]]
        total += degree if k < 0 or degree < k else k
        ends[i] = total
    return total


@compiled
def _mix64(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(MULTIPLIER_1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(MULTIPLIER_2)
    return z ^ (z >> np.uint64(31))


@compiled
def _sample_rows(colptr, row, frontier, ends, k, key, first, last, out, state, mark):
    """Sample the neighbors of the rows [first, last) into `out`, in edge order.

    Floyd's algorithm (Bentley, Floyd 1987, "A sample of brilliance"): for j in [d - k, d) draw t
    in [0, j]; take t, or j where t is taken. k keyed draws a row, every k-subset equally likely.
    """
    positions = np.empty(max(k, 1), np.int64)
    for i in range(first, last):
        node = frontier[i]
        start = colptr[node]
        degree = colptr[node + 1] - start
        at = ends[i - 1] if i > 0 else np.int64(0)
        if k < 0 or degree <= k:
            for e in range(degree):
                out[at + e] = row[start + e]
        else:
            row_key = _mix64(key + np.uint64(node) * np.uint64(NODE_STRIDE))
            for n in range(k):
                j = degree - k + n
                draw = _mix64(row_key + np.uint64(n + 1) * np.uint64(GOLDEN)) >> np.uint64(32)
                t = np.int64((draw * np.uint64(j + 1)) >> np.uint64(32))
                p = n
                while p > 0 and positions[p - 1] > t:
                    p -= 1
                if p > 0 and positions[p - 1] == t:
                    positions[n] = j  # j is larger than every position before it
                else:
                    for q in range(n, p, -1):
                        positions[q] = positions[q - 1]
                    positions[p] = t
            for n in range(k):
                out[at + n] = row[start + positions[n]]
        if mark:
            for e in range(at, ends[i]):
                v = out[e]
                if state[v] == UNSEEN:
                    state[v] = FOUND


@compiled
def _count_found(state, first, last):
    """How many of the nodes [first, last) are new in this hop; first is a multiple of 8."""
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
def _relabel(local, neighbors, first, last, out):
    for e in range(first, last):
        out[e] = local[neighbors[e]]
