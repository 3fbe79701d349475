"""Maximum of rows over destination-grouped edges (CSR), and its gradient.

Forward keeps how many edges reach each maximum; backward gives every one of them its share. Each
source adds up its own edges in a fixed order, so no two programs write the same row.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sagebench.kernels.gpu.segment import HUB, ROWS, SPLIT, UNROLL
from sagebench.operations import Cost, operation, size_bytes


@triton.jit(do_not_specialize=["num_rows"])
def _max_kernel(
    x,
    rowptr,
    col,
    out,
    tied,
    num_rows: tl.int64,
    F: tl.constexpr,
    WITH_TIED: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    live = row < num_rows
    start = tl.load(rowptr + row, live, 0).to(tl.int64)
    degree = (tl.load(rowptr + row + 1, live, 0) - start).to(tl.int32)
    f = tl.arange(0, BLOCK_F)
    highest = tl.full([ROWS, BLOCK_F], -float("inf"), tl.float32)
    count = tl.zeros([ROWS, BLOCK_F], tl.int32)
    longest = tl.max(degree, 0)
    for e in range(0, tl.minimum(longest, HUB), UNROLL):
        for u in tl.static_range(UNROLL):
            has = (e + u < degree) & (e + u < HUB)
            source = tl.load(col + start + (e + u), has, 0).to(tl.int64)
            inside = has[:, None] & (f < F)[None, :]
            value = tl.load(x + source[:, None] * F + f[None, :], inside, -float("inf"))
            value = value.to(tl.float32)
            # A NaN is kept, as torch's amax keeps it.
            more = (value > highest) | (value != value)
            count = tl.where(more, 1, count + (inside & (value == highest)).to(tl.int32))
            highest = tl.where(more, value, highest)
    if longest > HUB:
        which = tl.arange(0, ROWS)
        for r in range(0, ROWS):
            first = tl.sum(tl.where(which == r, start, 0), 0)
            last = tl.sum(tl.where(which == r, degree, 0), 0)
            best = tl.full([SPLIT, BLOCK_F], -float("inf"), tl.float32)
            times = tl.zeros([SPLIT, BLOCK_F], tl.int32)
            for e in range(HUB, last, SPLIT):
                edge = e + tl.arange(0, SPLIT)
                has = edge < last
                source = tl.load(col + first + edge, has, 0).to(tl.int64)
                inside = has[:, None] & (f < F)[None, :]
                value = tl.load(x + source[:, None] * F + f[None, :], inside, -float("inf"))
                value = value.to(tl.float32)
                more = (value > best) | (value != value)
                times = tl.where(more, 1, times + (inside & (value == best)).to(tl.int32))
                best = tl.where(more, value, best)
            # tl.max passes over a NaN.
            lost = (tl.max((best != best).to(tl.int32), 0) > 0)[None, :]
            among = tl.where(lost, float("nan"), tl.max(best, 0)[None, :])
            reached = tl.sum(tl.where(best == among, times, 0), 0)[None, :]
            mine = (which == r)[:, None]
            more = mine & ((among > highest) | (among != among))
            tie = mine & (among == highest)
            count = tl.where(more, reached, count + tl.where(tie, reached, 0))
            highest = tl.where(more, among, highest)
    at = row[:, None] * F + f[None, :]
    inside = live[:, None] & (f < F)[None, :]
    highest = tl.where((degree > 0)[:, None], highest, 0.0)
    tl.store(out + at, highest.to(out.dtype.element_ty), inside)
    if WITH_TIED:
        tl.store(tied + at, count, inside)


@triton.jit(do_not_specialize=["num_rows", "num_roots"])
def _gradient_kernel(
    x,
    out,
    tied,
    upstream,
    of_root,
    colptr,
    dst,
    gradient,
    num_rows: tl.int64,
    num_roots: tl.int64,
    F: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    live = row < num_rows
    start = tl.load(colptr + row, live, 0).to(tl.int64)
    degree = (tl.load(colptr + row + 1, live, 0) - start).to(tl.int32)
    f = tl.arange(0, BLOCK_F)
    inside = live[:, None] & (f < F)[None, :]
    at = row[:, None] * F + f[None, :]
    own = tl.load(x + at, inside, 0.0)
    total = tl.load(of_root + at, inside & (row < num_roots)[:, None], 0.0).to(tl.float32)
    for e in range(0, tl.max(degree, 0), UNROLL):
        for u in tl.static_range(UNROLL):
            has = e + u < degree
            target = tl.load(dst + start + (e + u), has, 0).to(tl.int64)
            has = has & (target < num_roots)  # later ones belong to an earlier layer's block
            there = has[:, None] & (f < F)[None, :]
            at_target = target[:, None] * F + f[None, :]
            reaches = there & (tl.load(out + at_target, there, 0.0) == own)
            share = tl.load(upstream + at_target, reaches, 0.0).to(tl.float32)
            total += share / tl.load(tied + at_target, reaches, 1).to(tl.float32)
    tl.store(gradient + at, total.to(gradient.dtype.element_ty), inside)


def _maximum(x: Tensor, rowptr: Tensor, col: Tensor, with_tied: bool) -> tuple[Tensor, Tensor]:
    out, tied = _maximum_shapes(x, rowptr, col, with_tied)
    n, f = out.shape
    if n:
        _max_kernel[(triton.cdiv(n, ROWS),)](
            x, rowptr, col, out, tied, n, F=f, WITH_TIED=with_tied, ROWS=ROWS,
            BLOCK_F=triton.next_power_of_2(f), num_warps=4,
        )  # fmt: skip
    return out, tied


def _maximum_shapes(x, rowptr, col, with_tied):
    out = x.new_empty(len(rowptr) - 1, x.shape[1])
    return out, out.new_empty(out.shape if with_tied else (0, 0), dtype=torch.int32)


def _gradient(
    x: Tensor,
    out: Tensor,
    tied: Tensor,
    upstream: Tensor,
    of_root: Tensor,
    colptr: Tensor,
    dst: Tensor,
    edges: int,
) -> Tensor:
    gradient = torch.empty_like(x)
    n, f = x.shape
    if n:
        _gradient_kernel[(triton.cdiv(n, ROWS),)](
            x, out, tied, upstream, of_root, colptr, dst, gradient, n, len(out),
            F=f, ROWS=ROWS, BLOCK_F=triton.next_power_of_2(f), num_warps=4,
        )  # fmt: skip
    return gradient


maximum = operation(
    "segment_max(Tensor x, Tensor rowptr, Tensor col, bool with_tied) -> (Tensor, Tensor)",
    _maximum,
    _maximum_shapes,
    lambda x, rowptr, col, with_tied: Cost(
        1,
        len(col) * x.shape[1] * x.element_size()
        + size_bytes(rowptr, col, *_maximum_shapes(x, rowptr, col, with_tied)),
    ),
)
"""The maximum over each destination's edges, [n, F] of x's dtype, 0 without edges; and with_tied
how many edges reach it, int32 [n, F]."""

gradient = operation(
    "segment_max_backward(Tensor x, Tensor out, Tensor tied, Tensor upstream, Tensor of_root,"
    " Tensor colptr, Tensor dst, int edges) -> Tensor",
    _gradient,
    lambda x, *others: torch.empty_like(x),
    lambda x, out, tied, upstream, of_root, colptr, dst, edges: Cost(
        1,
        edges * x.shape[1] * (2 * x.element_size() + 4)
        + 2 * size_bytes(x)
        + size_bytes(of_root, colptr, dst),
    ),
)
"""The gradient of x, from those of the maximum and of x's first rows, the destinations' own. colptr
and dst: the edges by source, those of an earlier layer's block among them. edges: the layer's
own."""
