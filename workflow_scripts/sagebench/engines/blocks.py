"""The `blocks` engine: our samplers ahead of the step, bipartite blocks, features read where they
lie."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from sagebench.engines.base import Batch, model_arguments
from sagebench.engines.compilation import compile_model
from sagebench.engines.loaders import LOADERS
from sagebench.engines.placement import Placement, placement_on
from sagebench.engines.precision import compute_dtype
from sagebench.engines.side_stream import SideStream
from sagebench.engines.tensors import torch_view
from sagebench.errors import UserError
from sagebench.graph.store import GraphStore
from sagebench.grid.trial import Trial
from sagebench.model.graphsage import GraphSAGE
from sagebench.sampling.blocks import Blocks
from sagebench.sampling.order import MicroBatch, sample_key


class BlocksEngine:
    def __init__(
        self,
        trial: Trial,
        store: GraphStore,
        device: torch.device,
        placement: Placement | None = None,
    ) -> None:
        if trial.sampler != "sagebench":
            raise UserError(
                f"sampler '{trial.sampler}' does not serve engine 'blocks': "
                "write sampler: sagebench"
            )
        self.trial = trial
        self.device = device
        self.placement = placement or placement_on(
            trial.placement, store, device, trial.memory_limit_gib
        )
        self.model = GraphSAGE(**model_arguments(trial, store), dtype=compute_dtype(trial))
        self.model.to(device)
        if trial.compile:
            compile_model(self.model, device)
        self.labels = torch_view(store.labels).to(device)
        self.loader = LOADERS[self.placement.chosen](trial, store, device)
        self._side = SideStream(device)

    def sample(self, micro_batch: MicroBatch) -> tuple[MicroBatch, Blocks]:
        key = sample_key(self.trial.seed, micro_batch.epoch, micro_batch.index)
        return micro_batch, self.loader.sample(micro_batch.seeds, key)

    def load(self, sampled: tuple[MicroBatch, Blocks]) -> Batch:
        micro_batch, blocks = sampled
        inputs = self.loader.load(blocks)
        seeds = inputs[1].node_ids[: blocks.num_seeds]
        return Batch(
            micro_batch,
            inputs,
            self.labels[seeds].long(),
            blocks.nodes_per_hop,
            blocks.edges_per_hop,
            blocks.key,
        )

    def stream(self, micro_batches: Iterable[MicroBatch]) -> Iterator[Batch]:
        return self._side.ahead(
            lambda micro_batch: self.load(self.sample(micro_batch)),
            micro_batches,
            self.trial.sampling_workers,
        )
