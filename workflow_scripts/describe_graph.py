"""Describe a graph store: size, degrees, homophily, and how many nodes a sampled batch reads."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sagebench.errors import run_script
from sagebench.files import write_json
from sagebench.graph.store import GraphStore

CHUNK_EDGES = 1 << 22


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", required=True, type=Path, help="folder of the store")
    parser.add_argument(
        "--fanout", type=int, nargs="+", default=[10, 10, 10], help="neighbors a hop (10 10 10)"
    )
    parser.add_argument("--batch-size", type=int, default=1024, help="seeds a batch (1024)")
    parser.add_argument("--batches", type=int, default=5, help="batches to average (5)")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    parser.add_argument("--verify", action="store_true", help="compare all checksums, too")
    arguments = parser.parse_args()
    store = GraphStore.open(arguments.store, verify=arguments.verify)
    figures = describe(store, arguments.fanout, arguments.batch_size, arguments.batches)
    for name, value in figures.items():
        print(f"{name:28} {value}")
    if arguments.json:
        write_json(arguments.json, figures)


def describe(
    store: GraphStore, fanout: list[int], batch_size: int, batches: int, seed: int = 0
) -> dict[str, Any]:
    """The store's figures. Degrees are in-degrees: the neighbors that a node aggregates.

    distinct_input_nodes (seeds included), sampled_edges: means over batches; nodes new in one hop
    are expanded in the next, each once (PyG's way).
    """
    degrees = np.diff(store.colptr)
    train = np.random.default_rng(seed).permutation(store.train)
    counts = [
        _sampled(store, train[at : at + batch_size], fanout, seed + at)
        for at in range(0, min(batches * batch_size, len(train)), batch_size)
    ]
    return {
        "name": store.manifest["source"].get("name"),
        "checksum": store.checksum,
        "nodes": store.num_nodes,
        "directed_edges": store.num_edges,
        "features": store.num_features,
        "classes": store.num_classes,
        "train_nodes": len(store.train),
        "valid_nodes": len(store.valid),
        "test_nodes": len(store.test),
        "degree_mean": round(float(degrees.mean()), 3),
        "degree_median": float(np.median(degrees)),
        "degree_99_percent": float(np.percentile(degrees, 99)),
        "degree_maximum": int(degrees.max()),
        "isolated_nodes": int((degrees == 0).sum()),
        "homophily": round(_homophily(store), 4),
        "largest_class_share": round(float(np.bincount(store.labels + 1).max()) / len(degrees), 4),
        "fanout": fanout,
        "batch_size": batch_size,
        "distinct_input_nodes": round(float(np.mean([nodes for nodes, _ in counts]))),
        "sampled_edges": round(float(np.mean([edges for _, edges in counts]))),
    }


def _homophily(store: GraphStore) -> float:
    """Share of the edges whose two nodes have the same label."""
    same = 0
    degrees = np.diff(store.colptr)
    first = 0
    while first < store.num_nodes:
        last = int(np.searchsorted(store.colptr, store.colptr[first] + CHUNK_EDGES))
        last = min(max(last, first + 1), store.num_nodes)
        source = store.labels[store.row[store.colptr[first] : store.colptr[last]]]
        target = np.repeat(store.labels[first:last], degrees[first:last])
        same += int((source == target).sum())
        first = last
    return same / max(store.num_edges, 1)


def _sampled(store: GraphStore, seeds: NDArray, fanout: list[int], seed: int) -> tuple[int, int]:
    """Distinct nodes and edges of one sample."""
    random = np.random.default_rng(seed)
    seen = np.zeros(store.num_nodes, bool)
    seen[seeds] = True
    frontier, edges = seeds, 0
    for k in fanout:
        sampled = _sample(store, frontier, k, random)
        edges += len(sampled)
        frontier = np.unique(sampled[~seen[sampled]])
        seen[frontier] = True
    return int(seen.sum()), edges


def _sample(store: GraphStore, nodes: NDArray, k: int, random: np.random.Generator) -> NDArray:
    """Up to k neighbors of each node, uniform without replacement (Floyd); -1: every one."""
    start = store.colptr[nodes]
    degree = store.colptr[nodes + 1] - start
    few = degree <= k if k >= 0 else np.ones(len(nodes), bool)
    rows = np.repeat(start[few] - np.cumsum(degree[few]) + degree[few], degree[few])
    every = store.row[rows + np.arange(len(rows))]
    start, degree = start[~few], degree[~few]
    chosen = np.full((max(k, 0), len(start)), -1)
    for turn in range(len(chosen)):
        last = degree - k + turn
        drawn = random.integers(last + 1)
        chosen[turn] = np.where((chosen[:turn] == drawn).any(axis=0), last, drawn)
    return np.concatenate([every, store.row[(start + chosen).ravel()]])


if __name__ == "__main__":
    run_script(main)
