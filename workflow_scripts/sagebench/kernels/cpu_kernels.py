"""Compiled loops of the layers on the CPU, and the threads they run on.

The kernels hold no lock and work on rows [start, stop) of their arrays, so any number of threads
may share one call; no result depends on how many. numba's own `parallel=True` is not used: its
pool would fight with torch's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import count, pairwise
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from sagebench.sampling.cpu import compiled, mix64
from sagebench.sampling.random import COLUMN_STRIDE, NODE_STRIDE, ROUND_1, ROUND_2

CACHE_LINE_BYTES = 64
PREFETCH_EDGES = 8
"""how far ahead a row is fetched: they lie all over memory, where no hardware guesses the next"""

ROWS_A_CHUNK = 1024
"""rows of the layer kernels' chunks: fixed, so the sums over chunks do not depend on the threads"""

rows_compiled = numba.njit(
    nogil=True, cache=True, boundscheck=False, fastmath={"reassoc", "contract"}
)
"""sums within a row may be taken in vectors: their order is fixed when the kernel is compiled"""


def run_chunks(kernel: Callable[..., None], bounds: Sequence[int], *arguments: Any) -> None:
    """Call kernel(bounds[i], bounds[i + 1], *arguments) for every i on torch's number of threads.

    Chunks are handed out as threads come free; the caller's thread works too.
    """
    chunks = list(pairwise(bounds))
    ticket = count()

    def work() -> None:
        while (i := next(ticket)) < len(chunks):
            kernel(*chunks[i], *arguments)

    helpers = min(torch.get_num_threads(), len(chunks)) - 1
    waiting = [_pool(os.getpid(), helpers).submit(work) for _ in range(helpers)]
    work()
    for future in waiting:
        future.result()


@lru_cache(maxsize=4)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """One pool a process: a forked child has none of its parent's threads."""
    return ThreadPoolExecutor(threads, thread_name_prefix="layer")


def balanced_bounds(rowptr: np.ndarray) -> list[int]:
    """Cut the rows of a CSR into chunks of about equal work (edges and rows)."""
    rows = len(rowptr) - 1
    pieces = max(1, min(4 * torch.get_num_threads(), rows // 64))
    work = rowptr + np.arange(rows + 1)
    inner = np.searchsorted(work, work[-1] * np.arange(1, pieces) // pieces)
    return [0, *inner.tolist(), rows]


@intrinsic
def _prefetch(typing_context, array, row, column):
    """Ask the processor for the cache line of array[row, column]."""

    def generate(context, builder, signature, arguments):
        array_type = signature.args[0]
        struct = context.make_array(array_type)(context, builder, arguments[0])
        address = cgutils.get_item_pointer(
            context, builder, array_type, struct, list(arguments[1:]), wraparound=False
        )
        word = ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [address.type, word, word, word]),
            "llvm.prefetch.p0",
        )
        read, keep, data = (ir.Constant(word, value) for value in (0, 3, 1))
        builder.call(function, [address, read, keep, data])
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), generate


@compiled
def _prefetch_row(x, row):
    for column in range(0, x.shape[1], CACHE_LINE_BYTES // x.itemsize):
        _prefetch(x, row, column)


@compiled
def segment_max(start, stop, x, rowptr, col, out):
    """out[i] = max of x[col[e]] over the edges e of row i, 0 without edges; NaN stays NaN."""
    columns = x.shape[1]
    for i in range(start, stop):
        best = out[i]
        if rowptr[i] == rowptr[i + 1]:
            best[:] = 0
        for e in range(rowptr[i], rowptr[i + 1]):
            if e + PREFETCH_EDGES < rowptr[stop]:
                _prefetch_row(x, col[e + PREFETCH_EDGES])
            row = x[col[e]]
            if e == rowptr[i]:
                for c in range(columns):
                    best[c] = row[c]
            else:
                for c in range(columns):
                    better = (row[c] > best[c]) | (row[c] != row[c])
                    best[c] = row[c] if better else best[c]


@compiled
def split_over_ties(start, stop, x, rowptr, col, out, gradient, share):
    """share[i] = gradient[i] over the number of edges of row i that reach the maximum out[i]."""
    columns = x.shape[1]
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for i in range(start, stop):
        tied = share[i]
        tied[:] = 0
        for e in range(rowptr[i], rowptr[i + 1]):
            if e + PREFETCH_EDGES < rowptr[stop]:
                _prefetch_row(x, col[e + PREFETCH_EDGES])
            row = x[col[e]]
            for c in range(columns):
                tied[c] += one if row[c] == out[i, c] else zero
        for c in range(columns):
            tied[c] = gradient[i, c] / (tied[c] if tied[c] > one else one)


@compiled
def segment_max_backward(start, stop, x, colptr, dst, out, share, gradient):
    """gradient[s] = sum of share[d] over the edges s -> d, in the columns where s is a maximum."""
    columns = x.shape[1]
    zero = x.dtype.type(0)
    for s in range(start, stop):
        total = gradient[s]
        total[:] = 0
        for e in range(colptr[s], colptr[s + 1]):
            if e + PREFETCH_EDGES < colptr[stop]:
                _prefetch_row(out, dst[e + PREFETCH_EDGES])
                _prefetch_row(share, dst[e + PREFETCH_EDGES])
            d = dst[e]
            for c in range(columns):
                total[c] += share[d, c] if x[s, c] == out[d, c] else zero


@compiled
def transpose(rowptr, col, colptr, dst):
    """Group the edges by source (a counting sort, stable).

    colptr: zeros [n_src + 2] on entry; on return the edges of source s are
    dst[colptr[s]:colptr[s + 1]], and the last entry is free.
    """
    for e in range(len(col)):
        colptr[col[e] + 2] += 1
    for s in range(2, len(colptr)):
        colptr[s] += colptr[s - 1]
    for i in range(len(rowptr) - 1):
        for e in range(rowptr[i], rowptr[i + 1]):
            place = colptr[col[e] + 1]
            colptr[col[e] + 1] = place + 1
            dst[place] = i


@compiled
def _fill_mask(key, row, words):
    """The 16-bit levels of the dropout mask (fused.py) for one row, two a word (little-endian)."""
    z = mix64(key + np.uint64(row) * np.uint64(NODE_STRIDE))
    a, b = np.uint32(z), np.uint32(z >> np.uint64(32))
    for j in range(len(words)):
        v = np.uint32(np.uint32(j) * np.uint32(COLUMN_STRIDE)) ^ a
        v = np.uint32((v ^ (v >> np.uint32(16))) * np.uint32(ROUND_1))
        v = np.uint32((np.uint32(v ^ (v >> np.uint32(15))) + b) * np.uint32(ROUND_2))
        words[j] = v ^ (v >> np.uint32(16))


@rows_compiled
def norm_relu_dropout(
    start, stop, x, weight, bias, eps, key, rows, threshold, scale, out, mean, rstd
):
    """out = dropout(relu(layer_norm(x))); keeps each row's mean and reciprocal deviation."""
    columns = x.shape[1]
    words = np.zeros((columns + 1) // 2, np.uint32)
    levels = words.view(np.uint16)
    for i in range(start, stop):
        total = np.float32(0)
        for c in range(columns):
            total += x[i, c]
        m = total / np.float32(columns)
        total = np.float32(0)
        for c in range(columns):
            total += (x[i, c] - m) * (x[i, c] - m)
        r = np.float32(1) / np.sqrt(total / np.float32(columns) + eps)
        mean[i], rstd[i] = m, r
        if threshold > 0:
            _fill_mask(key, rows[i], words)
        for c in range(columns):
            y = (x[i, c] - m) * r * weight[c] + bias[c]
            y = np.float32(0) if y <= 0 else y  # a NaN stays
            out[i, c] = y * (scale if levels[c] >= threshold else np.float32(0))


@rows_compiled
def norm_relu_dropout_backward(
    start, stop, x, weight, bias, key, rows, threshold, scale, mean, rstd, upstream, gradient, parts
):
    """gradient = that of x (may be x itself); parts[start // ROWS_A_CHUNK] = those of weight, bias.

    The mask and the sign of the ReLU are computed again: cheaper than to keep them.
    """
    columns = x.shape[1]
    words = np.zeros((columns + 1) // 2, np.uint32)
    levels = words.view(np.uint16)
    normal, inner = np.empty(columns, np.float32), np.empty(columns, np.float32)
    of_weight, of_bias = parts[start // ROWS_A_CHUNK, 0], parts[start // ROWS_A_CHUNK, 1]
    of_weight[:] = 0
    of_bias[:] = 0
    for i in range(start, stop):  # short loops: each over few enough arrays to become vector code
        m, r = mean[i], rstd[i]
        if threshold > 0:
            _fill_mask(key, rows[i], words)
        for c in range(columns):
            normal[c] = (x[i, c] - m) * r
        for c in range(columns):
            passed = (normal[c] * weight[c] + bias[c] > 0) & (levels[c] >= threshold)
            inner[c] = upstream[i, c] * (scale if passed else np.float32(0))
        for c in range(columns):
            of_weight[c] += inner[c] * normal[c]
        for c in range(columns):
            of_bias[c] += inner[c]
        first, second = np.float32(0), np.float32(0)
        for c in range(columns):
            inner[c] *= weight[c]
            first += inner[c]
            second += inner[c] * normal[c]
        first /= np.float32(columns)
        second /= np.float32(columns)
        for c in range(columns):
            gradient[i, c] = r * (inner[c] - first - normal[c] * second)
