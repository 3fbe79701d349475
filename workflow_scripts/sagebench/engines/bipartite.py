"""PyG's loader and layers; each layer computes the destinations alone."""

from __future__ import annotations

from sagebench.engines.pyg import PygEngine

ENGINE = "PyG's loader and layers, called on bipartite blocks, as `conv((x, x[:n]), edge_index)`"
TAKES = ["blocks", "pyg"]
PLACEMENTS = ["auto"]
LOADS = "processes"


class Engine(PygEngine):
    layout = "bipartite"
