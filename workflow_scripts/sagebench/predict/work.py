"""What a micro-batch computes and moves, counted: bytes, FLOPs and operations by kind of kernel.

Counted from what the engines call, operation by operation; tests hold the counts to torch's own
(tests/test_predict_time.py). How fast a device does it is `rates.py`'s business.

kind                                     amount
stream                                   bytes read and written in order: element-wise operations
norm                                     bytes of a layer norm
gather                                   bytes of rows read from anywhere, and written in order
scatter                                  bytes of rows read and added to rows in their order: those
                                         are read and written once
spread                                   bytes of rows repeated in their order: read once
scatter_random                           bytes of rows added to rows anywhere: read and written each
                                         time
segment                                  bytes of rows read from anywhere and summed on the way
regroup                                  edges grouped by source
products_fp32, _tf32, _bf16              FLOPs of torch's matrix products
layer_products_fp32                      FLOPs of our own, on a CPU (sagebench.model.linear)
activation, activation_backward          values through our fused LayerNorm, ReLU, dropout on a CPU
dropout                                  values that torch draws and masks on a CPU
sampled_edges, relabelled_edges          edges of the CPU sampler
scanned_nodes                            nodes of the graph that it looks at to number the new ones
pyg_lib_edges                            edges of pyg-lib's sampler
copy                                     bytes from host to device
operations_blocks, _pyg, _optimizer      calls, each of which takes the host a moment
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from sagebench.grid.trial import Trial
from sagebench.predict.samples import GraphFacts

FLOAT, INDEX = 4, 8

# Operations of a step, forward and backward: a layer's, and those of the whole that remain.
# What autograd calls, with the loss; the aggregators differ by a few, max by more.
OPERATIONS = {
    "fused": ((5, 5), (15, -9)),
    "plain": ((44, -34), (23, -17)),
    "compiled": ((9, 5), (19, -9)),
    "reference": ((17, -1), (13, -6)),
    "trimmed": ((17, -1), (14, -7)),
}


class Use(NamedTuple):
    """touched: bytes of memory that it goes through; decides whether a cache holds them. Of
    products: all of their matrices, the other side of the roofline."""

    kind: str
    amount: float
    touched: float = 0.0


@dataclass
class MicroStep:
    """The work of one micro-batch of one rank, by phase; `optimizer` of an optimizer step.

    gather and copy are the phase `data` of outcomes: features gathered on the host (by whoever
    samples), and what is copied to the device.
    """

    sampling: list[Use] = field(default_factory=list)
    gather: list[Use] = field(default_factory=list)
    copy: list[Use] = field(default_factory=list)
    forward: list[Use] = field(default_factory=list)
    backward: list[Use] = field(default_factory=list)
    optimizer: list[Use] = field(default_factory=list)


class Counts(NamedTuple):
    """nodes: new ones of the hops 0 to L. edges: of the hops 1 to L. Of one micro-batch."""

    nodes: Sequence[float]
    edges: Sequence[float]

    def rows(self, layer: int) -> float:
        """Destinations of layer `layer` (1 is the first); of layer 0: its sources, all nodes."""
        return sum(self.nodes[: len(self.nodes) - layer])

    def destinations(self, hops: int) -> float:
        """Nodes that have sampled edges of the first hops: those that were expanded in them."""
        expanded = zip(self.nodes[:hops], self.edges, strict=False)
        return sum(nodes for nodes, edges in expanded if edges)

    def edges_of(self, layer: int) -> float:
        return sum(self.edges[: len(self.edges) - layer + 1])


def widths(trial: Trial, graph: GraphFacts) -> list[int]:
    return [graph.num_features, *[trial.hidden_channels] * (trial.layers - 1), graph.num_classes]


def parameters(trial: Trial, graph: GraphFacts) -> int:
    sizes = widths(trial, graph)
    layers = sum(2 * a * b + b for a, b in pairwise(sizes))
    return layers + 2 * trial.hidden_channels * (trial.layers - 1)


def path_of(trial: Trial) -> str:
    """Which code of OPERATIONS computes."""
    if trial.engine != "blocks":
        return trial.engine
    if trial.compile:
        return "compiled"
    return "fused" if trial.device == "cpu" and trial.precision == "fp32" else "plain"


def product(kind: str, m: float, k: float, n: float, size: int) -> Use:
    """[m, k] times [k, n]"""
    return Use(kind, 2 * m * k * n, size * (m * k + k * n + m * n))


def stream(amount: float) -> Use:
    return Use("stream", amount, amount)


def count_operations(trial: Trial, step: MicroStep) -> None:
    forward, backward = OPERATIONS[path_of(trial)]
    kind = "operations_blocks" if trial.engine == "blocks" else "operations_pyg"
    step.forward.append(Use(kind, forward[0] * trial.layers + forward[1]))
    step.backward.append(Use(kind, backward[0] * trial.layers + backward[1]))


def count_cpu_sampler(
    graph: GraphFacts, edges: float, relabelled: float, numbered_hops: int, step: MicroStep
) -> None:
    step.sampling += [
        Use("sampled_edges", edges, graph.index_bytes),
        Use("relabelled_edges", relabelled, graph.index_bytes),
        Use("scanned_nodes", graph.num_nodes * (1 + 2 * numbered_hops), graph.num_nodes),
    ]
