"""One evaluator for all engines, outside the epochs' time, shared between the ranks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from sagebench.graph.store import GraphStore
from sagebench.grid.trial import Trial
from sagebench.model.graphsage import GraphSAGE
from sagebench.model.segment import segment_aggregate
from sagebench.sampling.cpu import CpuSampler
from sagebench.sampling.random import fold
from sagebench.training.distributed import Communicator
from sagebench.training.engines import model_arguments
from sagebench.training.tensors import torch_view

ROWS_PER_CHUNK = 1 << 15
SAMPLED_BATCH_SIZE = 1024
EVALUATION_STREAM = 3


class Evaluator:
    """Accuracy of weights on given nodes, `full` or `sampled`."""

    def __init__(
        self, trial: Trial, store: GraphStore, communicator: Communicator, labels: Tensor
    ) -> None:
        """labels: int [N] on the communicator's device."""
        self.trial = trial
        self.store = store
        self.communicator = communicator
        self.device = communicator.device
        self.labels = labels
        self.model = GraphSAGE(**model_arguments(trial, store)).to(self.device).eval()

    def accuracy(self, weights: dict[str, Tensor], nodes: np.ndarray, method: str) -> float:
        """Share of `nodes` (int64 ids) whose class is predicted, the same on every rank.

        method: `full` computes layer by layer over the whole graph, every neighbor taken;
        `sampled` samples the trial's own fanout with a fixed seed.
        """
        self.model.load_state_dict(weights)
        with torch.no_grad():
            correct = (self._full if method == "full" else self._sampled)(nodes)
        total = self.communicator.sum(
            torch.tensor([correct], dtype=torch.float64, device=self.device)
        )
        return total.item() / len(nodes)

    def _sampled(self, nodes: np.ndarray) -> int:
        sampler = CpuSampler(self.store.colptr, self.store.row)
        features = torch_view(self.store.features).to(self.device)
        correct = 0
        starts = range(0, len(nodes), SAMPLED_BATCH_SIZE)
        for index in range(self.communicator.rank, len(starts), self.communicator.world_size):
            seeds = nodes[starts[index] : starts[index] + SAMPLED_BATCH_SIZE]
            blocks = sampler.sample(
                seeds, self.trial.fanout, fold(EVALUATION_STREAM, index), relabel_last=False
            ).to(self.device)
            correct += self._correct(self.model(features, blocks), seeds)
        return correct

    def _full(self, nodes: np.ndarray) -> int:
        """Every rank computes a slice of each layer's rows and gives it to the others."""
        every = np.arange(self.store.num_nodes)
        h = torch_view(self.store.features)
        for layer in range(1, self.trial.layers):
            out = torch.empty(self.store.num_nodes, self.trial.hidden_channels, device=self.device)
            slices = self._slices(len(every))
            for first, last in self._chunks(*slices[self.communicator.rank]):
                out[first:last] = self.model.activate(
                    layer, self._layer(layer, h, every[first:last])
                )
            for rank, (first, last) in enumerate(slices):
                self.communicator.broadcast(out[first:last], rank)
            h = out
        correct = 0
        for first, last in self._chunks(*self._slices(len(nodes))[self.communicator.rank]):
            ids = nodes[first:last]
            correct += self._correct(self._layer(self.trial.layers, h, ids), ids)
        return correct

    def _layer(self, layer: int, h: Tensor, nodes: np.ndarray) -> Tensor:
        """The layer's output for some nodes, from every neighbor. h: [N, channels]."""
        starts, ends = self.store.colptr[nodes], self.store.colptr[nodes + 1]
        rowptr = np.concatenate([[0], np.cumsum(ends - starts)])
        if len(nodes) and nodes[-1] - nodes[0] == len(nodes) - 1:  # a slice of the graph
            edges = self.store.row[starts[0] : ends[-1]]
        else:
            edges = self.store.row[
                np.repeat(starts - rowptr[:-1], ends - starts) + np.arange(rowptr[-1])
            ]
        aggregated = segment_aggregate(
            h,
            torch.from_numpy(rowptr).to(h.device),
            torch_view(edges).to(h.device),
            self.trial.aggregator,
        )
        root = h[torch.from_numpy(nodes).to(h.device)]
        return self.model.convs[layer - 1](aggregated.to(self.device), root.to(self.device))

    def _correct(self, logits: Tensor, nodes: np.ndarray) -> int:
        labels = self.labels[torch.from_numpy(nodes).to(self.device)]
        return int((logits.argmax(1) == labels).sum())

    def _slices(self, count: int) -> list[tuple[int, int]]:
        """range(count) cut into one piece a rank."""
        ends = np.linspace(0, count, self.communicator.world_size + 1).astype(int).tolist()
        return list(pairwise(ends))

    def _chunks(self, first: int, last: int) -> list[tuple[int, int]]:
        return [
            (start, min(start + ROWS_PER_CHUNK, last))
            for start in range(first, last, ROWS_PER_CHUNK)
        ]
