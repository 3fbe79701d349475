"""GraphSAGE: W_l . AGG(neighbors) + b + W_r . h (Hamilton et al. 2017, algorithm 1)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch_geometric.nn import SAGEConv

from sagebench.kernels.segment import side_by_side
from sagebench.models import base

MODEL = "GraphSAGE (Hamilton et al. 2017), with its own weights for a node and its neighbors"
AGGREGATORS = ["mean", "sum", "max"]
AGGREGATES_FEATURES = "aggregator"


def products(
    aggregated: Tensor, root: Tensor, weight_l: Tensor, bias: Tensor, weight_r: Tensor
) -> Tensor:
    """aggregated @ weight_l.T + bias + root @ weight_r.T, as PyG's SAGEConv has them, in memory
    that nothing else reads."""
    return linear(aggregated, weight_l, bias).addmm_(root, weight_r.t())


class Layer(base.Layer):
    def __init__(self, in_channels: int, out_channels: int, *, aggregator: str, last: bool) -> None:
        super().__init__()
        self.lin_l = nn.Linear(in_channels, out_channels)
        self.lin_r = nn.Linear(in_channels, out_channels, bias=False)
        self.aggregator = aggregator
        self.products = products

    @property
    def projects(self) -> bool:
        """Where the layer narrows it is less to sum, and a sum of products is the product of the
        sum; not in training, whose gradients are to be PyG's to the last digits."""
        outputs, inputs = self.lin_l.weight.shape
        return outputs < inputs and self.aggregator != "max"

    def project(self, x: Tensor, degrees: Tensor | None) -> Tensor:
        return linear(x, self.lin_l.weight)

    def update(self, reduced: Tensor, root: Tensor | None, *, projected: bool = False) -> Tensor:
        assert root is not None
        if projected:
            return linear(root, self.lin_r.weight, self.lin_l.bias).add_(reduced)
        parameters = (self.lin_l.weight, self.lin_l.bias, self.lin_r.weight)
        return self.products(reduced, root, *(p.to(reduced.dtype) for p in parameters))

    def update_beside(self, both: Tensor, columns: int) -> Tensor:
        weights = side_by_side(self.lin_l.weight, self.lin_r.weight, both.dtype)
        return linear(both, weights, self.lin_l.bias.to(both.dtype))

    def compile(self, **options: Any) -> None:
        self.products = torch.compile(products, **options)


def peer(in_channels: int, out_channels: int, *, aggregator: str, last: bool) -> nn.Module:
    """PyG's layer of the same mathematics and parameters."""
    return SAGEConv(in_channels, out_channels, aggr=aggregator)
