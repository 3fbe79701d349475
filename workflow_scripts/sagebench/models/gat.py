"""GAT: a node's neighbors and itself, weighted by attention (Velickovic et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch_geometric.nn import GATConv

from sagebench.kernels.attention import attend
from sagebench.models import base

MODEL = "graph attention network (Velickovic et al. 2018), without dropout of the attention"
OPTIONS = {
    "heads": {
        "type": "whole",
        "low": 1,
        "example": 4,
        "default": 4,
        "divides": "hidden_channels",
        "help": "attention heads of a layer: side by side, and their mean in the last layer",
    }
}


class Layer(base.Layer):
    def __init__(self, in_channels: int, out_channels: int, *, heads: int, last: bool) -> None:
        super().__init__()
        self.heads, self.last = heads, last
        width = out_channels if last else out_channels // heads
        self.lin = base.Linear(in_channels, heads * width)
        self.att_src = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, heads, width)))
        self.att_dst = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, heads, width)))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def project(self, x: Tensor, degrees: Tensor | None) -> Tensor:
        values = linear(x, self.lin.weight.to(x.dtype)).unflatten(1, (self.heads, -1))
        scores = [
            (values * attention.to(x.dtype)).sum(-1) for attention in (self.att_src, self.att_dst)
        ]
        return torch.cat([values.flatten(1), *scores], dim=1)

    def reduce(self, z: Tensor, edges: base.Edges, own: Tensor | None = None) -> Tensor:
        return attend(z, edges.rowptr, edges.col, self.heads, own)

    def update(self, reduced: Tensor, root: Tensor | None, *, projected: bool = False) -> Tensor:
        h = reduced.unflatten(1, (self.heads, -1)).mean(1) if self.last else reduced
        return h + self.bias.to(h.dtype)


def peer(in_channels: int, out_channels: int, *, heads: int, last: bool) -> nn.Module:
    """PyG's layer of the same mathematics and parameters."""
    width = out_channels if last else out_channels // heads
    return GATConv(in_channels, width, heads, concat=not last)
