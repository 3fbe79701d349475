"""Small graphs for tests."""

from __future__ import annotations

import numpy as np


def random_csc(nodes: int, edges: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A random directed graph (colptr int64 [nodes + 1], row int32 [<= edges]): no self loops, no
    repeats, rows ascending; some nodes have no neighbor, a few have many."""
    rng = np.random.default_rng(seed)
    source = rng.integers(0, nodes, edges)
    target = (nodes * rng.random(edges) ** 2).astype(np.int64)
    pairs = np.unique(np.stack([target, source], 1)[source != target], axis=0)
    colptr = np.searchsorted(pairs[:, 0], np.arange(nodes + 1))
    return colptr.astype(np.int64), pairs[:, 1].astype(np.int32)


def star_csc(degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Node 0 has the neighbors 1 to `degree`; they have none."""
    colptr = np.full(degree + 2, degree, np.int64)
    colptr[0] = 0
    return colptr, np.arange(1, degree + 1, dtype=np.int32)
