"""What the predictions know of a graph and of what is sampled from it. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any


@dataclass(frozen=True, slots=True)
class GraphFacts:
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

    def to_json(self) -> dict[str, int]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, int]) -> GraphFacts:
        return cls(**values)

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


@dataclass(frozen=True, slots=True)
class Spread:
    """A count over micro-batches.

    mean: over the micro-batches of an epoch, as outcomes record it; the last one, which may have
    fewer seeds, is in it. full_mean, std: over those with all of their seeds; std from one
    micro-batch to the next. (Where the training nodes do not fill one, of the only one there is.)
    """

    mean: float
    full_mean: float
    std: float


@dataclass(frozen=True, slots=True)
class Sample:
    """What one (fanout, batch size) samples: distinct nodes and edges of a micro-batch.

    nodes_per_hop: new nodes of the hops 0 (the seeds) to L. edges_per_hop: of the hops 1 to L.
    Both as in outcomes' epochs, with one difference: the last hop's nodes are always counted,
    where the `blocks` engine does without their numbers and outcomes then say 0.
    batches: how many were sampled.
    """

    fanout: tuple[int, ...]
    batch_size: int
    batches: int
    nodes_per_hop: tuple[Spread, ...]
    edges_per_hop: tuple[Spread, ...]
    nodes: Spread
    edges: Spread

    @property
    def layers(self) -> int:
        return len(self.edges_per_hop)

    @property
    def variation(self) -> float:
        """Standard deviation over mean of a micro-batch's edges: how uneven the steps are."""
        return self.edges.std / self.edges.full_mean if self.edges.full_mean else 0.0

    def to_json(self) -> dict[str, Any]:
        """As in a probe's record; key: `sample_name`."""
        return {
            "batches": self.batches,
            "nodes_per_hop": _columns(self.nodes_per_hop),
            "edges_per_hop": _columns(self.edges_per_hop),
            "nodes": asdict(self.nodes),
            "edges": asdict(self.edges),
        }

    @classmethod
    def from_json(cls, name: str, values: Mapping[str, Any]) -> Sample:
        fanout, batch_size = parse_sample_name(name)
        return cls(
            fanout=fanout,
            batch_size=batch_size,
            batches=values["batches"],
            nodes_per_hop=_spreads(values["nodes_per_hop"]),
            edges_per_hop=_spreads(values["edges_per_hop"]),
            nodes=_spread(values["nodes"]),
            edges=_spread(values["edges"]),
        )


def sample_name(fanout: tuple[int, ...], batch_size: int) -> str:
    """ "15,10,10/128": how a probe's record calls a sample."""
    return f"{','.join(map(str, fanout))}/{batch_size}"


def parse_sample_name(name: str) -> tuple[tuple[int, ...], int]:
    fanout, batch_size = name.split("/")
    return tuple(int(hop) for hop in fanout.split(",")), int(batch_size)


def _columns(spreads: tuple[Spread, ...]) -> dict[str, list[float]]:
    return {name: [getattr(s, name) for s in spreads] for name in Spread.__slots__}


def _spread(values: Mapping[str, float]) -> Spread:
    """Records written before this version hold a `max` as well."""
    return Spread(*(values[name] for name in Spread.__slots__))


def _spreads(columns: Mapping[str, list[float]]) -> tuple[Spread, ...]:
    return tuple(
        Spread(*values) for values in zip(*(columns[n] for n in Spread.__slots__), strict=True)
    )
