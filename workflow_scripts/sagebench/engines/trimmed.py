"""PyG's loader and layers; each layer computes what the next one reads (trim_to_layer)."""

from __future__ import annotations

from sagebench.engines.pyg import PygEngine

ENGINE = "PyG's loader and layers, trimmed layer by layer with trim_to_layer"
TAKES = ["blocks", "pyg"]
PLACEMENTS = ["auto"]
LOADS = "processes"


class Engine(PygEngine):
    layout = "trimmed"
