"""GCN on sampled neighborhoods: W . SUM(w_uv h_u) + b, with the weights of the whole graph.

w_uv = 1 / sqrt((d_u + 1) (d_v + 1)) from the in-degrees in the graph (Kipf and Welling 2017, with
the self loop's weight 1 / (d_v + 1)). Of d_v edges s_v are sampled, so they count d_v / s_v times,
which makes the expectation that of the whole neighborhood (the self loop is not sampled).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch_geometric.nn import GCNConv

from sagebench.kernels.segment import aggregate_with_root
from sagebench.models import base

MODEL = "graph convolutional network (Kipf and Welling 2017), sampled, with the graph's own weights"
ENGINES = ["blocks", "reference"]


class Layer(base.Layer):
    needs_degrees = True

    def __init__(self, in_channels: int, out_channels: int, *, last: bool) -> None:
        super().__init__()
        self.lin = base.Linear(in_channels, out_channels)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.narrows = out_channels < in_channels  # then it is less to sum behind the product

    def project(self, x: Tensor, degrees: Tensor | None) -> Tensor:
        assert degrees is not None
        # An edge's weight is a factor of its source by a factor of its destination.
        h = linear(x, self.lin.weight.to(x.dtype)) if self.narrows else x
        return h * (degrees + 1).rsqrt().to(h.dtype)[:, None]

    def reduce(self, z: Tensor, edges: base.Edges, own: Tensor | None = None) -> Tensor:
        neighbors, first = aggregate_with_root(z, edges.rowptr, edges.col, "sum", edges.by_source)
        sampled = edges.rowptr.diff().clamp(min=1)
        assert edges.row_degrees is not None
        scale = (edges.row_degrees / sampled).to(z.dtype)[:, None]
        own = first if own is None else own
        return (neighbors * scale + own) * (edges.row_degrees + 1).rsqrt().to(z.dtype)[:, None]

    def update(self, reduced: Tensor, root: Tensor | None, *, projected: bool = False) -> Tensor:
        bias = self.bias.to(reduced.dtype)
        if self.narrows:
            return reduced + bias
        return linear(reduced, self.lin.weight.to(reduced.dtype), bias)


def peer(in_channels: int, out_channels: int, *, last: bool) -> nn.Module:
    """PyG's layer of the same mathematics and parameters; the weights come with the edges."""
    return GCNConv(in_channels, out_channels, normalize=False)


def peer_edges(edge_index: Tensor, degrees: Tensor) -> tuple[Tensor, Tensor]:
    """Edges with self loops, int64 [2, e + n], and their weights; degrees: float32 [n]."""
    source, destination = edge_index
    sampled = torch.zeros_like(degrees).index_add_(
        0, destination, degrees.new_ones(len(destination))
    )
    weights = (
        (degrees[source] + 1).rsqrt()
        * (degrees[destination] + 1).rsqrt()
        * (degrees / sampled.clamp(min=1))[destination]
    )
    loops = torch.arange(len(degrees), device=degrees.device)
    return (
        torch.cat([edge_index, torch.stack([loops, loops])], dim=1),
        torch.cat([weights, (degrees + 1).reciprocal()]),
    )
