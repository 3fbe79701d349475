"""The `blocks` engine: our sampler in threads, bipartite blocks, features read where they lie."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from queue import SimpleQueue

import torch

from sagebench.errors import UserError
from sagebench.graph.store import GraphStore
from sagebench.grid.trial import Trial
from sagebench.model.graphsage import GraphSAGE
from sagebench.sampling.blocks import Blocks
from sagebench.sampling.cpu import CpuSampler
from sagebench.sampling.order import MicroBatch, sample_key
from sagebench.training.engines import Batch, model_arguments
from sagebench.training.prefetch import prefetch
from sagebench.training.tensors import torch_view


class BlocksEngine:
    def __init__(self, trial: Trial, store: GraphStore, device: torch.device) -> None:
        if trial.sampler != "sagebench":
            raise UserError(
                f"sampler '{trial.sampler}' does not serve engine 'blocks': "
                "write sampler: sagebench"
            )
        self.trial = trial
        self.device = device
        self.model = GraphSAGE(**model_arguments(trial, store)).to(device)
        self.features = torch_view(store.features).to(device)
        self.labels = torch_view(store.labels).to(device)
        # A sampler serves one caller at a time: one for each worker, one for this thread.
        self._samplers: SimpleQueue[CpuSampler] = SimpleQueue()
        for _ in range(trial.sampling_workers + 1):
            self._samplers.put(CpuSampler(store.colptr, store.row))

    def sample(self, micro_batch: MicroBatch) -> tuple[MicroBatch, Blocks]:
        sampler = self._samplers.get()
        try:
            key = sample_key(self.trial.seed, micro_batch.epoch, micro_batch.index)
            blocks = sampler.sample(micro_batch.seeds, self.trial.fanout, key, relabel_last=False)
        finally:
            self._samplers.put(sampler)
        if self.device.type == "cuda":
            blocks = blocks.pin_memory()
        return micro_batch, blocks

    def load(self, sampled: tuple[MicroBatch, Blocks]) -> Batch:
        micro_batch, blocks = sampled
        blocks = blocks.to(self.device)
        labels = self.labels[blocks.node_ids[: blocks.num_seeds]].long()
        return Batch(
            micro_batch,
            (self.features, blocks),
            labels,
            blocks.nodes_per_hop,
            blocks.edges_per_hop,
            blocks.key,
        )

    def stream(self, micro_batches: Iterable[MicroBatch]) -> Iterator[Batch]:
        return map(self.load, prefetch(self.sample, micro_batches, self.trial.sampling_workers))

    def close(self) -> None:
        """Nothing to end: the worker threads live as long as a stream."""
