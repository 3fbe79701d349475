"""Propagation of values along the edges, and what is made of it: Correct and Smooth."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from sagebench.graph.store import GraphStore
from sagebench.kernels.segment import segment_aggregate
from sagebench.sampling.blocks import edges_of_rows, torch_view

ROUNDS = 50
ALPHA_CORRECT, ALPHA_SMOOTH = 0.8, 0.8
"""of Correct and Smooth; the paper tunes them for each data set"""


class Graph:
    """The normalised adjacency S = D^-1/2 A D^-1/2 of a store's graph, kept on a device.

    nodes: int64 ids of the rows that move; None: every one.
    """

    def __init__(
        self, store: GraphStore, device: torch.device, nodes: Tensor | None = None
    ) -> None:
        colptr, row = (torch_view(array).to(device) for array in (store.colptr, store.row))
        degrees = colptr.diff().float()
        self.scale = torch.where(degrees > 0, degrees.rsqrt(), 0)[:, None]
        self.nodes = nodes
        if nodes is not None:
            colptr, row = edges_of_rows(colptr, row, nodes)
        self.colptr, self.row = colptr, row

    def step(self, values: Tensor, start: Tensor, alpha: float) -> Tensor:
        """alpha . S . values + (1 - alpha) . start, float32 [N, C]; rows that do not move stay."""
        sums = segment_aggregate(values * self.scale, self.colptr, self.row, "sum")
        if self.nodes is None:
            return alpha * sums * self.scale + (1 - alpha) * start
        moved = alpha * sums * self.scale[self.nodes] + (1 - alpha) * start[self.nodes]
        return values.index_copy(0, self.nodes, moved)


def propagate(
    graph: Graph,
    start: Tensor,
    alpha: float,
    after: Callable[[Tensor], Tensor] = lambda values: values,
    values: Tensor | None = None,
) -> Tensor:
    """`ROUNDS` steps from `start`, or on from `values`, float32 [N, C] (Zhou et al. 2004, "Learning
    with local and global consistency"). after: applied to the values after each step."""
    values = start if values is None else values
    for _ in range(ROUNDS):
        values = after(graph.step(values, start, alpha))
    return values


def one_hot_labels(store: GraphStore, device: torch.device) -> Tensor:
    """The training nodes' classes, float32 [N, C]; zeros for all others."""
    train = torch_view(store.train)
    found = torch.zeros(store.num_nodes, store.num_classes)
    found[train] = one_hot(torch_view(store.labels)[train], store.num_classes).float()
    return found.to(device)


def correct_and_smooth(store: GraphStore, probabilities: Tensor) -> Tensor:
    """Probabilities, float32 [N, C], after Correct and Smooth (Huang et al. 2021, "Combining label
    propagation and simple models out-performs graph neural networks"), with its autoscale.

    The errors on the training nodes are propagated and added, scaled to their mean size; then the
    predictions are propagated, the training nodes' classes in their place. Both in the graph that
    training sees; afterwards the unseen nodes, whose rows alone move, in the whole graph.
    """
    device = probabilities.device
    labels, train = one_hot_labels(store, device), torch_view(store.train).to(device)
    errors = torch.zeros_like(probabilities)
    errors[train] = labels[train] - probabilities[train]
    size = errors[train].abs().sum(1).mean()

    def smoothed(graph: Graph, known: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        of_errors, of_values = known or (None, None)
        found = propagate(graph, errors, ALPHA_CORRECT, lambda e: e.clamp(-1, 1), of_errors)
        scale = size / found.abs().sum(1, keepdim=True)
        scale[~scale.isfinite() | (scale > 1000)] = 1.0
        corrected = probabilities + scale * found
        corrected[train] = labels[train]
        return found, propagate(graph, corrected, ALPHA_SMOOTH, lambda p: p.clamp(0, 1), of_values)

    known = smoothed(Graph(store, device), None)
    if store.unseen is None or store.whole is store:
        return known[1]
    unseen = torch_view(store.unseen).to(device)
    return smoothed(Graph(store.whole, device, unseen), known)[1]
