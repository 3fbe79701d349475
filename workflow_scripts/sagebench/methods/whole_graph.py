"""Training on the whole graph as one batch: every layer computes every node, as the first graph
convolutional networks did (Kipf and Welling 2017). Its memory grows with the graph, whatever is
trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sagebench.engines import blocks
from sagebench.engines.base import Batch, Engine, GraphSizes, network_arguments
from sagebench.engines.precision import compute_dtype
from sagebench.graph.store import GraphStore
from sagebench.grid.trial import Fanout, Trial
from sagebench.methods import minibatch
from sagebench.models.base import Network
from sagebench.sampling.blocks import Blocks
from sagebench.sampling.order import MicroBatch, sample_key

METHOD = "training on the whole graph as one batch, every node in every layer"
KEYS = [
    "model",
    "layers",
    "hidden_channels",
    "dropout",
    "aggregator",
    "precision",
    "kernels",
    "epochs",
    "optimizer",
    "learning_rate",
    "weight_decay",
    "evaluate_every_epochs",
    "patience_evaluations",
    "continue_after_walltime",
]


class Run(minibatch.Run):
    """A whole trial, one step an epoch: mini-batch training whose batch is the graph."""

    tests_sampled = False

    def __init__(self, trial: Trial, store: Path, *arguments: Any) -> None:
        device = "device" if trial.device == "cuda" else "auto"
        one_batch = replace(
            trial,
            method="minibatch",
            batch_size=len(GraphStore.open(store).train),
            accumulation=1,
            fanout=Fanout((0,) * trial.layers),
            sampling_workers=0,
            placement=device,
        )
        super().__init__(one_batch, store, *arguments)

    def make_engine(self) -> Engine:
        return WholeGraphEngine(self.trial, self.store, self.device, self.placement())


class WholeNetwork(Network):
    """The network on every node of the graph, of which the seed nodes' logits are returned."""

    def forward(self, seeds: Tensor, *inputs: Any) -> Tensor:
        """Logits [B, classes] of `seeds`, int64 [B]. inputs: see `Network.forward`."""
        return super().forward(*inputs)[seeds]


class WholeGraphEngine(blocks.Engine):
    @classmethod
    def make_model(cls, trial: Trial, graph: GraphSizes) -> nn.Module:
        return WholeNetwork(**network_arguments(trial, graph), dtype=compute_dtype(trial))

    def sample(self, micro_batch: MicroBatch) -> tuple[MicroBatch, Blocks]:
        """Every edge in every layer; global and local numbers of the nodes are the same."""
        loader, rest = self.loader, (0,) * (self.trial.layers - 1)
        nodes = len(loader.colptr) - 1
        key = sample_key(self.trial.seed, micro_batch.epoch, micro_batch.index)
        return micro_batch, Blocks(
            node_ids=torch.arange(nodes, device=loader.colptr.device),
            rowptr=loader.colptr,
            neighbors=loader.row,
            cols=loader.row,
            nodes_per_hop=(nodes, 0, *rest),
            edges_per_hop=(len(loader.row), *rest),
            key=key,
        )

    def load(self, sampled: tuple[MicroBatch, Blocks]) -> Batch:
        micro_batch, whole = sampled
        seeds = torch.from_numpy(micro_batch.seeds).to(self.device)
        loader = self.loader
        inputs = seeds, loader.features, whole, True, loader.degrees
        labels = self.labels[seeds].long()
        return Batch(
            micro_batch, inputs, labels, whole.nodes_per_hop, whole.edges_per_hop, whole.key
        )

    def smallest_batch(self, micro_batch: MicroBatch) -> Batch:
        """The seed node is the whole graph, with an edge to itself."""
        loader, rest = self.loader, (0,) * (self.trial.layers - 1)
        seeds = torch.from_numpy(micro_batch.seeds).to(loader.colptr.device)
        alone = seeds.new_zeros(1)
        cols = alone.to(loader.row.dtype)
        graph = Blocks(seeds, seeds.new_tensor([0, 1]), cols, cols, (1, 0, *rest), (1, *rest), 0)
        degrees = None if loader.degrees is None else loader.degrees[seeds]
        inputs = alone, loader.features[seeds.to(loader.features.device)], graph, True, degrees
        labels = self.labels[seeds.to(self.labels.device)].long()
        return Batch(micro_batch, inputs, labels, graph.nodes_per_hop, graph.edges_per_hop, 0)

    def stream(self, micro_batches: Iterable[MicroBatch]) -> Iterator[Batch]:
        return (self.load(self.sample(micro_batch)) for micro_batch in micro_batches)
