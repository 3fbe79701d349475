"""Build a graph store from a data set's spec, and describe it: size, degrees, homophily."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
from sagebench import registry
from sagebench.errors import UserError, run_script, script_parser
from sagebench.graph.store import GraphStore, write_store
from sagebench.grid.configuration import checked_dataset

CHUNK_NODES = 1 << 16


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument(
        "--spec",
        help="the data set's spec: JSON, or the path of a JSON file, "
        'for example {"name": "pubmed", "source": "pubmed", "split": "large"}; without one the '
        "store that is there is described, and its checksums are compared",
    )
    parser.add_argument("--out", required=True, type=Path, help="folder of the store")
    arguments = parser.parse_args()
    # A batch system ends a job with SIGTERM: as an exception it takes the half-written store along.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if arguments.spec is None:
        store = GraphStore.open(arguments.out, verify=True)
    else:  # archives stay beside the store, for the next build
        store = build(read_spec(arguments.spec), arguments.out, arguments.out.parent / ".downloads")
    for name, value in describe(store).items():
        print(f"{name:28} {value}")


def build(spec: dict[str, Any], out: Path, downloads: Path) -> GraphStore:
    try:
        checked = checked_dataset(spec)
        source = registry.load("source", checked["source"])
        return write_store(out, source=spec, **source.load(checked, downloads))
    except UserError as error:
        raise UserError(f"data set {spec.get('name', spec.get('source'))}: {error}") from None


def read_spec(text: str) -> dict[str, Any]:
    try:
        spec = json.loads(text if text.lstrip().startswith("{") else Path(text).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"--spec is neither JSON nor a readable JSON file ({error})") from None
    if not isinstance(spec, dict):
        raise UserError('--spec is no JSON object; write {"name": ..., "source": ...}')
    return spec


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
