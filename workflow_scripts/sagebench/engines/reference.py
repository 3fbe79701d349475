"""PyG's loader and layers; every layer computes every sampled node."""

from __future__ import annotations

from sagebench.engines.pyg import PygEngine

ENGINE = "PyG's loader and layers, every layer on every sampled node: the slides' path"
TAKES = ["blocks", "pyg"]
PLACEMENTS = ["auto"]
LOADS = "processes"


class Engine(PygEngine):
    layout = "whole"
