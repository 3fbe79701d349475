"""What the predictions know of a graph and of what is sampled from it. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from sagebench.records import FromJson


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


def sample_name(fanout: Sequence[int], batch_size: int) -> str:
    """ "15,10,10/128": how a probe's record calls a sample."""
    return f"{','.join(map(str, fanout))}/{batch_size}"
