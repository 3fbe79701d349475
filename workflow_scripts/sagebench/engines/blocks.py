"""The `blocks` engine: our samplers ahead of the step, bipartite blocks, features read where they
lie."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from sagebench import registry
from sagebench.engines import base
from sagebench.engines.base import Batch, GraphSizes, network_arguments, seeds_of_sizes
from sagebench.engines.loaders import (
    Inputs,
    Loader,
    Placement,
    SideStream,
    available_bytes,
    choose_placement,
    features_dtype,
    gathers,
)
from sagebench.engines.precision import compute_dtype
from sagebench.graph.store import GraphStore
from sagebench.grid.last_hop import table_aggregator
from sagebench.grid.trial import Trial
from sagebench.models.base import Network, layer_class
from sagebench.sampling.blocks import Blocks, torch_view
from sagebench.sampling.order import MicroBatch, sample_key

ENGINE = "our samplers and kernels on bipartite blocks, sampled ahead of the step"
TAKES = ["blocks"]
PLACEMENTS = ["auto", "device", "host"]
LOADS = "threads"
READS_TABLE = True
HAS_KERNELS = True


class Engine(base.Engine[tuple[MicroBatch, Blocks]]):
    loader: Loader
    placement: Placement
    on_side_stream = True

    def prepare(self, store: GraphStore, placement: Placement | None) -> None:
        trial, device = self.trial, self.device
        self.placement = placement or choose_placement(
            trial, store, available_bytes(device, trial.memory_limit_gib)
        )
        self.labels = torch_view(store.labels).to(device)
        self.loader = Loader(trial, store, device, self.placement.chosen)
        self._side = SideStream(device)

    @classmethod
    def make_model(cls, trial: Trial, graph: GraphSizes) -> nn.Module:
        return Network(**network_arguments(trial, graph), dtype=compute_dtype(trial))

    @staticmethod
    def batch_of_sizes(
        trial: Trial,
        placement: str,
        features: Tensor,
        nodes_per_hop: Sequence[int],
        edges_per_hop: Sequence[int],
    ) -> Batch:
        gathered = gathers(trial, placement)
        dtype = features_dtype(trial, placement)
        # What is resident is no part of the batch: the same storage, whatever its dtype.
        resident = features.view(dtype)[:, : features.shape[1]]
        read, known = resident, None
        rows = sum(nodes_per_hop[:-1])
        if table_aggregator(trial):
            known = resident
            if gathered:
                known = features.new_empty(nodes_per_hop[-2], features.shape[1], dtype=dtype)
            rows -= nodes_per_hop[-2]
            edges_per_hop = (*edges_per_hop[:-1], 0)
        if known is not None or not gathered:  # the last hop's nodes are not numbered
            nodes_per_hop = (*nodes_per_hop[:-1], 0)
        nodes, edges = sum(nodes_per_hop), sum(edges_per_hop)
        sources = torch.int32 if len(features) < 1 << 31 else torch.int64
        numbered = edges if gathered else edges - edges_per_hop[-1]
        by_source = None
        if placement == "device":
            sampler = registry.load("device sampler", trial.sampler).Sampler
            fanout = trial.fanout if known is None else trial.fanout[:-1]
            if sampler.groups_by_source(fanout, features.device):
                colptr = features.new_empty(nodes + 1, dtype=torch.int32)
                by_source = colptr, features.new_empty(numbered, dtype=torch.int32)
        blocks = Blocks(
            node_ids=features.new_empty(nodes, dtype=torch.int64),
            rowptr=features.new_empty(rows + 1, dtype=torch.int64),
            neighbors=features.new_empty(0 if gathered else edges, dtype=sources),
            cols=features.new_empty(numbered, dtype=torch.int32),
            nodes_per_hop=tuple(nodes_per_hop),
            edges_per_hop=tuple(edges_per_hop),
            key=0,
            by_source=by_source,
        )
        degrees = features.new_empty(nodes) if layer_class(trial.model).needs_degrees else None
        if gathered:
            read = features.new_empty(nodes, features.shape[1], dtype=dtype)
        inputs: Inputs = read, blocks, gathered, degrees, known
        labels = features.new_empty(nodes_per_hop[0], dtype=torch.int64)
        return as_batch(seeds_of_sizes(nodes_per_hop[0]), inputs, labels)

    def sample(self, micro_batch: MicroBatch) -> tuple[MicroBatch, Blocks]:
        key = sample_key(self.trial.seed, micro_batch.epoch, micro_batch.index)
        return micro_batch, self.loader.sample(micro_batch.seeds, key)

    def load(self, sampled: tuple[MicroBatch, Blocks]) -> Batch:
        micro_batch, blocks = sampled
        inputs = self.loader.load(blocks)
        seeds = inputs[1].node_ids[: blocks.num_seeds]
        return as_batch(micro_batch, inputs, self.labels[seeds].long())

    def stream(self, micro_batches: Iterable[MicroBatch]) -> Iterator[Batch]:
        return self._side.ahead(
            lambda micro_batch: self.load(self.sample(micro_batch)),
            micro_batches,
            self.trial.sampling_workers,
        )


def as_batch(micro_batch: MicroBatch, inputs: Inputs, labels: Tensor) -> Batch:
    blocks = inputs[1]
    return Batch(
        micro_batch, inputs, labels, blocks.nodes_per_hop, blocks.edges_per_hop, blocks.key
    )
