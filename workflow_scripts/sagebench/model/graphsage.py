"""GraphSAGE on blocks: each layer computes only the nodes that the next one reads.

Parameters carry the names of PyG's SAGEConv (`convs.0.lin_l.weight`, ...), so a state dict moves
between this model and `sagebench.model.reference` as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from sagebench.model.fused import norm_relu_dropout, plain_norm_relu_dropout
from sagebench.model.segment import aggregate_with_root, segment_aggregate
from sagebench.sampling.blocks import Blocks
from sagebench.sampling.random import fold
from sagebench.sampling.tensor_random import signed


def products(
    aggregated: Tensor, root: Tensor, weight_l: Tensor, bias: Tensor, weight_r: Tensor
) -> Tensor:
    """aggregated @ weight_l.T + bias + root @ weight_r.T, as PyG's SAGEConv has them, in memory
    that nothing else reads."""
    return linear(aggregated, weight_l, bias).addmm_(root, weight_r.t())


class SAGELayer(nn.Module):
    """W_l . AGG(neighbors) + b + W_r . h (Hamilton et al. 2017, algorithm 1; PyG's SAGEConv)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.lin_l = nn.Linear(in_channels, out_channels)
        self.lin_r = nn.Linear(in_channels, out_channels, bias=False)
        self.products: Callable[..., Tensor] = products

    def forward(self, aggregated: Tensor, root: Tensor) -> Tensor:
        """aggregated, root: [n, in_channels] of the same n nodes; returns [n, out_channels]."""
        parameters = (self.lin_l.weight, self.lin_l.bias, self.lin_r.weight)
        return self.products(aggregated, root, *(p.to(aggregated.dtype) for p in parameters))


class GraphSAGE(nn.Module):
    """L layers of SAGE, LayerNorm, ReLU and dropout; the last goes straight to the classes.

    aggregator: mean, sum or max. dtype: what is computed in, from the first aggregation on;
    parameters are float32 in any case, and so are their gradients.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        layers: int,
        *,
        dropout: float = 0.0,
        aggregator: str = "mean",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        widths = [in_channels, *[hidden_channels] * (layers - 1), out_channels]
        self.convs = nn.ModuleList(SAGELayer(widths[k], widths[k + 1]) for k in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_channels) for _ in range(layers - 1))
        self.dropout = dropout
        self.aggregator = aggregator
        self.dtype = dtype
        self._compiled: Callable[..., Tensor] | None = None

    def forward(self, features: Tensor, blocks: Blocks, gathered: bool = False) -> Tensor:
        """Logits of the seed nodes, [B, classes] of the model's dtype.

        features: float32 [N, in_channels] of every node of the graph, on the device of `blocks`;
        the first layer aggregates straight from it. gathered: they are those of the sample's nodes
        alone, in the sample's order; its last hop must be relabelled.
        """
        h = features
        for k in range(1, len(self.convs) + 1):
            rows = blocks.destinations(k)
            rowptr = blocks.rowptr[: rows + 1]
            if k == 1:
                sources = blocks.cols if gathered else blocks.neighbors
                aggregated = segment_aggregate(h, rowptr, sources, self.aggregator)
                root = features[:rows] if gathered else features[blocks.node_ids[:rows]]
                aggregated, root = aggregated.to(self.dtype), root.to(self.dtype)
            else:
                sources = blocks.cols[: blocks.edges(k)]
                aggregated, root = aggregate_with_root(h, rowptr, sources, self.aggregator)
            h = self.convs[k - 1](aggregated, root)
            if k < len(self.convs):
                h = self.activate(k, h, rows=blocks.node_ids[:rows], key=fold(blocks.key, k))
        return h

    def compile(self, **options: Any) -> None:
        """Have torch.compile make the dense parts: the products, and what is between them. The
        aggregations are kernels already."""
        self._compiled = torch.compile(plain_norm_relu_dropout, **options)
        compiled = torch.compile(products, **options)
        for conv in self.convs:
            conv.products = compiled

    def activate(
        self, layer: int, h: Tensor, *, rows: Tensor | None = None, key: int = 0
    ) -> Tensor:
        """LayerNorm, ReLU and (in training) dropout after layer `layer`, counted from 1.

        rows: int64 [n] global node ids; with `key` they decide the dropout mask.
        """
        norm = self.norms[layer - 1]
        if self._compiled is not None and rows is not None:
            bits = torch.full((), signed(key), device=h.device)
            dropout = self.dropout if self.training else 0.0
            return self._compiled(h, norm.weight, norm.bias, dropout, bits, rows, norm.eps)
        return norm_relu_dropout(
            h,
            norm.weight,
            norm.bias,
            self.dropout,
            key,
            self.training,
            rows=rows,
            eps=norm.eps,
            overwrite=True,  # the layer's output, which nothing else reads
        )


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def touch_parameters(model: nn.Module) -> Tensor:
    """A zero that depends on every parameter: the loss of a rank that has no seed nodes."""
    return torch.stack([parameter.sum() * 0 for parameter in model.parameters()]).sum()
