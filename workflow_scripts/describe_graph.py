"""Describe a graph store: size, degrees, homophily."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from sagebench.errors import run_script, script_parser
from sagebench.files import write_json
from sagebench.graph.store import GraphStore

CHUNK_NODES = 1 << 16


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--store", required=True, type=Path, help="folder of the store")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    parser.add_argument("--verify", action="store_true", help="compare all checksums, too")
    arguments = parser.parse_args()
    figures = describe(GraphStore.open(arguments.store, verify=arguments.verify))
    for name, value in figures.items():
        print(f"{name:28} {value}")
    if arguments.json:
        write_json(arguments.json, figures)


def describe(store: GraphStore) -> dict[str, Any]:
    """The store's figures. Degrees are in-degrees: the neighbors that a node aggregates."""
    degrees = np.diff(store.colptr)
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
    }


def _homophily(store: GraphStore) -> float:
    """Share of the edges whose two nodes have the same label."""
    same = 0
    degrees = np.diff(store.colptr)
    for first in range(0, store.num_nodes, CHUNK_NODES):
        chunk = slice(first, first + CHUNK_NODES)
        target = np.repeat(store.labels[chunk], degrees[chunk])
        begin = store.colptr[first]
        source = store.labels[store.row[begin : begin + len(target)]]
        same += int((source == target).sum())
    return same / max(store.num_edges, 1)


if __name__ == "__main__":
    run_script(main)
