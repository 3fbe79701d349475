"""Table of aggregated features: what the first layer's aggregation gives over every neighbor.

Raw features need no gradient, so their aggregation over all neighbors of a node is the same in
every step. Where a fanout ends in -1, the nodes whose neighbors the last hop would bring read
their row of this table instead (see `sampling.blocks.Blocks`). In `STORE.extra/`, beside the store,
which stays as it is:

    mean.npy     float32 [N, F], a row a node; sum.npy and max.npy likewise
    mean.json    the checksum of the store that it was made of, and its shape
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from sagebench.errors import UserError
from sagebench.files import hold, read_object, write_json
from sagebench.graph.store import GraphStore
from sagebench.grid.last_hop import table_manifest
from sagebench.kernels.segment import segment_aggregate
from sagebench.sampling.blocks import torch_view

EDGES_AT_A_TIME = 1 << 22
"""so that a piece takes some 17 MB of edges, and 1.7 GB of features where no neighbor repeats"""


def build_table(store: GraphStore, aggregator: str) -> Iterator[float]:
    """Make the table of a store and an aggregator (mean, sum or max); yields the share of the edges
    that is done.

    Bounded memory beside the mapped store: a piece of the rows. Written under a temporary name and
    renamed; the manifest comes last.
    """
    manifest = Path(table_manifest(str(store.path), aggregator))
    manifest.parent.mkdir(parents=True, exist_ok=True)
    with hold(manifest.with_suffix(".lock"), f"waiting for another process that makes {manifest}"):
        path = manifest.with_suffix(".npy")
        building = path.with_name(f".{path.name}")
        shape = store.num_nodes, store.num_features
        out = open_memmap(building, mode="w+", dtype=np.float32, shape=shape)
        features = torch_view(store.features)
        for first, last in pieces_of(store.colptr, EDGES_AT_A_TIME):
            ends = store.colptr[first : last + 1]
            rowptr = torch_view(ends - ends[0])
            col = torch_view(store.row[ends[0] : ends[-1]])
            out[first:last] = segment_aggregate(features, rowptr, col, aggregator).numpy()
            yield int(ends[-1]) / max(store.num_edges, 1)
        out.flush()
        del out
        building.replace(path)
        write_json(manifest, {"store": store.checksum, "shape": list(shape)})


def open_table(store: GraphStore, aggregator: str) -> NDArray[np.float32]:
    """The table, memory-mapped. Raises UserError where there is none of this very store."""
    manifest = Path(table_manifest(str(store.path), aggregator))
    path, found = manifest.with_suffix(".npy"), read_object(manifest)
    if found is None or not path.exists() or found.get("store") != store.checksum:
        there = found is not None and path.exists()
        lacks = "was made of another graph" if there else "is not there"
        missing = manifest if found is None else path
        raise UserError(
            f"the table of aggregated features {missing} {lacks}: make it with python "
            f"workflow_scripts/build_table.py --store {store.path} --aggregator {aggregator}"
        )
    return np.load(path, mmap_mode="r", allow_pickle=False)


def pieces_of(colptr: NDArray[np.int64], edges: int) -> Iterator[tuple[int, int]]:
    """[first, last) of consecutive rows with about so many edges, at least one row each."""
    first, rows = 0, len(colptr) - 1
    while first < rows:
        last = int(np.searchsorted(colptr, colptr[first] + edges, side="right")) - 1
        last = min(max(last, first + 1), rows, first + edges)
        yield first, last
        first = last
