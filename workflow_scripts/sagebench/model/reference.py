"""The peers: PyG's own layers, with and without its trimming."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import SAGEConv
from torch_geometric.utils import trim_to_layer

from sagebench.model.autocast import autocast


class PygGraphSAGE(nn.Module):
    """The slides' path: PyG's own SAGEConv over the sampled graph.

    trim: False computes every sampled node in every layer; True drops, layer by layer, what the
    seeds no longer need (PyG's `trim_to_layer`). dtype: bfloat16 computes under torch.autocast.
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
        trim: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        widths = [in_channels, *[hidden_channels] * (layers - 1), out_channels]
        self.convs = nn.ModuleList(
            SAGEConv(widths[k], widths[k + 1], aggr=aggregator) for k in range(layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_channels) for _ in range(layers - 1))
        self.dropout = dropout
        self.trim = trim
        self.dtype = dtype

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        nodes_per_hop: tuple[int, ...],
        edges_per_hop: tuple[int, ...],
    ) -> Tensor:
        """Logits of the seed nodes, [B, classes].

        x: float32 [n, in_channels] of the sampled nodes, seeds first, then hop by hop.
        edge_index: int64 [2, e] local (source, destination), hop by hop.
        """
        with autocast(x.device.type, self.dtype):
            for k, conv in enumerate(self.convs):
                if self.trim:
                    x, edge_index, _ = trim_to_layer(
                        k, list(nodes_per_hop), list(edges_per_hop), x, edge_index
                    )
                x = conv(x, edge_index)
                if k < len(self.norms):
                    x = F.relu(self.norms[k](x))
                    x = F.dropout(x, self.dropout, self.training)
        return x[: nodes_per_hop[0]]
