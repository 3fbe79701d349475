"""Conversion of an edge list to CSC, within a small memory bound.

An edge u -> v becomes the number v * N + u. Sorting these numbers in place orders the edges by
column and, within it, by row; equal neighbors are duplicates. For ogbn-products (123.7 million
directed edges) the peak is two such lists, 2 GB, above what the caller holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK_EDGES = 1 << 22
LARGEST_NUM_NODES = 3_037_000_499  # its square is the largest below 2**63


def csc_from_edges(
    edge_index: NDArray[np.integer[Any]], num_nodes: int, undirected: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.integer[Any]]]:
    """(colptr int64 [N+1], row [E]) of the edges u -> v in `edge_index` [2, E'] (u; v).

    Column v holds the neighbors u in ascending order. Self loops and repeated edges are dropped;
    with `undirected` every edge counts in both directions. Ids are taken as checked.
    """

    def pieces() -> Iterator[NDArray[np.int64]]:
        yield np.empty(0, np.int64)
        for start in range(0, edge_index.shape[1], CHUNK_EDGES):
            source, target = edge_index[:, start : start + CHUNK_EDGES].astype(np.int64)
            yield edge_keys(source, target, num_nodes)
            if undirected:
                yield edge_keys(target, source, num_nodes)

    keys = sorted_unique(np.concatenate([*pieces()]))
    return colptr_of(keys, num_nodes), row_of(keys, num_nodes)


def edge_keys(
    source: NDArray[np.int64], target: NDArray[np.int64], num_nodes: int
) -> NDArray[np.int64]:
    """The keys of the edges source -> target; a self loop's is -1."""
    if num_nodes > LARGEST_NUM_NODES:
        raise ValueError(f"{num_nodes} nodes: an edge's key would not fit 64 bits")
    keys = target * num_nodes + source
    keys[source == target] = -1
    return keys


def sorted_unique(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """The keys of edges, ascending and without repeats. `keys` itself is sorted in place."""
    keys.sort()
    keys = keys[np.searchsorted(keys, 0) :]  # without self loops, which are negative
    kept = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=kept[1:])
    return keys[kept]


def colptr_of(keys: NDArray[np.int64], num_nodes: int) -> NDArray[np.int64]:
    """colptr int64 [N+1] of `sorted_unique` keys."""
    first_keys = np.arange(num_nodes + 1, dtype=np.int64) * num_nodes
    return np.searchsorted(keys, first_keys).astype(np.int64, copy=False)


def row_of(keys: NDArray[np.int64], num_nodes: int) -> NDArray[np.integer[Any]]:
    """row [E] of `sorted_unique` keys: int32 where the ids fit, else int64."""
    row = np.empty(len(keys), np.int32 if num_nodes < 2**31 else np.int64)
    for start in range(0, len(keys), CHUNK_EDGES):
        stop = start + CHUNK_EDGES
        np.remainder(keys[start:stop], num_nodes, out=row[start:stop], casting="same_kind")
    return row
