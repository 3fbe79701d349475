"""What the benchmark compares, and at which size. Standard library only."""

from __future__ import annotations

from typing import NamedTuple

from sagebench.grid.trial_file import CHOICES

BIPARTITE = "bipartite_csr"
"""beyond PyG's trimming: written out by hand, a layer computes only the rows that are read"""

BEST_PYG = ("trimmed_csr", "trimmed_edge_index")
"""nodes and edges as `trim_to_layer` leaves them, on PyG's fused kernels; the faster is best_pyg"""

PEERS = (BIPARTITE, *BEST_PYG)
"""made by sagebench.bench.peers"""

ENGINES = tuple(dict.fromkeys(("blocks", *PEERS, *CHOICES["engine"])))
"""in the order in which they take turns: the peers, and every engine that a trial may have"""


class Size(NamedTuple):
    """scale: share of ogbn-products' nodes. step_fanout: where the engines are compared."""

    scale: float
    hidden_channels: int
    batch_size: int
    step_fanout: tuple[int, ...]
    sampler_fanout: tuple[int, ...]


SIZES = {
    "tiny": Size(0.001, 16, 8, (3, 3, 2), (4, 3, 2)),
    "laptop": Size(0.1, 256, 32, (5, 5, 5, 5, 5), (15, 10, 10, 10, 10)),
    "products": Size(1, 256, 128, (5, 5, 5, 5, 5), (15, 10, 10, 10, 10)),
}
"""`tiny` is for tests, `laptop` for 8 GB of memory, `products` is what targets are given for"""
