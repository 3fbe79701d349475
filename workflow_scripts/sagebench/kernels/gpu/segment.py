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
def _degree(rowptr, row, has):
    """float32, 1 where there is none."""
    last = tl.load(rowptr + row + 1, has, 1)
    return (last - tl.load(rowptr + row, has, 0)).to(tl.float32)


@triton.jit
def _sums(
    x,
    col,
    rowptr,
    limit,
    start,
    degree,
    f,
    f_inside,
    STRIDE: tl.constexpr,
    BY_DEGREE: tl.constexpr,
    LIMITED: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    """float32 [ROWS, BLOCK_F]: for each row the sum of x[col[e]].

    LIMITED: of those edges only whose col[e] is less than `limit`. BY_DEGREE: each over the degree
    that `rowptr` has of col[e].
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
            if BY_DEGREE:
                row *= (1.0 / _degree(rowptr, source, has))[:, None]
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
                if BY_DEGREE:
                    row *= (1.0 / _degree(rowptr, source, has))[:, None]
                part += row
            total += tl.where((which == r)[:, None], tl.sum(part, 0)[None, :], 0.0)
    return total


@triton.jit(do_not_specialize=["num_rows", "num_aggregated"])
def _aggregate_kernel(
    x,
    rowptr,
    col,
    ids,
    known,
    out,
    num_rows: tl.int64,
    num_aggregated: tl.int64,
    F: tl.constexpr,
    STRIDE: tl.constexpr,
    OUT_STRIDE: tl.constexpr,
    WIDTH: tl.constexpr,
    WITH_ROOT: tl.constexpr,
    BY_ID: tl.constexpr,
    WITH_KNOWN: tl.constexpr,
    MEAN: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    """out[i] = [sum or mean over the edges of i, zeros to WIDTH]; with root beside it x[ids[i]] or
    x[i], and zeros. Rows from num_aggregated on have known[ids[i]] for their sum, or without ids
    the rows of `known` in turn."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    live = row < num_rows
    sums = row < num_aggregated
    start = tl.load(rowptr + row, sums, 0).to(tl.int64)
    degree = (tl.load(rowptr + row + 1, sums, 0) - start).to(tl.int32)
    f = tl.arange(0, BLOCK_F)
    total = _sums(x, col, x, 0, start, degree, f, f < F, STRIDE, False, False, ROWS, BLOCK_F)
    if MEAN:
        total = total / tl.maximum(degree, 1).to(tl.float32)[:, None]
    root = tl.load(ids + row, live, 0).to(tl.int64) if BY_ID else row
    inside = live[:, None] & (f < F)[None, :]
    if WITH_KNOWN:
        of_known = root if BY_ID else row - num_aggregated
        there = inside & (row >= num_aggregated)[:, None]
        total += tl.load(known + of_known[:, None] * F + f[None, :], there, 0.0).to(tl.float32)
    at = row[:, None] * OUT_STRIDE + f[None, :]
    written = live[:, None] & (f < WIDTH)[None, :]
    tl.store(out + at, total.to(out.dtype.element_ty), written)
    if WITH_ROOT:
        of_root = tl.load(x + root[:, None] * STRIDE + f[None, :], inside, 0.0)
        tl.store(out + at + WIDTH, of_root.to(out.dtype.element_ty), written)


@triton.jit(do_not_specialize=["num_rows", "num_roots"])
def _gradient_kernel(
    upstream,
    of_root,
    colptr,
    dst,
    rowptr,
    out,
    num_rows: tl.int64,
    num_roots: tl.int64,
    F: tl.constexpr,
    STRIDE: tl.constexpr,
    ROOT_STRIDE: tl.constexpr,
    MEAN: tl.constexpr,
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
        upstream, dst, rowptr, num_roots, start, degree, f, f < F, STRIDE, MEAN, True, ROWS, BLOCK_F
    )  # fmt: skip
    inside = live[:, None] & (f < F)[None, :]
    at = row[:, None] * ROOT_STRIDE + f[None, :]
    total += tl.load(of_root + at, inside & (row < num_roots)[:, None], 0.0).to(tl.float32)
    tl.store(out + row[:, None] * F + f[None, :], total.to(out.dtype.element_ty), inside)


def width_of(columns: int) -> int:
    """Columns that a half of [aggregated, root] takes: a multiple of 16 bytes in bf16."""
    return triton.cdiv(columns, 8) * 8


def _aggregate(
    x: Tensor,
    rowptr: Tensor,
    col: Tensor,
    mean: bool,
    dtype: torch.dtype,
    with_root: bool,
    ids: Tensor | None,
    known: Tensor | None,
) -> Tensor:
    out = _aggregate_shapes(x, rowptr, col, mean, dtype, with_root, ids, known)
    width, n = out.shape[1] // (2 if with_root else 1), len(out)
    if n:
        _aggregate_kernel[(triton.cdiv(n, ROWS),)](
            x, rowptr, col, rowptr if ids is None else ids, x if known is None else known, out,
            n, len(rowptr) - 1, F=x.shape[1], STRIDE=x.stride(0), OUT_STRIDE=out.shape[1],
            WIDTH=width, WITH_ROOT=with_root, BY_ID=ids is not None,
            WITH_KNOWN=known is not None, MEAN=mean, ROWS=ROWS,
            BLOCK_F=triton.next_power_of_2(width), num_warps=4,
        )  # fmt: skip
    return out


def _aggregate_shapes(x, rowptr, col, mean, dtype, with_root, ids, known):
    columns = 2 * width_of(x.shape[1]) if with_root else x.shape[1]
    rows = len(rowptr) - 1
    if known is not None:
        rows = rows + len(known) if ids is None else len(ids)
    return x.new_empty(rows, columns, dtype=dtype)


def _aggregate_cost(x, rowptr, col, mean, dtype, with_root, ids, known):
    written = _aggregate_shapes(x, rowptr, col, mean, dtype, with_root, ids, known)
    row, rows = x.shape[1] * x.element_size(), len(written)
    of_known = rows - (len(rowptr) - 1)
    read = (len(col) + of_known + (rows if with_root else 0)) * row + size_bytes(rowptr, col)
    return Cost(1, read + size_bytes(written) + (0 if ids is None else 8 * rows))


def _gradient(
    upstream: Tensor,
    of_root: Tensor,
    colptr: Tensor,
    dst: Tensor,
    rowptr: Tensor | None,
    edges: int,
) -> Tensor:
    out = _gradient_shapes(upstream, of_root, colptr, dst, rowptr, edges)
    n, columns = out.shape
    if n:
        _gradient_kernel[(triton.cdiv(n, ROWS),)](
            upstream, of_root, colptr, dst, colptr if rowptr is None else rowptr, out, n,
            len(upstream), F=columns, STRIDE=upstream.stride(0), ROOT_STRIDE=of_root.stride(0),
            MEAN=rowptr is not None, ROWS=ROWS, BLOCK_F=triton.next_power_of_2(columns),
            num_warps=4,
        )  # fmt: skip
    return out


def _gradient_shapes(upstream, of_root, colptr, dst, rowptr, edges):
    return upstream.new_empty(len(colptr) - 1, upstream.shape[1])


def _gradient_cost(upstream, of_root, colptr, dst, rowptr, edges):
    row, sources = upstream.shape[1] * upstream.element_size(), len(colptr) - 1
    read = (edges + len(of_root)) * row + size_bytes(colptr, dst)
    return Cost(1, read + sources * row)


aggregate = operation(
    "aggregate(Tensor x, Tensor rowptr, Tensor col, bool mean, ScalarType dtype, bool with_root,"
    " Tensor? ids, Tensor? known) -> Tensor",
    _aggregate,
    _aggregate_shapes,
    _aggregate_cost,
)
"""The sum or mean over each destination's edges, [n, F] of `dtype`; with root [aggregated, root],
[n, 2 * width_of(F)], both padded with zeros.

x: bf16 or float32 [sources, F], contiguous. rowptr: int [n + 1]. col: int [E], rows of x. ids: rows
of x that are the roots, integer [n]; x's first if absent. known: contiguous [any, F], from which
rows of the result behind those of rowptr come: those of ids, or without ids all of it in turn."""

gradient = operation(
    "aggregate_backward(Tensor upstream, Tensor of_root, Tensor colptr, Tensor dst,"
    " Tensor? rowptr, int edges) -> Tensor",
    _gradient,
    _gradient_shapes,
    _gradient_cost,
)
"""The gradient of x, [sources, F], from those of the aggregated rows and of the roots, [n, F] each,
whose rows may lie apart.

colptr, dst: the edges by source, those of an earlier layer's block among them. rowptr: of a mean,
for the destinations' degrees. edges: the layer's own. The first n sources are the destinations."""
