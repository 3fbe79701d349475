"""Aggregation over destination-grouped edges (CSR), without a tensor of one row an edge.

Sum and mean are torch's `embedding_bag`, forward over the destinations and backward over the
sources: the edges are regrouped by source, so that no two threads write the same row, and the
order of every sum is fixed. Max has compiled loops on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from sagebench.kernels import cpu_kernels
from sagebench.operations import has_kernels

AGGREGATORS = ("mean", "sum", "max")
EDGES_A_STEP = 1 << 16
"""edges that plain torch's max takes at a time"""


def segment_aggregate(x: Tensor, rowptr: Tensor, col: Tensor, aggregator: str) -> Tensor:
    """Aggregate the rows of `x` over each destination's edges.

    x: float [n_src, F]; may be a large memory-mapped array: it is not copied. rowptr: int32 or
    int64 [n_dst + 1], from 0. col: int32 or int64 [E], rows of x; those of destination i are
    col[rowptr[i]:rowptr[i + 1]]. aggregator: mean, sum or max. Returns [n_dst, F] of x's dtype;
    a destination without edges gets 0.

    The gradient of max is split evenly over the edges that reach the maximum. PyG does the same
    (`scatter_reduce`), save that it counts one edge too many where the maximum is exactly 0; after
    a ReLU that gradient is multiplied by 0 anyway.
    """
    return aggregate_with_root(x, rowptr, col, aggregator)[0]


def aggregate_with_root(
    x: Tensor,
    rowptr: Tensor,
    col: Tensor,
    aggregator: str,
    by_source: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """`segment_aggregate`, and x[:n_dst] as its own output: where the destinations are the first
    sources, both gradients meet here in one matrix instead of three as large as x.

    by_source: the edges grouped by source, those of an earlier layer's block among them; None:
    grouped here where the kernels need them.
    """
    if aggregator not in AGGREGATORS:
        raise ValueError(f"aggregator is {aggregator!r}; write one of {', '.join(AGGREGATORS)}")
    needs_gradient = x.requires_grad and torch.is_grad_enabled()
    if needs_gradient and has_kernels(x):
        from sagebench.kernels.gpu.autograd import Aggregate

        by_source = by_source or _by_source(rowptr, col, len(x))
        return Aggregate.apply(x, rowptr, col, aggregator, by_source)
    if needs_gradient:
        return _SegmentAggregate.apply(x, rowptr, col, aggregator)
    return _forward(x, rowptr, col, aggregator), x[: len(rowptr) - 1]


def aggregate_beside_root(
    x: Tensor,
    rowptr: Tensor,
    col: Tensor,
    mean: bool,
    dtype: torch.dtype,
    *,
    ids: Tensor | None = None,
    known: Tensor | None = None,
    by_source: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """[aggregated, root] in one matrix of `dtype`, for one product: of a sum or a mean, where
    there are kernels. Each half is padded with zeros to a multiple of 8 columns.

    ids, known: as Edges.root_ids and .known, of an x that needs no gradient. by_source: as for
    `aggregate_with_root`.
    """
    from sagebench.kernels.gpu.autograd import AggregateBesideRoot
    from sagebench.kernels.gpu.segment import aggregate

    if x.requires_grad and torch.is_grad_enabled():
        assert ids is None and known is None and dtype == x.dtype
        by_source = by_source or _by_source(rowptr, col, len(x))
        return AggregateBesideRoot.apply(x, rowptr, col, mean, by_source)
    return aggregate(x, rowptr, col, mean, dtype, True, ids, known)


def side_by_side(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """[left, right] of `dtype`, weights [out, F] each, for a product with what
    `aggregate_beside_root` gives."""
    from sagebench.kernels.gpu.autograd import SideBySide

    return SideBySide.apply(left, right, dtype)


class _SegmentAggregate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, rowptr: Tensor, col: Tensor, aggregator: str):
        out = _forward(x, rowptr, col, aggregator)
        ctx.aggregator, ctx.num_sources = aggregator, len(x)
        ctx.save_for_backward(rowptr, col, *((x, out) if aggregator == "max" else ()))
        return out, x[: len(rowptr) - 1]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor, of_root: Tensor):
        rowptr, col, *kept = ctx.saved_tensors
        if ctx.aggregator == "max":
            x, out = kept
            result = _max_backward(x, out, rowptr, col, gradient.contiguous())
        else:
            colptr, dst = _by_source(rowptr, col, ctx.num_sources)
            weights = None
            if ctx.aggregator == "mean":
                weights = rowptr.diff().to(gradient.dtype).reciprocal_()[dst]
            result = bag(gradient.contiguous(), colptr, dst, "sum", weights)
        result[: len(of_root)] += of_root
        return result, None, None, None


def _forward(x: Tensor, rowptr: Tensor, col: Tensor, aggregator: str) -> Tensor:
    if has_kernels(x):
        from sagebench.kernels.gpu import segment, segment_max

        if aggregator == "max":
            return segment_max.maximum(x, rowptr, col, False)[0]
        return segment.aggregate(x, rowptr, col, aggregator == "mean", x.dtype, False, None, None)
    if aggregator != "max":
        return bag(x, rowptr, col, aggregator)
    if not _has_kernel(x):
        return _plain_max(x, rowptr, col)
    out = x.new_empty(len(rowptr) - 1, x.shape[1])
    _run(cpu_kernels.segment_max, x, rowptr, col, out)
    return out


def bag(x: Tensor, rowptr: Tensor, col: Tensor, mode: str, weights: Tensor | None = None) -> Tensor:
    """The sums or means of x's rows over each destination's edges, without a gradient of x's.

    weights: float [E] of x's dtype, by which the rows are multiplied (mode `sum`).
    """
    return embedding_bag(
        col,
        x,
        rowptr.to(col.dtype),
        mode=mode,
        include_last_offset=True,
        per_sample_weights=weights,
    )


def _max_backward(x: Tensor, out: Tensor, rowptr: Tensor, col: Tensor, gradient: Tensor) -> Tensor:
    if _has_kernel(x):
        share, result = torch.empty_like(out), torch.empty_like(x)
        _run(cpu_kernels.split_over_ties, x, rowptr, col, out, gradient, share)
        grouped = _by_source(rowptr, col, len(x))
        _run(cpu_kernels.segment_max_backward, x, *grouped, out, share, result)
        return result
    tied, result = torch.zeros_like(out), torch.zeros_like(x)
    steps = edge_steps(rowptr, col)
    for source, target in steps:
        tied.index_add_(0, target, (x[source] == out[target]).to(x.dtype))
    share = gradient / tied.clamp_(min=1)
    for source, target in steps:
        result.index_add_(0, source, share[target] * (x[source] == out[target]))
    return result


def _plain_max(x: Tensor, rowptr: Tensor, col: Tensor) -> Tensor:
    """Maximum in bounded steps; `embedding_bag` would hide a NaN."""
    out = x.new_full((len(rowptr) - 1, x.shape[1]), -torch.inf)
    for source, target in edge_steps(rowptr, col):
        index = target.long()[:, None].expand(-1, x.shape[1])
        out.scatter_reduce_(0, index, x[source], "amax")
    return out.masked_fill_((rowptr.diff() == 0)[:, None], 0)


def edge_steps(rowptr: Tensor, col: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(sources, destinations) of a bounded number of edges at a time."""
    dst = destinations(rowptr, col)
    return list(zip(col.split(EDGES_A_STEP), dst.split(EDGES_A_STEP), strict=True))


def _by_source(rowptr: Tensor, col: Tensor, num_sources: int) -> tuple[Tensor, Tensor]:
    """The edges grouped by source: colptr [num_sources + 1] and destinations [E]; stable."""
    if _has_kernel(col):
        colptr, dst = col.new_zeros(num_sources + 2), torch.empty_like(col)
        cpu_kernels.transpose(*(tensor.numpy() for tensor in (rowptr, col, colptr, dst)))
        return colptr[:-1], dst
    # Bounds in the sorted sources; `bincount` would have the host wait for the device twice.
    sources, order = torch.sort(col, stable=True)
    bounds = torch.arange(num_sources + 1, dtype=col.dtype, device=col.device)
    colptr = torch.searchsorted(sources, bounds, out_int32=col.dtype == torch.int32)
    return colptr, destinations(rowptr, col)[order]


def destinations(rowptr: Tensor, col: Tensor) -> Tensor:
    """The destination of every edge, of col's dtype."""
    rows = torch.arange(len(rowptr) - 1, dtype=col.dtype, device=col.device)
    return torch.repeat_interleave(rows, rowptr.diff(), output_size=len(col))


def _has_kernel(tensor: Tensor) -> bool:
    on_cpu = tensor.device.type == "cpu" and tensor.is_contiguous()
    return on_cpu and tensor.dtype in (torch.float32, torch.float64, torch.int32, torch.int64)


def _run(kernel: Callable[..., None], x: Tensor, rowptr: Tensor, *others: Tensor) -> None:
    """A compiled loop over the rows of a CSR, in the threads."""
    arrays = [tensor.detach().numpy() for tensor in (x, rowptr, *others)]
    cpu_kernels.run_chunks(kernel, cpu_kernels.balanced_bounds(arrays[1]), *arrays)
