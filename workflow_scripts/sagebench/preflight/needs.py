"""What a study's trials want of a node besides GPUs: a compiler, and room in /dev/shm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sagebench.files import read_object
from sagebench.grid.expansion import Study
from sagebench.grid.freeze import manifest_path
from sagebench.grid.resources import geometry
from sagebench.grid.together import samples_where_placed
from sagebench.grid.trial import Trial

BATCHES_AHEAD = 2
"""that torch's DataLoader has each of its processes make"""


def needs(study: Study) -> dict[str, Any]:
    """{"compiles": whether a trial has compile: true, "shared_memory_bytes": that the loader
    processes of a trial may fill on a node, of the trials whose graph store is built}"""
    sizes = {name: read_object(Path(manifest_path(study.results, name))) for name in study.stores}
    trials = [(request.trial, sizes[request.store]) for request in study.requests.values()]
    filled = (
        geometry(trial.ranks, study.site).ranks_per_node * shared_memory_bytes(trial, graph)
        for trial, graph in trials
        if graph and trial.in_minibatches
    )
    return {
        "compiles": any(trial.compile for trial, _ in trials),
        "shared_memory_bytes": max(filled, default=0),
    }


def shared_memory_bytes(trial: Trial, graph: Mapping[str, int]) -> int:
    """At most, of one rank. PyG's loader processes hand their batches over in /dev/shm, features
    and all; a batch lies there from when it is made until it is used."""
    if samples_where_placed(trial) or not trial.sampling_workers:
        return 0
    return (BATCHES_AHEAD * trial.sampling_workers + 1) * batch_bytes(trial, graph)


def batch_bytes(trial: Trial, graph: Mapping[str, int]) -> int:
    """At most, of one micro-batch: as if no two edges led to the same node, as far as the graph
    goes. graph: "num_nodes", "num_edges" and "num_features" of its store."""
    nodes = new = min(trial.batch_size, graph["num_nodes"])
    edges = 0
    for fanout in trial.fanout:
        drawn = graph["num_edges"] if fanout == -1 else new * fanout
        edges = min(edges + drawn, graph["num_edges"])
        new = min(drawn, graph["num_nodes"] - nodes)
        nodes += new
    features, id_and_label, source_and_target = 4 * graph["num_features"], 2 * 8, 2 * 8
    return nodes * (features + id_and_label) + edges * source_and_target
