"""The sampler `uniform`: neighbors without replacement, every subset equally likely."""

from __future__ import annotations

import numpy as np

from sagebench.sampling.cpu import CpuSampler, compiled, mix64
from sagebench.sampling.random import GOLDEN, NODE_STRIDE, hop_key

SAMPLER = "k neighbors of each node, uniformly without replacement"
LAW = "uniform"
GIVES = "blocks"
KEYED = True


class Sampler(CpuSampler):
    def row_ends(self, frontier: np.ndarray, k: int, hop: int, key: int) -> np.ndarray:
        ends = np.empty(len(frontier), np.int64)
        _row_ends(self.colptr, frontier, k, ends)
        return ends

    def sample_rows(
        self, frontier: np.ndarray, k: int, hop: int, key: int, first: int, last: int,
        ends: np.ndarray, out: np.ndarray,
    ) -> None:  # fmt: skip
        keyed = np.uint64(hop_key(key, hop))
        _sample_rows(self.colptr, self.row, frontier, ends, k, keyed, first, last, out)


@compiled
def _row_ends(colptr, frontier, k, ends):
    """ends[i]: sampled edges of the rows 0 to i."""
    total = 0
    for i in range(len(frontier)):
        degree = colptr[frontier[i] + 1] - colptr[frontier[i]]
        total += degree if k < 0 or degree < k else k
        ends[i] = total


@compiled
def _sample_rows(colptr, row, frontier, ends, k, key, first, last, out):
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
            row_key = mix64(key + np.uint64(node) * np.uint64(NODE_STRIDE))
            for n in range(k):
                j = degree - k + n
                draw = mix64(row_key + np.uint64(n + 1) * np.uint64(GOLDEN)) >> np.uint64(32)
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
