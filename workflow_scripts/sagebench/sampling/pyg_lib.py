"""The sampler `pyg_lib`: PyG's own, for the engines whose batches come from PyG's loader."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import torch
from torch_geometric.data import Data
from torch_geometric.sampler import NeighborSampler

from sagebench.errors import UserError
from sagebench.graph.store import GraphStore

SAMPLER = "PyG's NeighborLoader, where pyg-lib is installed"
LAW = "uniform"
GIVES = "pyg"
KEYED = False


def pyg_sampler(store: GraphStore, fanout: tuple[int, ...]) -> NeighborSampler:
    """Raises UserError where pyg-lib is not installed."""
    if find_spec("pyg_lib") is None:
        raise UserError(
            "sampler 'pyg_lib' needs the package pyg-lib, which is not installed: "
            "install it (envs/README.md) or write sampler: uniform"
        )
    edges = torch.stack(
        [
            torch.from_numpy(store.row.astype(np.int64)),
            torch.repeat_interleave(
                torch.arange(store.num_nodes), torch.from_numpy(np.diff(store.colptr))
            ),
        ]
    )
    graph = Data(edge_index=edges, num_nodes=store.num_nodes)
    return NeighborSampler(graph, list(fanout), is_sorted=True)
