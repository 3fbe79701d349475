"""Sums of rows over destination-grouped edges (CSR), several rows a program.

A program takes ROWS rows at once, UNROLL edges of each in flight; a thread adds up its own columns
in float32, in the order of the edges, so nothing is exchanged between threads. What a row has
beyond HUB edges is done after that by the whole program, SPLIT edges at a time.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

HUB = 128


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
    UNROLL: tl.constexpr,
    TILE: tl.constexpr,
    HUBS: tl.constexpr,
    HUB: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    """float32 [ROWS, BLOCK_F]: for each row the sum of x[col[e]] (times weights[col[e]]).

    LIMITED: of those edges only whose col[e] is less than `limit`.
    """
    total = tl.zeros([ROWS, BLOCK_F], tl.float32)
    longest = tl.max(degree, 0)
    if HUBS:
        longest = tl.minimum(longest, HUB)
    for e in range(0, longest, UNROLL):
        if TILE:
            edge = e + tl.arange(0, UNROLL)
            has = edge[:, None] < degree[None, :]
            source = tl.load(col + start[None, :] + edge[:, None], has, 0)
            if LIMITED:
                has = has & (source < limit)
            at = source.to(tl.int64)[:, :, None] * STRIDE + f[None, None, :]
            row = tl.load(x + at, has[:, :, None] & f_inside[None, None, :], 0.0).to(tl.float32)
            if WEIGHTED:
                row *= tl.load(weights + source, has, 0.0)[:, :, None]
            total += tl.sum(row, 0)
        else:
            for u in tl.static_range(UNROLL):
                has = e + u < degree
                source = tl.load(col + start + (e + u), has, 0)
                if LIMITED:
                    has = has & (source < limit)
                at = source.to(tl.int64)[:, None] * STRIDE + f[None, :]
                row = tl.load(x + at, has[:, None] & f_inside[None, :], 0.0).to(tl.float32)
                if WEIGHTED:
                    row *= tl.load(weights + source, has, 0.0)[:, None]
                total += row
    if HUBS:  # noqa: SIM102
        if tl.max(degree, 0) > HUB:
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
    UNROLL: tl.constexpr,
    TILE: tl.constexpr,
    HUBS: tl.constexpr,
    HUB: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    """out[i] = [sum or mean over the edges of i, zeros to ROOT_AT, x[ids[i]] or x[i], zeros]."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    live = row < num_rows
    start = tl.load(rowptr + row, live, 0).to(tl.int64)
    degree = (tl.load(rowptr + row + 1, live, 0) - start).to(tl.int32)
    f = tl.arange(0, BLOCK_F)
    if ROOT_AT > 0:
        root = tl.load(ids + row, live, 0).to(tl.int64) if BY_ID else row
        inside = live[:, None] & (f < F)[None, :]
        of_root = tl.load(x + root[:, None] * STRIDE + f[None, :], inside, 0.0)
        at = row[:, None] * OUT_STRIDE + ROOT_AT + f[None, :]
        inside = live[:, None] & (f < OUT_STRIDE - ROOT_AT)[None, :]
        tl.store(out + at, of_root.to(out.dtype.element_ty), inside)
    total = _sums(
        x, col, x, 0, start, degree, f, f < F,
        STRIDE, False, False, ROWS, UNROLL, TILE, HUBS, HUB, SPLIT, BLOCK_F,
    )  # fmt: skip
    if MEAN:
        total = total / tl.maximum(degree, 1).to(tl.float32)[:, None]
    width: tl.constexpr = ROOT_AT if ROOT_AT > 0 else OUT_STRIDE
    inside = live[:, None] & (f < width)[None, :]
    tl.store(out + row[:, None] * OUT_STRIDE + f[None, :], total.to(out.dtype.element_ty), inside)


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
    UNROLL: tl.constexpr,
    TILE: tl.constexpr,
    HUBS: tl.constexpr,
    HUB: tl.constexpr,
    SPLIT: tl.constexpr,
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
        STRIDE, WEIGHTED, True, ROWS, UNROLL, TILE, HUBS, HUB, SPLIT, BLOCK_F,
    )  # fmt: skip
    inside = live[:, None] & (f < F)[None, :]
    at = row[:, None] * STRIDE + ROOT_AT + f[None, :]
    total += tl.load(upstream + at, inside & (row < num_roots)[:, None], 0.0).to(tl.float32)
    tl.store(out + row[:, None] * F + f[None, :], total.to(out.dtype.element_ty), inside)


def width_of(columns: int) -> int:
    """Columns that a half of [aggregated, root] takes: a multiple of 16 bytes in bf16."""
    return triton.cdiv(columns, 8) * 8


def aggregate(
    x: Tensor,
    rowptr: Tensor,
    col: Tensor,
    aggregator: str = "mean",
    *,
    ids: Tensor | None = None,
    columns: int | None = None,
    dtype: torch.dtype | None = None,
    root: bool = True,
    hubs: bool = False,
    rows: int = 4,
    unroll: int = 5,
    tile: bool = False,
    warps: int = 4,
    split: int = 16,
) -> Tensor:
    """[aggregated, root] of every destination, [n, 2 * width_of(F)] of `dtype` (x's if absent),
    padded with zeros; without root [n, F].

    x: bf16 or float32 [sources, F or more], contiguous rows; its columns from F on are zeros (a
    multiple of 8 columns lets a thread load 16 bytes at once). columns: F. ids: rows of x that are
    the roots; x's first if absent. hubs: some destination may have more than HUB edges.
    """
    n, f = len(rowptr) - 1, columns or x.shape[1]
    width = width_of(f) if root else f
    out = x.new_empty(n, 2 * width if root else f, dtype=dtype or x.dtype)
    if n:
        _aggregate_kernel[(triton.cdiv(n, rows),)](
            x, rowptr, col, rowptr if ids is None else ids, out, n,
            F=min(width, x.shape[1]), STRIDE=x.stride(0),
            OUT_STRIDE=out.stride(0), ROOT_AT=width if root else 0,
            BY_ID=ids is not None, MEAN=aggregator == "mean",
            ROWS=rows, UNROLL=unroll, TILE=tile, HUBS=hubs, HUB=HUB, SPLIT=split,
            BLOCK_F=triton.next_power_of_2(width), num_warps=warps,
        )  # fmt: skip
    return out


def gradient(
    upstream: Tensor,
    colptr: Tensor,
    dst: Tensor,
    columns: int,
    num_roots: int,
    weights: Tensor | None = None,
    *,
    hubs: bool = True,
    rows: int = 4,
    unroll: int = 4,
    tile: bool = False,
    warps: int = 4,
    split: int = 8,
) -> Tensor:
    """The gradient of x, [sources, F], from that of [aggregated, root].

    colptr, dst: the edges by source, those of an earlier layer's block among them. weights: float32
    [n], 1 / degree of every destination, for a mean. num_roots: the first so many sources are the
    destinations.
    """
    n = len(colptr) - 1
    out = upstream.new_empty(n, columns)
    if n:
        _gradient_kernel[(triton.cdiv(n, rows),)](
            upstream, colptr, dst, upstream if weights is None else weights, out, n, num_roots,
            F=columns, STRIDE=upstream.stride(0), ROOT_AT=width_of(columns),
            WEIGHTED=weights is not None,
            ROWS=rows, UNROLL=unroll, TILE=tile, HUBS=hubs, HUB=HUB, SPLIT=split,
            BLOCK_F=triton.next_power_of_2(columns), num_warps=warps,
        )  # fmt: skip
    return out
