"""PyG's own layers on the paths that PyG calls fast, to hold `blocks` against the best of them.

`SAGEConv` fuses message and aggregation for a CSR matrix (torch.sparse.mm) and for an `EdgeIndex`
sorted by destination. `trim_to_layer` cuts no torch CSR matrix, and of an `EdgeIndex` it drops the
cached transpose that the backward pass needs. So every layer's adjacency is made here beforehand,
with all caches filled, in the phase `data`: not part of the step that is compared. That is more
than PyG's loaders do, in PyG's favour.
"""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric.data import Data

from sagebench.bench.rows import BIPARTITE
from sagebench.engines.base import Batch, GraphSizes, network_arguments
from sagebench.engines.pyg import PygEngine
from sagebench.grid.trial import Trial
from sagebench.models.pyg import PygNetwork
from sagebench.sampling.order import MicroBatch


class FusedPygNetwork(PygNetwork):
    """The same layers over one prepared adjacency a layer."""

    def forward(self, x: Tensor, layers: list[tuple[Tensor, int, int]], seeds: int) -> Tensor:
        """Logits of the seed nodes, float [seeds, classes].

        x: float [n, in_channels] of the sampled nodes. layers: adjacency, nodes that are read and
        nodes that are computed, of each layer.
        """
        for k, (adjacency, sources, rows) in enumerate(layers):
            x = x[:sources]
            x = self.convs[k]((x, x if rows == sources else x[:rows]), adjacency)
            if k < len(self.norms):
                x = F.relu(self.norms[k](x))
                x = F.dropout(x, self.dropout, self.training)
        return x[:seeds]


class FusedPygEngine(PygEngine):
    """The trial's engine is one of sagebench.bench.rows.PEERS."""

    @staticmethod
    def make_model(trial: Trial, graph: GraphSizes) -> nn.Module:
        return FusedPygNetwork(**network_arguments(trial, graph), layout="bipartite")

    def _batch(self, micro_batch: MicroBatch, data: Data) -> Batch:
        batch = super()._batch(micro_batch, data)
        x, edge_index, nodes, edges = batch.inputs
        layers = []
        for k in range(len(edges)):
            sources, count = sum(nodes[: len(nodes) - k]), sum(edges[: len(edges) - k])
            bipartite = self.trial.engine == BIPARTITE
            rows = sum(nodes[: len(nodes) - k - 1]) if bipartite else sources
            layers.append((self._adjacency(edge_index[:, :count], sources, rows), sources, rows))
        return batch._replace(inputs=(x, layers, nodes[0]))

    def _adjacency(self, edge_index: Tensor, sources: int, rows: int) -> Tensor:
        if self.trial.engine == "trimmed_edge_index":
            cached = EdgeIndex(
                edge_index.contiguous(), sparse_size=(sources, rows), sort_order="col"
            ).fill_cache_()
            cached._get_value()
            return cached
        source, destination = edge_index
        rowptr = torch._convert_indices_from_coo_to_csr(destination.contiguous(), rows)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse")
            return torch.sparse_csr_tensor(
                rowptr,
                source.contiguous(),
                torch.ones(len(source), device=source.device),
                size=(rows, sources),
            )
