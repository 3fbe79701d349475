"""The kernels in autograd: aggregation, [aggregated, root], and norm + ReLU + dropout."""

import torch
from torch import Tensor

from sagebench.kernels.gpu import norm, segment, segment_max
from sagebench.sampling.random import signed

BySource = tuple[Tensor, Tensor]
"""edges grouped by source: colptr int [sources + 1], and the destinations [E]"""


class Aggregate(torch.autograd.Function):
    """The sum, mean or maximum over each destination's edges, and x's first rows, their roots."""

    @staticmethod
    def forward(ctx, x, rowptr, col, aggregator, by_source):
        ctx.aggregator, ctx.by_source, ctx.edges = aggregator, by_source, len(col)
        root = x[: len(rowptr) - 1]
        if aggregator == "max":
            out, tied = segment_max.maximum(x, rowptr, col, True)
            ctx.save_for_backward(x, out, tied)
            return out, root
        ctx.save_for_backward(rowptr)
        mean = aggregator == "mean"
        return segment.aggregate(x, rowptr, col, mean, x.dtype, False, None, None), root

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream, of_root):
        upstream, of_root = upstream.contiguous(), of_root.contiguous()
        if ctx.aggregator == "max":
            saved = ctx.saved_tensors
            of_x = segment_max.gradient(*saved, upstream, of_root, *ctx.by_source, ctx.edges)
        else:
            rowptr = ctx.saved_tensors[0] if ctx.aggregator == "mean" else None
            of_x = segment.gradient(upstream, of_root, *ctx.by_source, rowptr, ctx.edges)
        return of_x, None, None, None, None


class AggregateBesideRoot(torch.autograd.Function):
    """[aggregated, root] in one matrix, as `segment.aggregate` makes it; the roots are x's first
    rows."""

    @staticmethod
    def forward(ctx, x, rowptr, col, mean, by_source):
        ctx.by_source, ctx.columns, ctx.edges = by_source, x.shape[1], len(col)
        ctx.rowptr = rowptr if mean else None
        return segment.aggregate(x, rowptr, col, mean, x.dtype, True, None, None)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        halves = upstream.contiguous().split(upstream.shape[1] // 2, 1)
        of_aggregated, of_root = (half[:, : ctx.columns] for half in halves)
        of_x = segment.gradient(of_aggregated, of_root, *ctx.by_source, ctx.rowptr, ctx.edges)
        return of_x, None, None, None, None


class SideBySide(torch.autograd.Function):
    """[W_l, W_r] of a dtype, for the product with [aggregated, root]: float32 [out, F] each, in the
    columns where that matrix has its halves."""

    @staticmethod
    def forward(ctx, left, right, dtype):
        ctx.columns, width = left.shape[1], segment.width_of(left.shape[1])
        make = left.new_empty if width == left.shape[1] else left.new_zeros
        both = make(len(left), 2 * width, dtype=dtype)
        both[:, : ctx.columns] = left
        both[:, width : width + ctx.columns] = right
        return both

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        left, right = upstream.float().split(upstream.shape[1] // 2, 1)
        return left[:, : ctx.columns], right[:, : ctx.columns], None


class NormReluDropout(torch.autograd.Function):
    """x: bf16 or float32 [n, F], contiguous; gamma, beta float32 [F]; ids integer [n], which with
    key and p decide the mask. Sums are float32."""

    @staticmethod
    def forward(ctx, x, gamma, beta, p, key, ids, eps):
        ctx.mask = p, signed(key), ids
        out, mean, rstd = norm.forward(x, gamma, beta, *ctx.mask, eps)
        ctx.save_for_backward(x, gamma, beta, mean, rstd)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        x, gamma, beta, mean, rstd = ctx.saved_tensors
        upstream = upstream.contiguous()
        of_x, parts = norm.backward(x, gamma, beta, *ctx.mask, mean, rstd, upstream)
        of_gamma, of_beta = parts.sum(0)
        return of_x, of_gamma, of_beta, None, None, None, None
