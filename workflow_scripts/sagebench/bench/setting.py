"""What the benchmark compares, and at which size. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

BEST_PYG = ("trimmed_csr", "trimmed_edge_index")
"""nodes and edges as `trim_to_layer` leaves them, on PyG's fused kernels; the faster is best_pyg"""

BIPARTITE = "bipartite_csr"
"""beyond PyG's trimming: written out by hand, a layer computes only the rows that are read"""

PEERS = (*BEST_PYG, BIPARTITE)
"""sagebench.bench.peers makes these"""

ENGINES = ("blocks", BIPARTITE, *BEST_PYG, "trimmed", "reference")
"""in the order in which they take turns"""


@dataclass(frozen=True)
class Size:
    """A graph, a model and batches on it.

    scale: share of ogbn-products' nodes. step_fanout, step_batch: of the engines' comparison.
    fanout, batch: of the sampler.
    """

    scale: float
    hidden_channels: int
    step_fanout: tuple[int, ...]
    step_batch: int
    fanout: tuple[int, ...]
    batch: int

    @property
    def dataset(self) -> dict[str, Any]:
        return {"name": "bench", "source": "synthetic", "scale": self.scale}


SIZES = {
    "tiny": Size(0.001, 16, (3, 3, 2), 8, (4, 3, 2), 8),
    "laptop": Size(0.1, 256, (5, 5, 5, 5, 5), 32, (15, 10, 10, 10, 10), 32),
    "products": Size(1, 256, (5, 5, 5, 5, 5), 128, (15, 10, 10, 10, 10), 128),
}
"""`tiny` is for tests, `laptop` for 8 GB of memory, `products` is what targets are given for"""
