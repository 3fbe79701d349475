"""GraphSAGE on blocks, made of these kernels: four launches a layer forward, and the products."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from sagebench.model.graphsage import GraphSAGE
from sagebench.sampling.blocks import Blocks
from sagebench.sampling.random import fold
from torch import Tensor

from . import norm, segment


@dataclass(frozen=True)
class Tuning:
    """How the kernels are launched: options of `segment.aggregate` for the first layer and for the
    others, of `segment.gradient`, and of `norm`'s two."""

    first: dict[str, Any] = field(default_factory=dict)
    others: dict[str, Any] = field(default_factory=dict)
    gradient: dict[str, Any] = field(default_factory=dict)
    norm_forward: dict[str, Any] = field(default_factory=dict)
    norm_backward: dict[str, Any] = field(default_factory=dict)


class KernelModel:
    """Computes what `model` does, with its parameters, in bf16 or float32 as it does."""

    def __init__(self, model: GraphSAGE, tuning: Tuning | None = None) -> None:
        self.model = model
        self.tuning = tuning or Tuning()
        self._weights = []
        for conv in model.convs:
            out, columns = conv.lin_l.weight.shape
            shape = (out, 2 * segment.width_of(columns))
            self._weights.append(conv.lin_l.weight.new_zeros(shape, dtype=model.dtype))

    def __call__(self, table: Tensor, blocks: Blocks, by_source: tuple[Tensor, Tensor]) -> Tensor:
        """Logits of the seeds. table: the features, F columns and as many of zeros as wanted, bf16
        or float32. by_source: the second layer's edges transposed, of `transpose`."""
        model, h = self.model, table
        weights = None
        if model.aggregator == "mean":
            weights = blocks.rowptr.diff().float().reciprocal_()
        for k, (conv, weight) in enumerate(zip(model.convs, self._weights, strict=True), start=1):
            columns = conv.lin_l.weight.shape[1]
            with torch.no_grad():
                weight[:, :columns] = conv.lin_l.weight
                weight[:, weight.shape[1] // 2 :][:, :columns] = conv.lin_r.weight
            last = k == len(model.convs)
            h = _Layer.apply(
                h,
                conv.lin_l.weight,
                conv.lin_l.bias,
                conv.lin_r.weight,
                None if last else model.norms[k - 1].weight,
                None if last else model.norms[k - 1].bias,
                weight,
                _Layout(
                    blocks=blocks,
                    layer=k,
                    by_source=by_source,
                    weights=weights,
                    aggregator=model.aggregator,
                    dropout=model.dropout if model.training else 0.0,
                    eps=0.0 if last else model.norms[k - 1].eps,
                    dtype=weight.dtype,
                    tuning=self.tuning,
                ),
            )
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

    def gradient(self, upstream: Tensor, columns: int) -> Tensor:
        colptr, dst = self.by_source
        return segment.gradient(
            upstream, colptr[: self.blocks.sources(self.layer) + 1], dst, columns, len(upstream),
            self.weights, **self.tuning.gradient,
        )  # fmt: skip

    def mask(self) -> tuple[float, int, Tensor]:
        return self.dropout, fold(self.blocks.key, self.layer), self.blocks.node_ids


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h, weight_l, bias, weight_r, gamma, beta, weight, layout):
        columns = weight_l.shape[1]
        both = layout.aggregate(h, columns)
        out = torch.addmm(bias.to(both.dtype), both, weight.t())
        ctx.layout, ctx.columns = layout, columns
        if gamma is None:
            ctx.save_for_backward(both, weight)
            return out
        result, mean, rstd = norm.forward(
            out, gamma, beta, *layout.mask(), layout.eps, **layout.tuning.norm_forward
        )
        ctx.save_for_backward(both, weight, out, gamma, beta, mean, rstd)
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        both, weight, *normed = ctx.saved_tensors
        layout, columns = ctx.layout, ctx.columns
        of_gamma = of_beta = None
        upstream = upstream.contiguous()
        if normed:
            out, gamma, beta, mean, rstd = normed
            upstream, sums = norm.backward(
                out, gamma, beta, *layout.mask(), mean, rstd, upstream,
                **layout.tuning.norm_backward,
            )  # fmt: skip
            of_gamma, of_beta, of_bias = sums
        else:
            of_bias = upstream.sum(0, dtype=torch.float32)
        of_weight = (upstream.t() @ both).float()
        of_h = layout.gradient(upstream @ weight, columns) if ctx.needs_input_grad[0] else None
        half = both.shape[1] // 2
        return (
            of_h,
            of_weight[:, :columns],
            of_bias,
            of_weight[:, half : half + columns],
            of_gamma,
            of_beta,
            None,
            None,
        )
