"""Sizes of a micro-batch that is larger or smaller than the mean."""

from __future__ import annotations

from collections.abc import Sequence

from sagebench.estimate.samples import GraphFacts, Sample, Spread

Sizes = tuple[list[int], list[int]]
"""nodes of the hops 0 (the seed nodes) to L; edges of the hops 1 to L"""


def sizes_at(sample: Sample, graph: GraphFacts, z: float) -> Sizes:
    """Of a micro-batch that lies `z` standard deviations above the mean in all hops at once, as far
    as their sums spread; never more nodes than the graph has."""
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
