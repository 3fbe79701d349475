"""GraphSAGE on blocks, made of these kernels: four launches a layer forward, and the products."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from sagebench.models.base import Network
from sagebench.sampling.blocks import Blocks
from sagebench.sampling.random import fold
from torch import Tensor

from . import norm, segment
from .gradient_norm import gradient_norm


@dataclass(frozen=True)
class Tuning:
    """How the kernels are launched: options of `segment.aggregate` for the first layer and for the
    others, of `segment.gradient`, and of `norm`'s two; or instead of the backward ones those of
    `gradient_norm`, which does both at once."""

    first: dict[str, Any] = field(default_factory=lambda: {"rows": 8})
    others: dict[str, Any] = field(default_factory=dict)
    gradient: dict[str, Any] = field(default_factory=dict)
    norm_forward: dict[str, Any] = field(default_factory=dict)
    norm_backward: dict[str, Any] = field(default_factory=dict)
    fused: dict[str, Any] | None = None


class KernelModel:
    """Computes what `model` does, with its parameters, in bf16 or float32 as it does."""

    def __init__(self, model: Network, tuning: Tuning | None = None) -> None:
        self.model = model
        self.tuning = tuning or Tuning()
        self._weights = []
        for conv in model.convs:
            out, columns = conv.lin_l.weight.shape
            shape = (out, 2 * segment.width_of(columns))
            self._weights.append(conv.lin_l.weight.new_zeros(shape, dtype=conv.dtype))

    def __call__(self, table: Tensor, blocks: Blocks, by_source: tuple[Tensor, Tensor]) -> Tensor:
        """Logits of the seeds. table: the features, F columns and as many of zeros as wanted, bf16
        or float32. by_source: the second layer's edges transposed, of `transpose`."""
        model, h = self.model, table
        weights = None
        if model.convs[0].aggregator == "mean":
            weights = blocks.rowptr.diff().float().reciprocal_()
        norm_before = bias_before = None
        for k, (conv, weight) in enumerate(zip(model.convs, self._weights, strict=True), start=1):
            columns = conv.lin_l.weight.shape[1]
            with torch.no_grad():
                weight[:, :columns] = conv.lin_l.weight
                weight[:, weight.shape[1] // 2 :][:, :columns] = conv.lin_r.weight
            last = k == len(model.convs)
            layout = _Layout(
                blocks=blocks,
                layer=k,
                by_source=by_source,
                weights=weights,
                aggregator=model.convs[0].aggregator,
                dropout=model.dropout if model.training else 0.0,
                eps=norm_before.eps if norm_before else 0.0,
                dtype=weight.dtype,
                tuning=self.tuning,
            )
            h = _Layer.apply(
                h,
                norm_before.weight if norm_before else None,
                norm_before.bias if norm_before else None,
                bias_before,
                conv.lin_l.weight,
                conv.lin_l.bias if last else conv.lin_l.bias.detach(),
                conv.lin_r.weight,
                weight,
                layout,
            )
            norm_before, bias_before = None if last else model.norms[k - 1], conv.lin_l.bias
        return h


class _Layout(NamedTuple):
    """What a layer reads besides floating-point tensors."""

    blocks: Blocks
    layer: int
    by_source: tuple[Tensor, Tensor]
    weights: Tensor | None
    aggregator: str
    dropout: float
    eps: float
    dtype: torch.dtype
    tuning: Tuning

    def aggregate(self, h: Tensor, columns: int) -> Tensor:
        rows = self.blocks.destinations(self.layer)
        rowptr = self.blocks.rowptr[: rows + 1]
        if self.layer == 1:
            return segment.aggregate(
                h, rowptr, self.blocks.neighbors, self.aggregator, ids=self.blocks.node_ids,
                columns=columns, dtype=self.dtype, **self.tuning.first,
            )  # fmt: skip
        return segment.aggregate(h, rowptr, self.blocks.cols, self.aggregator, **self.tuning.others)

    def gradient(self, upstream: Tensor, columns: int, *normed: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient of what was normed, and the sums that `norm.backward` gives."""
        colptr, dst = self.by_source
        edges = colptr[: self.blocks.sources(self.layer) + 1], dst
        roots, (x, gamma, beta, mean, rstd) = len(upstream), normed
        mask = self.mask()
        if self.tuning.fused is not None:
            return gradient_norm(
                upstream, *edges, roots, self.weights, x, gamma, beta, *mask, mean, rstd,
                **self.tuning.fused,
            )  # fmt: skip
        of_h = segment.gradient(
            upstream, *edges, columns, roots, self.weights, **self.tuning.gradient
        )
        return norm.backward(x, gamma, beta, *mask, mean, rstd, of_h, **self.tuning.norm_backward)

    def mask(self) -> tuple[float, int, Tensor]:
        """Of the layer before."""
        return self.dropout, fold(self.blocks.key, self.layer - 1), self.blocks.node_ids


class _Layer(torch.autograd.Function):
    """A layer's output before its norm, from that of the layer before, or from the table.

    The bias of the layer before (`bias_before`) gets its gradient here, where the gradient of what
    it was added to comes into being.
    """

    @staticmethod
    def forward(ctx, x, gamma, beta, bias_before, weight_l, bias, weight_r, weight, layout):
        ctx.layout, ctx.columns, normed = layout, weight_l.shape[1], ()
        h = x
        if gamma is not None:
            options = layout.tuning.norm_forward
            h, mean, rstd = norm.forward(x, gamma, beta, *layout.mask(), layout.eps, **options)
            normed = (x, gamma, beta, mean, rstd)
        both = layout.aggregate(h, ctx.columns)
        ctx.save_for_backward(both, weight, *normed)
        return torch.addmm(bias.to(both.dtype), both, weight.t())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        both, weight, *normed = ctx.saved_tensors
        layout, columns, half = ctx.layout, ctx.columns, both.shape[1] // 2
        upstream = upstream.contiguous()
        of_weight = (upstream.t() @ both).float()
        of_bias = upstream.sum(0, dtype=torch.float32) if ctx.needs_input_grad[5] else None
        of_x = of_gamma = of_beta = of_bias_before = None
        if normed:
            of_x, sums = layout.gradient(upstream @ weight, columns, *normed)
            of_gamma, of_beta, of_bias_before = sums
        return (
            of_x,
            of_gamma,
            of_beta,
            of_bias_before,
            of_weight[:, :columns],
            of_bias,
            of_weight[:, half : half + columns],
            None,
            None,
        )
