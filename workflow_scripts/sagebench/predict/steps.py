"""The step of a trial for a micro-batch of a size: which layers read and compute how many rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from sagebench.grid.trial import Trial
from sagebench.predict.resident import batches_ahead, sample_bytes, sampling_bytes
from sagebench.predict.samples import GraphFacts, Sample, Spread
from sagebench.predict.step_blocks import BlocksStep
from sagebench.predict.step_pyg import PygStep
from sagebench.predict.tape import Tape
from sagebench.predict.work import widths


def step_tape(
    trial: Trial, sample: Sample, graph: GraphFacts, placement: str, z: float = 0.0
) -> Tape:
    """The step of a micro-batch that lies `z` standard deviations above the mean."""
    nodes, edges = hops(sample, graph, z)
    to_hop = list(accumulate(nodes))[::-1]  # nodes of the hops 0 to L, to L - 1, ...
    to_hop_edges = list(accumulate(edges))[::-1]
    channels = widths(trial, graph)
    choices = {
        "aggregator": trial.aggregator,
        "dropout": trial.dropout > 0,
        "bf16": trial.precision == "bf16",
        "cuda": trial.device == "cuda",
    }
    if trial.engine == "blocks":
        return BlocksStep(
            to_hop[1:],
            to_hop_edges,
            channels,
            kernels=trial.device == "cpu" and trial.precision == "fp32" and not trial.compile,
            gathered=placement == "host",
            **choices,
        ).tape
    if trial.engine == "reference":
        to_hop = [to_hop[0]] * trial.layers
        to_hop_edges = [to_hop_edges[0]] * trial.layers
    return PygStep(
        to_hop[: trial.layers],
        to_hop_edges,
        channels,
        seeds=round(nodes[0]),
        batch_bytes=sample_bytes(trial, graph, placement, nodes, edges),
        **choices,
    ).tape


def samples_beside(
    trial: Trial, sample: Sample, graph: GraphFacts, placement: str, z: float
) -> dict[str, float]:
    """The micro-batches that the `blocks` engine has ready, and what its samplers work with."""
    if trial.engine != "blocks":
        return {}
    counts = hops(sample, graph, z)
    ready = 1 + batches_ahead(trial)
    return {
        "samples": ready * sample_bytes(trial, graph, placement, *counts),
        "sampling": sampling_bytes(trial, graph, placement, *counts),
    }


def hops(sample: Sample, graph: GraphFacts, z: float) -> tuple[list[float], list[float]]:
    """Nodes of the hops 0 to L and edges of the hops 1 to L in a micro-batch that lies `z` standard
    deviations above the mean in all of them at once, as far as their sums spread."""
    nodes = _shifted(sample.nodes_per_hop, sample.nodes, z)
    edges = _shifted(sample.edges_per_hop, sample.edges, z)
    room = float(graph.num_nodes)
    for k, count in enumerate(nodes):
        nodes[k] = min(count, room)
        room -= nodes[k]
    return nodes, edges


def _shifted(per_hop: Sequence[Spread], total: Spread, z: float) -> list[float]:
    together = sum(spread.std for spread in per_hop)
    share = total.std / together if together else 0.0
    return [max(0.0, spread.full_mean + z * share * spread.std) for spread in per_hop]
