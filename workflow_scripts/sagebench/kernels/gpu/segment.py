"""Mean and sum of rows over destination-grouped edges (CSR), beside each destination's own row.

A program takes ROWS rows at once, UNROLL edges of each in flight; a thread adds up its own columns
in float32, in the order of the edges, so nothing is exchanged between threads. What a row has
beyond HUB edges is done after that by the whole program, SPLIT edges at a time.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sagebench.operations import Cost, operation, size_bytes

ROWS = 4
UNROLL = tl.constexpr(5)
HUB = tl.constexpr(128)
SPLIT = tl.constexpr(8)


@triton.jit
def _sums(
    x,
    col,
    weights,
    limit,
    start,
    degree,
    f,
    f_inside,
    STRIDE: tl.constexpr,
    WEIGHTED: tl.constexpr,
    LIMITED: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    """float32 [ROWS, BLOCK_F]: for each row the sum of x[col[e]] (times weights[col[e]]).

    LIMITED: of those edges only whose col[e] is less than `limit`.
    """
    total = tl.zeros([ROWS, BLOCK_F], tl.float32)
    longest = tl.max(degree, 0)
    for e in range(0, tl.minimum(longest, HUB), UNROLL):
        for u in tl.static_range(UNROLL):
            has = (e + u < degree) & (e + u < HUB)
            source = tl.load(col + start + (e + u), has, 0)
            if LIMITED:
                has = has & (source < limit)
            at = source.to(tl.int64)[:, None] * STRIDE + f[None, :]
            row = tl.load(x + at, has[:, None] & f_inside[None, :], 0.0).to(tl.float32)
            if WEIGHTED:
                row *= tl.load(weights + source, has, 0.0)[:, None]
            total += row
    if longest > HUB:
        which = tl.arange(0, ROWS)
        for r in range(0, ROWS):
            first = tl.sum(tl.where(which == r, start, 0), 0)
            last = tl.sum(tl.where(which == r, degree, 0), 0)
            part = tl.zeros([SPLIT, BLOCK_F], tl.float32)
            for e in range(HUB, last, SPLIT):
                edge = e + tl.arange(0, SPLIT)
                has = edge < last
                source = tl.load(col + first + edge, has, 0)
                if LIMITED:
                    has = has & (source < limit)
                at = source.to(tl.int64)[:, None] * STRIDE + f[None, :]
                row = tl.load(x + at, has[:, None] & f_inside[None, :], 0.0).to(tl.float32)
                if WEIGHTED:
                    row *= tl.load(weights + source, has, 0.0)[:, None]
                part += row
            total += tl.where((which == r)[:, None], tl.sum(part, 0)[None, :], 0.0)
    return total


@triton.jit(do_not_specialize=["num_rows"])
def _aggregate_kernel(
    x,
    rowptr,
    col,
    ids,
    out,
    num_rows: tl.int64,
    F: tl.constexpr,
    STRIDE: tl.constexpr,
    OUT_STRIDE: tl.constexpr,
    ROOT_AT: tl.constexpr,
    BY_ID: tl.constexpr,
    MEAN: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    """out[i] = [sum or mean over the edges of i, zeros to ROOT_AT, x[ids[i]] or x[i], zeros]."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    live = row < num_rows
    start = tl.load(rowptr + row, live, 0).to(tl.int64)
    degree = (tl.load(rowptr + row + 1, live, 0) - start).to(tl.int32)
    f = tl.arange(0, BLOCK_F)
    root = tl.load(ids + row, live, 0).to(tl.int64) if BY_ID else row
    inside = live[:, None] & (f < F)[None, :]
    of_root = tl.load(x + root[:, None] * STRIDE + f[None, :], inside, 0.0)
    total = _sums(x, col, x, 0, start, degree, f, f < F, STRIDE, False, False, ROWS, BLOCK_F)
    if MEAN:
        total = total / tl.maximum(degree, 1).to(tl.float32)[:, None]
    at = row[:, None] * OUT_STRIDE + f[None, :]
    inside = live[:, None] & (f < ROOT_AT)[None, :]
    tl.store(out + at, total.to(out.dtype.element_ty), inside)
    tl.store(out + at + ROOT_AT, of_root.to(out.dtype.element_ty), inside)


@triton.jit(do_not_specialize=["num_rows", "num_roots"])
def _gradient_kernel(
    upstream,
    colptr,
    dst,
    weights,
    out,
    num_rows: tl.int64,
    num_roots: tl.int64,
    F: tl.constexpr,
    STRIDE: tl.constexpr,
    ROOT_AT: tl.constexpr,
    WEIGHTED: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    """The gradient of x of `_aggregate_kernel`, over the edges by source; those whose destination
    is of a later row than `num_roots` belong to an earlier layer's block."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    live = row < num_rows
    start = tl.load(colptr + row, live, 0).to(tl.int64)
    degree = (tl.load(colptr + row + 1, live, 0) - start).to(tl.int32)
    f = tl.arange(0, BLOCK_F)
    total = _sums(
        upstream, dst, weights, num_roots, start, degree, f, f < F,
        STRIDE, WEIGHTED, True, ROWS, BLOCK_F,
    )  # fmt: skip
    inside = live[:, None] & (f < F)[None, :]
    at = row[:, None] * STRIDE + ROOT_AT + f[None, :]
    total += tl.load(upstream + at, inside & (row < num_roots)[:, None], 0.0).to(tl.float32)
    tl.store(out + row[:, None] * F + f[None, :], total.to(out.dtype.element_ty), inside)


def width_of(columns: int) -> int:
    """Columns that a half of [aggregated, root] takes: a multiple of 16 bytes in bf16."""
    return triton.cdiv(columns, 8) * 8


def _aggregate(
    x: Tensor, rowptr: Tensor, col: Tensor, ids: Tensor | None, mean: bool, dtype: torch.dtype
) -> Tensor:
    out, n = _aggregate_shapes(x, rowptr, col, ids, mean, dtype), len(rowptr) - 1
    width = out.shape[1] // 2
    if n:
        _aggregate_kernel[(triton.cdiv(n, ROWS),)](
            x, rowptr, col, rowptr if ids is None else ids, out, n,
            F=x.shape[1], STRIDE=x.stride(0), OUT_STRIDE=2 * width, ROOT_AT=width,
            BY_ID=ids is not None, MEAN=mean, ROWS=ROWS,
            BLOCK_F=triton.next_power_of_2(width), num_warps=4,
        )  # fmt: skip
    return out


def _aggregate_shapes(x, rowptr, col, ids, mean, dtype):
    return x.new_empty(len(rowptr) - 1, 2 * width_of(x.shape[1]), dtype=dtype)


def _aggregate_cost(x, rowptr, col, ids, mean, dtype):
    row, rows = x.shape[1] * x.element_size(), len(rowptr) - 1
    written = rows * 2 * width_of(x.shape[1]) * dtype.itemsize
    read = (len(col) + rows) * row + size_bytes(rowptr, col)
    return Cost(1, read + written + (0 if ids is None else 8 * rows))


def _gradient(
    upstream: Tensor,
    colptr: Tensor,
    dst: Tensor,
    columns: int,
    num_roots: int,
    weights: Tensor | None,
) -> Tensor:
    out, n = _gradient_shapes(upstream, colptr, dst, columns, num_roots, weights), len(colptr) - 1
    if n:
        _gradient_kernel[(triton.cdiv(n, ROWS),)](
            upstream, colptr, dst, upstream if weights is None else weights, out, n, num_roots,
            F=columns, STRIDE=upstream.stride(0), ROOT_AT=upstream.shape[1] // 2,
            WEIGHTED=weights is not None, ROWS=ROWS,
            BLOCK_F=triton.next_power_of_2(columns), num_warps=4,
        )  # fmt: skip
    return out


def _gradient_shapes(upstream, colptr, dst, columns, num_roots, weights):
    return upstream.new_empty(len(colptr) - 1, columns)


def _gradient_cost(upstream, colptr, dst, columns, num_roots, weights):
    # Where edges of an earlier layer's block are among them, their destinations are read, no row.
    row, sources = columns * upstream.element_size(), len(colptr) - 1
    read = (len(dst) + num_roots) * row + size_bytes(colptr, dst)
    return Cost(1, read + sources * row)


aggregate = operation(
    "aggregate(Tensor x, Tensor rowptr, Tensor col, Tensor? ids, bool mean, ScalarType dtype)"
    " -> Tensor",
    _aggregate,
    _aggregate_shapes,
    _aggregate_cost,
)
"""[aggregated, root] of every destination, [n, 2 * width_of(F)] of `dtype`, padded with zeros.

x: bf16 or float32 [sources, F], contiguous. rowptr: int [n + 1]. col: int [E], rows of x. ids: rows
of x that are the roots, integer [n]; x's first if absent."""

gradient = operation(
    "aggregate_backward(Tensor upstream, Tensor colptr, Tensor dst, int columns, int num_roots,"
    " Tensor? weights) -> Tensor",
    _gradient,
    _gradient_shapes,
    _gradient_cost,
)
"""The gradient of x, [sources, columns], from that of [aggregated, root].

colptr, dst: the edges by source, those of an earlier layer's block among them. weights: float32
[n], 1 / degree of every destination, for a mean. num_roots: the first so many sources are the
destinations."""
