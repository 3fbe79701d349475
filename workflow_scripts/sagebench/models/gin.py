"""GIN: MLP(h + SUM(neighbors)), without batch normalisation."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import linear, relu
from torch_geometric.nn import GINConv

from sagebench.models import base

MODEL = "graph isomorphism network (Xu et al. 2019, epsilon 0): an MLP of a node plus its neighbors"
AGGREGATES_FEATURES = "sum"


def mlp(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two layers, as in PyG's `GIN`."""
    return nn.Sequential(
        nn.Linear(in_channels, out_channels), nn.ReLU(), nn.Linear(out_channels, out_channels)
    )


class Layer(base.Layer):
    aggregator = "sum"

    def __init__(self, in_channels: int, out_channels: int, *, last: bool) -> None:
        super().__init__()
        self.nn = mlp(in_channels, out_channels)

    def update(self, reduced: Tensor, root: Tensor | None, *, projected: bool = False) -> Tensor:
        first, _, second = self.nn
        assert root is not None and isinstance(first, nn.Linear) and isinstance(second, nn.Linear)
        h = reduced + root
        h = relu(linear(h, first.weight.to(h.dtype), first.bias.to(h.dtype)))
        return linear(h, second.weight.to(h.dtype), second.bias.to(h.dtype))


def peer(in_channels: int, out_channels: int, *, last: bool) -> nn.Module:
    """PyG's layer of the same mathematics and parameters."""
    conv = GINConv(mlp(in_channels, out_channels))
    del conv.eps  # a buffer, which would be part of the state dict
    conv.eps = 0.0
    return conv
