"""Multi-layer perceptron on a node's own features: a layer is W . h + b."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import linear

from sagebench.models import base

MODEL = "perceptron on a node's own features, without the graph; of one layer logistic regression"
READS_NEIGHBORS = False


class Layer(base.Layer):
    def __init__(self, in_channels: int, out_channels: int, *, last: bool) -> None:
        super().__init__()
        self.lin = nn.Linear(in_channels, out_channels)

    def project(self, x: Tensor, degrees: Tensor | None) -> Tensor:
        return linear(x, self.lin.weight.to(x.dtype), self.lin.bias.to(x.dtype))

    def reduce(self, z: Tensor, edges: base.Edges, own: Tensor | None = None) -> Tensor:
        return z[: len(edges.rowptr) - 1] if own is None else own

    def update(self, reduced: Tensor, root: Tensor | None, *, projected: bool = False) -> Tensor:
        return reduced


class Peer(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.lin = nn.Linear(in_channels, out_channels)

    def forward(self, x: Tensor | tuple[Tensor, Tensor], edge_index: Tensor) -> Tensor:
        return self.lin(x if isinstance(x, Tensor) else x[1])


def peer(in_channels: int, out_channels: int, *, last: bool) -> nn.Module:
    """torch's layer of the same parameters, called as PyG's are."""
    return Peer(in_channels, out_channels)
