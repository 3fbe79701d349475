"""Validation and test, the same for all engines, distributed over the ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from sagebench.engines.base import network_arguments
from sagebench.engines.loaders import Inputs, Loader, SideStream, available_bytes
from sagebench.engines.precision import true_float32
from sagebench.graph.store import GraphStore
from sagebench.grid.trial import Trial
from sagebench.models.base import Edges, Layer, Network
from sagebench.sampling.blocks import edges_of_rows, torch_view
from sagebench.sampling.random import fold, hash_ids
from sagebench.training.distributed import Communicator, Progress

ROWS_PER_CHUNK = 1 << 15
SAMPLED_BATCH_SIZE = 1024
WORKERS_AHEAD = 2
EVALUATION_STREAM = 3
TESTED_NODES_STREAM = 4
FLOAT_BYTES = 4


@dataclass(eq=False)
class Evaluator:
    """Accuracy of weights on given nodes, `full` or `sampled`, in float32 whatever the trial's
    precision, of the features that training reads.

    `full` holds two or three matrices of [N, hidden_channels], and reads graph and features where
    `loader` keeps them; the rest is bounded by a chunk. Where the matrices do not fit on the device
    they lie on the host, and what is aggregated comes to the device some columns at a time.
    `sampled` samples ahead of the model, as training does, by up to two workers.
    """

    trial: Trial
    store: GraphStore
    communicator: Communicator
    loader: Loader
    progress: Progress

    def __post_init__(self) -> None:
        self.device = self.communicator.device
        self.labels = torch_view(self.store.labels).to(self.device)
        arguments = network_arguments(self.trial, self.store)
        self.model = Network(**arguments).to(self.device).eval()
        self._side = SideStream(self.device)

    def accuracy(self, weights: dict[str, Tensor], nodes: np.ndarray, method: str) -> float:
        """Share of `nodes` whose class is predicted; arguments as of `hits`."""
        return self.hits(weights, nodes, method).sum().item() / len(nodes)

    def hits(self, weights: dict[str, Tensor], nodes: np.ndarray, method: str) -> Tensor:
        """Which of `nodes` (int64 ids) are predicted right, bool on the CPU, alike on every rank.

        method: `full` computes layer by layer over the whole graph, every neighbor taken;
        `sampled` samples the trial's own fanout with a fixed seed.
        """
        self.model.load_state_dict(weights)
        found = torch.zeros(len(nodes), dtype=torch.int32, device=self.device)
        with torch.no_grad(), true_float32():
            outputs = self._full if method == "full" else self._sampled
            for places, ids, logits in outputs(nodes):
                found[places] = self._correct(logits, ids).int()
        return self.communicator.sum(found).bool().cpu()

    def outputs(self, weights: dict[str, Tensor], nodes: np.ndarray) -> Tensor:
        """Logits of `nodes` over the whole graph, float32 [n, classes] on the device, alike on
        every rank; arguments as of `hits`."""
        self.model.load_state_dict(weights)
        found = torch.zeros(len(nodes), self.store.num_classes, device=self.device)
        with torch.no_grad(), true_float32():
            for places, _, logits in self._full(nodes):
                found[places] = logits
        return self.communicator.sum(found)

    def _sampled(self, nodes: np.ndarray) -> Iterator[tuple[slice, Tensor, Tensor]]:
        def batch(index: int) -> Inputs:
            first = index * SAMPLED_BATCH_SIZE
            seeds = nodes[first : first + SAMPLED_BATCH_SIZE]
            return self.loader.load(self.loader.sample(seeds, fold(EVALUATION_STREAM, index)))

        batches = -(-len(nodes) // SAMPLED_BATCH_SIZE)
        mine = range(self.communicator.rank, batches, self.communicator.world_size)
        # Each holds a batch much larger than training's.
        workers = min(WORKERS_AHEAD, self.trial.sampling_workers)
        stream = self._side.ahead(batch, mine, workers, results_ahead=1)
        inputs_of = self.progress.over(stream, len(mine), "sampled evaluation")
        for index, inputs in zip(mine, inputs_of, strict=True):
            ids = inputs[1].node_ids[: inputs[1].num_seeds]
            first = index * SAMPLED_BATCH_SIZE
            yield slice(first, first + len(ids)), ids, self.model(*inputs)

    def _full(self, nodes: np.ndarray) -> Iterator[tuple[slice, Tensor, Tensor]]:
        h, home = self.loader.features, self._home()
        for layer in range(1, self.trial.layers):
            h = self._hidden(layer, h, home)
        start, stop = self._slices(len(nodes))[self.communicator.rank]
        mine = torch_view(nodes[start:stop])
        logits = self._layer(self.trial.layers, h, home, mine)
        for first, end in self._chunks(0, len(mine)):
            ids = mine[first:end].to(self.device)
            yield slice(start + first, start + end), ids, logits(first, end)

    def _hidden(self, layer: int, h: Tensor, home: torch.device) -> Tensor:
        """The output of a layer for every node, [N, hidden_channels]; h: of the layer before."""
        start, stop = self._slices(len(h))[self.communicator.rank]
        output = self._layer(layer, h, home, torch.arange(start, stop))

        def rows(first: int, end: int) -> Tensor:
            return self.model.activate(layer, output(first - start, end - start))

        return self._fill(len(h), self.trial.hidden_channels, home, rows)

    def _layer(
        self, layer: int, h: Tensor, home: torch.device, nodes: Tensor
    ) -> Callable[[int, int], Tensor]:
        """The layer's output as a function of `first` and `end`, for the nodes in between (of
        int64 ids on the CPU), from every neighbor; h: of the layer before, for every node."""
        conv, degrees = self.model.convs[layer - 1], self.loader.degrees
        assert isinstance(conv, Layer)
        if layer == 1 and self.loader.table is not None:
            table = self.loader.table
            return lambda first, end: conv.update(
                *(self._rows(of, nodes[first:end]) for of in (table, h))
            )
        z = h
        if conv.projects:  # what destinations read of every node is not h itself

            def project(first: int, end: int) -> Tensor:
                of_rows = None if degrees is None else degrees[first:end].to(self.device)
                return conv.project(h[first:end].to(self.device, torch.float32), of_rows)

            z = self._fill(len(h), project(0, 1).shape[1], home, project)
        if conv.aggregator is None:

            def weighed(first: int, end: int) -> Tensor:
                ids = nodes[first:end]
                reduced = conv.reduce(z, self._edges(ids, z.device), z[ids.to(z.device)])
                return conv.update(reduced.to(self.device), None, projected=True)

            return weighed

        aggregated = self._aggregated(conv, z, nodes)
        return lambda first, end: conv.update(
            aggregated(first, end), self._rows(h, nodes[first:end]), projected=conv.projects
        )

    def _aggregated(self, conv: Layer, h: Tensor, nodes: Tensor) -> Callable[[int, int], Tensor]:
        """What some of the nodes aggregate of h, on the device: at once where h fits there beside
        what else it takes, otherwise all of them beforehand, some columns at a time."""
        width = self._columns_that_fit(h)
        if width == h.shape[1]:
            whole = h.to(self.device, torch.float32)
            return lambda first, end: conv.reduce(whole, self._edges(nodes[first:end], self.device))
        out = torch.empty(len(nodes), h.shape[1])
        for left in range(0, h.shape[1], width):
            columns = slice(left, left + width)
            some = h[:, columns].contiguous().to(self.device, torch.float32)
            for first, end in self._chunks(0, len(nodes)):
                edges = self._edges(nodes[first:end], self.device)
                out[first:end, columns] = conv.reduce(some, edges)
        return lambda first, end: out[first:end].to(self.device)

    def _rows(self, matrix: Tensor, ids: Tensor) -> Tensor:
        """Some rows, float32 on the device. ids: int64 on the CPU."""
        return matrix[ids.to(matrix.device)].to(self.device, torch.float32)

    def _edges(self, ids: Tensor, device: torch.device) -> Edges:
        """Every edge into some nodes (int64 ids on the CPU), on `device`."""
        colptr, row, degrees = self.loader.colptr, self.loader.row, self.loader.degrees
        if degrees is not None:
            degrees = degrees[ids.to(degrees.device)].to(device)
        if len(ids) and ids[-1] - ids[0] == len(ids) - 1:  # a slice of the graph, taken as it is
            ends = colptr[int(ids[0]) : int(ids[-1]) + 2]
            rowptr, sources = ends - ends[0], row[int(ends[0]) : int(ends[-1])]
        else:
            rowptr, sources = edges_of_rows(colptr, row, ids.to(colptr.device))
        return Edges(rowptr.to(device), sources.to(device), row_degrees=degrees)

    def _fill(
        self, count: int, width: int, home: torch.device, rows: Callable[[int, int], Tensor]
    ) -> Tensor:
        """[count, width] on `home`: every rank computes `rows(first, end)` of its slice, and has
        the others'."""
        out = torch.empty(count, width, device=home)
        slices = self._slices(len(out))
        for first, end in self._chunks(*slices[self.communicator.rank]):
            out[first:end] = rows(first, end)
        if self.communicator.world_size > 1:
            for rank, slice_ in enumerate(slices):
                for first, end in self._chunks(*slice_):
                    piece = out[first:end].to(self.device)
                    self.communicator.broadcast(piece, rank)
                    out[first:end] = piece
        return out

    def _home(self) -> torch.device:
        """Device of the hidden layers' matrices."""
        free = available_bytes(self.device, self.trial.memory_limit_gib)
        # Of a layer its input and output, and what it made of its input, if it did.
        matrices = 2 + any(conv.aggregator is None for conv in self.model.convs)
        wanted = matrices * self.store.num_nodes * self.trial.hidden_channels * FLOAT_BYTES
        chunk = 4 * ROWS_PER_CHUNK * self.trial.hidden_channels * FLOAT_BYTES
        fits = free is None or wanted + chunk <= free
        return self.device if fits else torch.device("cpu")

    def _columns_that_fit(self, h: Tensor) -> int:
        """Columns of h, float32, that half of the device's free memory holds; the other half is for
        what is made of them."""
        free = available_bytes(self.device, self.trial.memory_limit_gib)
        if free is None or (h.device == self.device and h.dtype == torch.float32):
            return h.shape[1]
        return max(1, min(h.shape[1], free // 2 // (len(h) * FLOAT_BYTES)))

    def _correct(self, logits: Tensor, nodes: Tensor) -> Tensor:
        """Which of `nodes` (ids on the device) are predicted right, bool there: nothing waits."""
        return logits.argmax(1) == self.labels[nodes]

    def _slices(self, count: int) -> list[tuple[int, int]]:
        """range(count) cut into one piece a rank."""
        ends = np.linspace(0, count, self.communicator.world_size + 1).astype(int).tolist()
        return list(pairwise(ends))

    def _chunks(self, first: int, last: int) -> list[tuple[int, int]]:
        return [
            (start, min(start + ROWS_PER_CHUNK, last))
            for start in range(first, last, ROWS_PER_CHUNK)
        ]


def sampled_test_nodes(nodes: np.ndarray, count: int | None) -> np.ndarray:
    """The test nodes whose neighborhoods are sampled: `count` of `nodes` (int64 ids), in their
    order; all of them where `count` is None or as many.

    A function of the ids alone, so that every trial on a graph is tested on the same ones.
    """
    if count is None or count >= len(nodes):
        return nodes
    keys = hash_ids(fold(TESTED_NODES_STREAM), nodes)
    return nodes[np.sort(np.argsort(keys, kind="stable")[:count])]


def share_of(hits: Tensor, nodes: np.ndarray, among: np.ndarray | None) -> float | None:
    """Share of the hits among some of the nodes that they are of; None where there are none.

    hits: bool [n]. nodes, among: int64 ids [n], and some of these.
    """
    if among is None:
        return None
    return hits[torch.from_numpy(np.isin(nodes, among))].sum().item() / len(among)


def standard_error(accuracy: float, count: int, population: int) -> float | None:
    """Standard error of an accuracy on `count` nodes drawn without replacement from `population`,
    as an estimate of the accuracy on all of them (Cochran 1977, "Sampling techniques", section
    3.2); None of a single node."""
    if count < 2:
        return None
    return math.sqrt(accuracy * (1 - accuracy) / (count - 1) * (1 - count / population))
