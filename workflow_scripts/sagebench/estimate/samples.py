"""What the estimates know of a graph, of what is sampled from it, and of a step on a sample.

Standard library only: the plan reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from statistics import NormalDist
from typing import Any

from sagebench.records import FromJson

NORMAL = NormalDist()


@dataclass(frozen=True)
class GraphFacts(FromJson):
    """Sizes of a graph store. index_bytes: of colptr and row. feature_bytes: of the features."""

    num_nodes: int
    num_edges: int
    num_features: int
    num_classes: int
    train_nodes: int
    valid_nodes: int
    test_nodes: int
    index_bytes: int
    feature_bytes: int

    @classmethod
    def of_manifest(cls, manifest: Mapping[str, Any]) -> GraphFacts:
        """Of a graph store, from its manifest.json."""
        arrays = manifest["arrays"]

        def size_bytes(name: str) -> int:
            item_bytes = int("".join(filter(str.isdigit, arrays[name]["dtype"]))) // 8
            return prod(arrays[name]["shape"]) * item_bytes

        return cls(
            num_nodes=manifest["num_nodes"],
            num_edges=manifest["num_edges"],
            num_features=manifest["num_features"],
            num_classes=manifest["num_classes"],
            train_nodes=arrays["train"]["shape"][0],
            valid_nodes=arrays["valid"]["shape"][0],
            test_nodes=arrays["test"]["shape"][0],
            index_bytes=size_bytes("colptr") + size_bytes("row"),
            feature_bytes=size_bytes("features"),
        )

    def micro_batches(self, batch_size: int) -> int:
        """Micro-batches with seeds in an epoch, over all ranks; the last may be a smaller one."""
        return -(-self.train_nodes // batch_size)


@dataclass(frozen=True)
class Spread(FromJson):
    """A count over micro-batches.

    mean: over the micro-batches of an epoch, as outcomes record it; the last one, which may have
    fewer seeds, is in it. full_mean, std: over those with all of their seeds; std from one
    micro-batch to the next. (Where the training nodes do not fill one, of the only one there is.)
    """

    mean: float
    full_mean: float
    std: float


@dataclass(frozen=True)
class Sample(FromJson):
    """What one (fanout, batch size) samples: distinct nodes and edges of a micro-batch.

    nodes_per_hop: new nodes of the hops 0 (the seeds) to L. edges_per_hop: of the hops 1 to L.
    Both as in outcomes' epochs, with one difference: the last hop's nodes are always counted,
    where the `blocks` engine does without their numbers and outcomes then say 0.
    batches: how many were sampled.
    """

    fanout: list[int]
    batch_size: int
    batches: int
    nodes_per_hop: list[Spread]
    edges_per_hop: list[Spread]
    nodes: Spread
    edges: Spread


def sample_name(fanout: Sequence[int], batch_size: int, law: str = "uniform") -> str:
    """ "15,10,10/128": how a probe's record calls a sample. law: by which neighbors are drawn."""
    drawn = "" if law == "uniform" else f"{law}:"
    return f"{drawn}{','.join(map(str, fanout))}/{batch_size}"


def sizes_at(sample: Sample, graph: GraphFacts, z: float) -> tuple[list[int], list[int]]:
    """Nodes of the hops 0 to L and edges of the hops 1 to L of a micro-batch that lies `z` standard
    deviations above the mean in all hops at once, as far as their sums spread; never more nodes
    than the graph has."""
    nodes = _shifted(sample.nodes_per_hop, sample.nodes, z)
    edges = _shifted(sample.edges_per_hop, sample.edges, z)
    room = graph.num_nodes
    for k, count in enumerate(nodes):
        nodes[k] = min(count, room)
        room -= nodes[k]
    return nodes, edges


def _shifted(per_hop: Sequence[Spread], total: Spread, z: float) -> list[int]:
    together = sum(spread.std for spread in per_hop)
    share = total.std / together if together else 0.0
    return [max(0, round(spread.full_mean + z * share * spread.std)) for spread in per_hop]


@dataclass(frozen=True)
class StepCost(FromJson):
    """A micro-step of one configuration on one graph, recorded on no device (estimate/step.py).

    values, placement: what decides it. parameters: of the model. flops, bytes_moved, operations
    (about the launches), batch_bytes and trace (as AllocationTrace.events has it): of a
    micro-batch of the mean size; typical_live_bytes: what it has in use at its peak.
    largest_z: standard deviations from the mean to the largest micro-batch that was replayed;
    live_bytes, held_bytes, held_std_bytes, needed_bytes, beside_bytes: of it: in use,
    held by the allocator, and how that differs with the order of the steps, what it cannot do
    without, and its batch where that lies beside the step; typical_beside_bytes: of the mean.
    """

    values: dict[str, Any]
    placement: str
    parameters: int
    flops: int
    bytes_moved: int
    operations: int
    batch_bytes: list[int]
    trace: list[int]
    largest_z: float
    typical_live_bytes: int
    live_bytes: int
    held_bytes: int
    held_std_bytes: int
    needed_bytes: int
    beside_bytes: int
    typical_beside_bytes: int


# How far above the mean the largest of n micro-batches lies. A sample's size is a sum over its seed
# nodes, and so about normal.


def expected_maximum(n: int) -> float:
    """Standard deviations from the mean to the expected largest of n normal values (Blom 1958)."""
    return NORMAL.inv_cdf((n - 0.375) / (n + 0.25))


def maximum_quantile(n: int, p: float) -> float:
    """Standard deviations from the mean to what the largest of n stays below with probability p."""
    return NORMAL.inv_cdf(p ** (1 / n))


def chance_above(n: int, z: float) -> float:
    """That the largest of n normal values lies more than z standard deviations above the mean."""
    return 1 - NORMAL.cdf(z) ** n
