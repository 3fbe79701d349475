"""PyG's loader and layers; each layer computes the destinations alone."""

from __future__ import annotations

from sagebench.engines.pyg import PygEngine

ENGINE = "PyG's loader and layers, called on pairs of sources and destinations"
TAKES = ["blocks", "pyg"]
PLACEMENTS = ["auto"]
LOADS = "processes"


class Engine(PygEngine):
    layout = "bipartite"
