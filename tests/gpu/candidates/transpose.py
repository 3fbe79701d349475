"""The edges grouped by source, as `sagebench.kernels.segment` makes them, without a wait.

One transposed CSR serves every layer of a sample: the edges of a source stand in ascending
destination, so those of a later layer's block, which has fewer destinations, come first.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


def by_sort(col: Tensor, owner: Tensor, num_sources: int) -> tuple[Tensor, Tensor]:
    """colptr int32 [num_sources + 1] and the destinations, int32 [E], by a stable radix sort.

    col, owner: int32 [E], source and destination of every edge, by destination.
    """
    ordered, order = torch.sort(col, stable=True)
    sources = torch.arange(num_sources + 1, dtype=torch.int32, device=col.device)
    return torch.searchsorted(ordered, sources, out_int32=True), owner[order]


@triton.jit(do_not_specialize=["num_edges"])
def _claim_kernel(col, count, within, num_edges, BLOCK: tl.constexpr):
    edge = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = edge < num_edges
    source = tl.load(col + edge, live, 0)
    tl.store(within + edge, tl.atomic_add(count + source, 1, live, sem="relaxed"), live)


@triton.jit(do_not_specialize=["num_edges"])
def _place_kernel(col, owner, within, colptr, sources, placed, num_edges, BLOCK: tl.constexpr):
    edge = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = edge < num_edges
    source = tl.load(col + edge, live, 0)
    at = tl.load(colptr + source, live, 0) + tl.load(within + edge, live, 0)
    tl.store(sources + at, source, live)
    tl.store(placed + at, tl.load(owner + edge, live, 0), live)


@triton.jit(do_not_specialize=["num_edges"])
def _order_kernel(colptr, sources, placed, dst, num_edges, BLOCK: tl.constexpr):
    """Each edge goes where its destination stands among those of its source."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = at < num_edges
    source = tl.load(sources + at, live, 0)
    start = tl.load(colptr + source, live, 0)
    degree = tl.load(colptr + source + 1, live, 0) - start
    mine = tl.load(placed + at, live, 0)
    rank = tl.zeros([BLOCK], tl.int32)
    for e in range(0, tl.max(degree, 0)):
        other = tl.load(placed + start + e, live & (e < degree), 0x7FFFFFFF)
        rank += ((other < mine) | ((other == mine) & (start + e < at))).to(tl.int32)
    tl.store(dst + start + rank, mine, live)


def by_count(col: Tensor, owner: Tensor, num_sources: int) -> tuple[Tensor, Tensor]:
    """The same by counting: integers claim places in any order, and each source's few are put in
    order after that, so the result does not depend on it."""
    edges, block = len(col), 256
    count = col.new_zeros(num_sources + 1)
    within, sources, placed, dst = (torch.empty_like(col) for _ in range(4))
    grid = (triton.cdiv(max(edges, 1), block),)
    colptr = col.new_zeros(num_sources + 1)
    _claim_kernel[grid](col, count, within, edges, BLOCK=block)
    torch.cumsum(count[:-1], 0, out=colptr[1:])
    _place_kernel[grid](col, owner, within, colptr, sources, placed, edges, BLOCK=block)
    _order_kernel[grid](colptr, sources, placed, dst, edges, BLOCK=block)
    return colptr, dst
