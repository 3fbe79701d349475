"""The sampler `labor`: LABOR-0 (Balin and Catalyurek 2023, "Layer-neighbor sampling").

Every node u of the graph draws one number r(u) in [0, 1) a micro-batch, the same in every hop and
for every row; the edge u -> v is kept if r(u) < k / d(v). So a row has k edges in expectation, and
rows choose the same neighbors as far as they can: fewer nodes in all, for as many edges. A row may
stay empty. In integers: r has 32 bits, and r * d(v) < k * 2**32 is asked.
"""

from __future__ import annotations

import numpy as np

from sagebench.sampling.cpu import ROWS_PER_TASK, CpuSampler, compiled, mix64
from sagebench.sampling.random import LABOR_STREAM, NODE_STRIDE, fold

SAMPLER = "LABOR-0: k neighbors of each node in expectation, shared between the rows"
LAW = "labor"
GIVES = "blocks"
KEYED = True


class Sampler(CpuSampler):
    def row_ends(self, frontier: np.ndarray, k: int, hop: int, key: int) -> np.ndarray:
        counts = np.empty(len(frontier), np.int64)
        keyed = np.uint64(fold(LABOR_STREAM, key))
        self._over(
            len(frontier),
            ROWS_PER_TASK,
            lambda first, last: _count(
                self.colptr, self.row, frontier, k, keyed, first, last, counts
            ),
        )
        return counts.cumsum(out=counts)

    def sample_rows(
        self, frontier: np.ndarray, k: int, hop: int, key: int, first: int, last: int,
        ends: np.ndarray, out: np.ndarray,
    ) -> None:  # fmt: skip
        keyed = np.uint64(fold(LABOR_STREAM, key))
        _sample_rows(self.colptr, self.row, frontier, ends, k, keyed, first, last, out)


@compiled
def _is_kept(node, degree, k, key):
    if k < 0:
        return True
    r = mix64(key + np.uint64(node) * np.uint64(NODE_STRIDE)) >> np.uint64(32)
    return r * np.uint64(degree) < np.uint64(k) << np.uint64(32)


@compiled
def _count(colptr, row, frontier, k, key, first, last, counts):
    for i in range(first, last):
        start, stop = colptr[frontier[i]], colptr[frontier[i] + 1]
        counts[i] = 0
        for e in range(start, stop):
            counts[i] += _is_kept(row[e], stop - start, k, key)


@compiled
def _sample_rows(colptr, row, frontier, ends, k, key, first, last, out):
    """Sample the neighbors of the rows [first, last) into `out`, in edge order."""
    for i in range(first, last):
        start, stop = colptr[frontier[i]], colptr[frontier[i] + 1]
        at = ends[i - 1] if i > 0 else np.int64(0)
        for e in range(start, stop):
            if _is_kept(row[e], stop - start, k, key):
                out[at] = row[e]
                at += 1
